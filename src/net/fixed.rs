//! An IPv4 address of the command line on one port: ours when nobody else claims it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::arp::{self, Claim};
use super::conflict::{Check, Step};
use super::defence::Defence;
use super::engine::{Engine, Lack, Outcome};
use super::link::{Link, Links};
use super::packet::Socket;
use crate::lease::Lease;
use crate::mac::Hardware;
use crate::say;

/// Larger than any ARP message.
const LARGEST_FRAME: usize = 256;
/// How many frames are taken from a port before the others have their turn.
const FRAMES_A_TURN: usize = 32;

/// A port's address, and whether it may be used.
#[derive(Debug)]
pub(super) struct Fixed {
    link: Link,
    mac: Hardware,
    address: Ipv4Addr,
    /// While that is asked.
    check: Option<Check>,
    /// Where answers come in.
    socket: Option<Socket>,
    /// When it was found to be ours.
    defence: Option<Defence>,
}

impl Fixed {
    pub(super) fn new(link: &Link, mac: Hardware, address: Ipv4Addr) -> Self {
        Self { link: link.clone(), mac, address, check: None, socket: None, defence: None }
    }

    /// Somebody else said something of an address.
    fn heard(&mut self, claim: Claim, now: Duration) {
        let Claim { address, by, used } = claim;
        let title = format!("{} ({})", self.link.name, self.mac);
        if self.check.as_mut().is_some_and(|check| check.claimed(address, by, now)) {
            say::warn!("net: {title}: {address} of ip= is in use by {by}; asked again in 10 s");
        }
        if used && self.defence.as_mut().is_some_and(|defence| defence.used(address, now)) {
            say::warn!("net: {title}: {address} is ours, but {by} uses it too; announced again");
            self.send(&arp::announcement(self.mac, address));
        }
    }

    fn send(&self, frame: &[u8]) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(frame)) {
            say::warn!("net: {}: sending ARP: {error}", self.link.name);
        }
    }
}

impl Engine for Fixed {
    fn carrier(&mut self, _: &Links, carrier: bool, now: Duration) -> Outcome {
        (self.check, self.socket) = (None, None);
        if !carrier {
            return Outcome::default();
        }
        let socket = Socket::arp(&self.link);
        self.socket = socket
            .inspect_err(|error| {
                say::warn!("net: {}: {} is not checked for conflicts: {error}", self.link.name, self.address);
            })
            .ok();
        if self.defence.is_some() {
            return Outcome { bound: Some(true), gave_back: false };
        }
        self.check = Some(Check::new(self.address, now));
        Outcome::default()
    }

    fn tick(&mut self, _: &Links, now: Duration) -> Outcome {
        match self.check.as_mut().map_or(Step::Wait, |check| check.step(now)) {
            Step::Wait => Outcome::default(),
            Step::Probe(address) => {
                self.send(&arp::probe(self.mac, address));
                Outcome::default()
            }
            Step::Free(address) => {
                say::info!("net: {} ({}): address {address} of ip=", self.link.name, self.mac);
                self.send(&arp::announcement(self.mac, address));
                (self.check, self.defence) = (None, Some(Defence::of(address)));
                Outcome { bound: Some(true), gave_back: false }
            }
        }
    }

    /// Linux answers on every port for the addresses of all, such as one that an earlier try left behind.
    fn receive(&mut self, _: &Links, now: Duration, own: &[Hardware]) -> Outcome {
        let mut buffer = [0; LARGEST_FRAME];
        for _ in 0..FRAMES_A_TURN {
            let received = self.socket.as_ref().map_or(Ok(None), |socket| socket.receive(&mut buffer));
            let Ok(Some(frame)) = received else { break };
            let bytes = buffer.get(..frame.length).filter(|_| !frame.vlan).unwrap_or_default();
            let others = |claim: &Claim| !own.iter().any(|own| own.is_of_port(claim.by));
            if let Some(claim) = arp::claim(self.mac, bytes).filter(others) {
                self.heard(claim, now);
            }
        }
        Outcome::default()
    }

    fn release(&mut self, _: &Links) -> Outcome {
        Outcome::default()
    }

    fn deadline(&self) -> Option<Duration> {
        self.check.as_ref().map(Check::deadline)
    }

    fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        self.socket.iter().map(AsFd::as_fd).collect()
    }

    fn lease(&self) -> Option<Lease> {
        None
    }

    fn lack(&self) -> Option<Lack> {
        None
    }

    fn story(&self) -> String {
        match self.conflict() {
            Some((address, by)) => format!("{address} of ip= is in use by {by}"),
            None => format!("address {} of ip=", self.address),
        }
    }

    fn conflict(&self) -> Option<(Ipv4Addr, Hardware)> {
        self.check.as_ref()?.claimed_by()
    }

    fn put_back(&self, _: &Links) -> io::Result<()> {
        Ok(())
    }
}
