//! What becomes of a lease: RENEWING, REBINDING, INIT-REBOOT, its end; and INFORM, for who has an address already.

use std::net::Ipv4Addr;
use std::time::Duration;

use log::Level;

use super::getting::shown;
use super::{Action, Client, Held, Sent, State};
use crate::dhcp::Lease;
use crate::dhcp::lease::Refusal;
use crate::dhcp::wire::{Kind, Message, option};

/// RFC 2131 section 4.4.5: the least time between two REQUESTs for more time.
const BETWEEN_RENEWALS: Duration = Duration::from_secs(60);
/// How often the address of before is asked for before the client begins with DISCOVER.
const REBOOTS: u32 = 2;
/// How often options are asked for before the client does without.
const INFORMS: u32 = 2;

impl Client {
    /// BOUND and RENEWING: asks the server of the lease for more time, until T2.
    pub(super) fn renew(&mut self, now: Duration) -> Vec<Action> {
        let Some(Held { lease, .. }) = &self.held else { return Vec::new() };
        let (address, server) = (lease.address, lease.server);
        let rebinding = self.held.as_ref().and_then(Held::rebinding).unwrap_or(now);
        if rebinding <= now {
            return self.rebind(now);
        }
        if matches!(self.state, State::Bound) {
            self.begin_exchange();
        }
        self.count_seconds(now);
        self.requested = now;
        self.state = State::Renewing { again: now.saturating_add(half(rebinding - now)) };
        let line = format!("REQUEST for more time for {address} sent to {server}");
        vec![Action::Unicast(self.holding(Kind::Request, address), server), Action::Say(Level::Info, line)]
    }

    /// REBINDING: asks any server, until the lease's end.
    pub(super) fn rebind(&mut self, now: Duration) -> Vec<Action> {
        let Some(address) = self.lease().map(|lease| lease.address) else { return Vec::new() };
        let end = self.held.as_ref().and_then(Held::end).unwrap_or(now);
        if !matches!(self.state, State::Rebinding { .. }) {
            self.begin_exchange();
        }
        self.count_seconds(now);
        self.requested = now;
        self.state = State::Rebinding { again: now.saturating_add(half(end.saturating_sub(now))) };
        let left = end.saturating_sub(now).as_secs();
        let line = format!("REQUEST for more time for {address} sent to any server; the lease ends in {left} s");
        vec![Action::Broadcast(self.holding(Kind::Request, address)), Action::Say(Level::Warn, line)]
    }

    /// INIT-REBOOT: asks whether the address of before is still ours on this network.
    pub(super) fn reboot(&mut self, count: u32, now: Duration) -> Vec<Action> {
        let Some(address) = self.lease().map(|lease| lease.address).filter(|_| count < REBOOTS) else {
            return self.discover(0, now);
        };
        if count == 0 {
            self.begin_exchange();
            self.last_beginning = Some(now);
        }
        self.count_seconds(now);
        let again = now + self.backoff(count);
        self.requested = now;
        self.state = State::Rebooting { sent: Sent { count: count + 1, again } };
        let line = format!("REQUEST {} for {address} sent, as before carrier was lost", count + 1);
        vec![Action::Broadcast(self.request_again(address)), Action::Say(Level::Info, line)]
    }

    /// A server gave the lease more time.
    pub(super) fn renewed(&mut self, message: &Message) -> Vec<Action> {
        let held = self.lease().map(|lease| lease.address);
        let read = Lease::from_message(message, self.identity.max_mtu).and_then(|(lease, _)| match held {
            Some(held) if held != lease.address => Err(Refusal::OtherAddress(lease.address, held)),
            _ => Ok(lease),
        });
        match read {
            Ok(lease) => {
                let (address, prefix, server) = (lease.address, lease.prefix, lease.server);
                let line = format!("lease {address}/{prefix} renewed by {server} for {}", shown(lease.time));
                self.hold(lease, self.requested);
                vec![Action::Bound, Action::Say(Level::Info, line)]
            }
            Err(refusal) => vec![self.refuse("ACK", message, &refusal)],
        }
    }

    /// The lease's end has come.
    pub(super) fn run_out(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = self.lose("run out");
        if matches!(
            self.state,
            State::Bound | State::Renewing { .. } | State::Rebinding { .. } | State::Rebooting { .. }
        ) {
            self.began = None;
            actions.extend(self.discover(0, now));
        }
        actions
    }

    pub(super) fn lose(&mut self, how: &str) -> Vec<Action> {
        let Some(Held { lease, .. }) = self.held.take() else { return Vec::new() };
        let line = format!("the lease of {} from {} is lost: {how}", lease.address, lease.server);
        vec![Action::Lost, Action::Say(Level::Error, line)]
    }

    /// INFORM: asks for options only.
    pub(super) fn inform(&mut self, count: u32, now: Duration) -> Vec<Action> {
        let Some((address, prefix)) = self.identity.fixed else { return Vec::new() };
        if count >= INFORMS {
            let line = format!("no answer to {count} INFORMs; going on with {address} and without options");
            self.hold(Lease::new(address, prefix, Ipv4Addr::UNSPECIFIED), now);
            return vec![Action::Bound, Action::Say(Level::Warn, line)];
        }
        if count == 0 {
            self.begin_exchange();
            self.last_beginning = Some(now);
        }
        self.count_seconds(now);
        let again = now + self.backoff(0);
        self.state = State::Informing { sent: Sent { count: count + 1, again } };
        let line = format!("INFORM {} sent for {address}", count + 1);
        vec![Action::Broadcast(self.holding(Kind::Inform, address)), Action::Say(Level::Info, line)]
    }

    pub(super) fn informed(&mut self, message: &Message, now: Duration) -> Vec<Action> {
        let Some((address, prefix)) = self.identity.fixed else { return Vec::new() };
        // An answer to INFORM grants nothing: address, mask and time are what they were (RFC 2131 section 4.3.5).
        let mut message = message.clone();
        message.yiaddr = address;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        message.options.insert(option::SUBNET_MASK, mask.to_be_bytes().to_vec());
        message.options.remove(&option::LEASE_TIME);
        match Lease::from_message(&message, self.identity.max_mtu) {
            Ok((lease, notes)) => {
                let line = format!("options from {} for {address}/{prefix}", lease.server);
                self.hold(lease, now);
                let notes = notes.into_iter().map(|note| Action::Say(Level::Warn, note));
                [Action::Bound, Action::Say(Level::Info, line)].into_iter().chain(notes).collect()
            }
            Err(refusal) => vec![self.refuse("ACK", &message, &refusal)],
        }
    }

    fn begin_exchange(&mut self) {
        self.xid = self.random.bits();
        self.began = None;
    }
}

fn half(rest: Duration) -> Duration {
    (rest / 2).max(BETWEEN_RENEWALS)
}
