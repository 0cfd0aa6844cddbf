//! Whether an address of the command line is somebody else's, asked by ARP before it is used (RFC 5227). No I/O, no clock.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::mac::Hardware;

/// How often it is asked who has the address, and how long is waited for an answer.
const PROBES: u32 = 3;
const BETWEEN_PROBES: Duration = Duration::from_millis(200);
/// When it is asked again after somebody had it.
const AGAIN: Duration = Duration::from_secs(10);

/// The check of one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    address: Ipv4Addr,
    /// Probes that were sent.
    sent: u32,
    /// When something is to be done next.
    at: Duration,
    /// Who had it last.
    by: Option<Hardware>,
    /// Until that one may be gone.
    resting: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// Ask who has the address.
    Probe(Ipv4Addr),
    /// Nobody has it.
    Free(Ipv4Addr),
}

impl Check {
    /// Of an address, from now on.
    pub(super) fn new(address: Ipv4Addr, now: Duration) -> Self {
        Self { address, sent: 0, at: now, by: None, resting: false }
    }

    /// When [`Check::step`] has something to do.
    pub(super) fn deadline(&self) -> Duration {
        self.at
    }

    /// Who had the address when it was asked last, if that is so.
    pub(super) fn claimed_by(&self) -> Option<(Ipv4Addr, Hardware)> {
        self.by.map(|by| (self.address, by))
    }

    /// Lets time pass.
    pub(super) fn step(&mut self, now: Duration) -> Step {
        if now < self.at {
            return Step::Wait;
        }
        if std::mem::take(&mut self.resting) {
            self.sent = 0;
        }
        if self.sent < PROBES {
            self.sent += 1;
            self.at = now + BETWEEN_PROBES;
            return Step::Probe(self.address);
        }
        Step::Free(self.address)
    }

    /// Somebody has an address. True when it is this one.
    pub(super) fn claimed(&mut self, address: Ipv4Addr, by: Hardware, now: Duration) -> bool {
        let new = address == self.address && !self.resting;
        if new {
            (self.by, self.resting) = (Some(by), true);
            self.at = now + AGAIN;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 7);
    const BY: Hardware = Hardware::Ethernet([2; 6]);

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    // F13
    #[test]
    fn an_address_that_nobody_claims_is_free_after_three_probes() {
        let mut check = Check::new(ADDRESS, at(0));
        for time in [0, 200, 400] {
            assert_eq!(check.deadline(), at(time));
            assert_eq!(check.step(at(time)), Step::Probe(ADDRESS));
            assert_eq!(check.step(at(time + 199)), Step::Wait);
        }
        assert_eq!(check.step(at(600)), Step::Free(ADDRESS));
    }

    // F13
    #[test]
    fn an_address_of_somebody_else_is_asked_for_again_later() {
        let mut check = Check::new(ADDRESS, at(0));
        check.step(at(0));
        assert!(!check.claimed(Ipv4Addr::LOCALHOST, BY, at(10)));
        assert!(check.claimed(ADDRESS, BY, at(10)));
        assert!(!check.claimed(ADDRESS, BY, at(20)), "said once");
        assert_eq!(check.claimed_by(), Some((ADDRESS, BY)));
        assert_eq!(check.step(at(10_009)), Step::Wait);
        for time in [10_010, 10_210, 10_410] {
            assert_eq!(check.step(at(time)), Step::Probe(ADDRESS));
        }
        assert_eq!(check.step(at(10_610)), Step::Free(ADDRESS));
    }
}
