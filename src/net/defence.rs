//! What is done when somebody uses an address that is ours already (RFC 5227 section 2.4, its third way): it is said, and
//! announced that the address is ours, but no more often than every ten seconds. Without its address a node could not fetch
//! its image. No I/O, no clock.

use std::net::Ipv4Addr;
use std::time::Duration;

/// RFC 5227's `DEFEND_INTERVAL`.
const INTERVAL: Duration = Duration::from_secs(10);

/// The defence of one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defence {
    address: Ipv4Addr,
    /// Until when nothing is done about it.
    rest: Duration,
}

impl Defence {
    /// Of an address that is used from now on.
    pub(super) fn of(address: Ipv4Addr) -> Self {
        Self { address, rest: Duration::ZERO }
    }

    /// The address.
    pub(super) fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Somebody uses an address. True when it is this one, and time to say whose it is.
    pub(super) fn used(&mut self, address: Ipv4Addr, now: Duration) -> bool {
        let due = address == self.address && now >= self.rest;
        if due {
            self.rest = now + INTERVAL;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F13
    #[test]
    fn an_address_is_defended_every_ten_seconds_at_most() {
        let address = Ipv4Addr::new(172, 16, 0, 7);
        let mut defence = Defence::of(address);
        let mut used = |address, milliseconds| defence.used(address, Duration::from_millis(milliseconds));
        assert!(!used(Ipv4Addr::LOCALHOST, 100));
        assert!(used(address, 100));
        assert!(!used(address, 10_099));
        assert!(used(address, 10_100));
        assert!(!used(address, 10_101));
    }
}
