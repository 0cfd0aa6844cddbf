//! What gets a port its lease: DHCP for IPv4 (`four`), or routers and servers of IPv6 (`six`).

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::link::Links;
use crate::lease::Lease;
use crate::mac::Hardware;

/// What came of an event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// The lease is ours, or ours for longer; or, if false, not ours any more. Unset: it is as before.
    pub(super) bound: Option<bool>,
    /// A message that gives something back was sent.
    pub(super) gave_back: bool,
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lack {
    /// An answer of any DHCP server for IPv4.
    Dhcp,
    /// An address on the link, without which nobody of IPv6 can be asked.
    LinkLocal,
    /// A router's advertisement.
    Router,
    /// An answer of any DHCPv6 server.
    Dhcp6,
}

/// A client with its sockets.
pub(super) trait Engine: fmt::Debug + Send {
    /// Carrier came or went.
    fn carrier(&mut self, links: &Links, carrier: bool, now: Duration) -> Outcome;

    /// Does what its time has come for.
    fn tick(&mut self, links: &Links, now: Duration) -> Outcome;

    /// Takes what waits in the sockets. `own` has the hardware addresses of this machine.
    fn receive(&mut self, links: &Links, now: Duration, own: &[Hardware]) -> Outcome;

    /// Gives the lease back, if there is one.
    fn release(&mut self, links: &Links) -> Outcome;

    /// When [`Engine::tick`] has something to do.
    fn deadline(&self) -> Option<Duration>;

    /// What to poll.
    fn sockets(&self) -> Vec<BorrowedFd<'_>>;

    /// The lease that is ours now.
    fn lease(&self) -> Option<Lease>;

    /// What it has waited for in vain so far; unset when something was answered.
    fn lack(&self) -> Option<Lack>;

    /// The address that it would have if somebody else had not, and who.
    fn conflict(&self) -> Option<(Ipv4Addr, Hardware)> {
        None
    }

    /// What it did and saw, to follow a comma.
    fn story(&self) -> String;

    /// Takes off the port what it put there.
    fn put_back(&self, links: &Links) -> io::Result<()>;
}
