//! An IPv4 address of the command line on one port: ours when nobody else claims it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::arp;
use super::conflict::{Check, Step};
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
    /// It was found to be ours.
    ours: bool,
}

impl Fixed {
    pub(super) fn new(link: &Link, mac: Hardware, address: Ipv4Addr) -> Self {
        Self { link: link.clone(), mac, address, check: None, socket: None, ours: false }
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
        if carrier && self.ours {
            return Outcome { bound: Some(true), gave_back: false };
        }
        if carrier {
            self.check = Some(Check::new(self.address, now));
            let socket = Socket::arp(&self.link);
            self.socket = socket
                .inspect_err(|error| {
                    say::warn!("net: {}: {} is not checked for conflicts: {error}", self.link.name, self.address);
                })
                .ok();
        }
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
                (self.check, self.socket, self.ours) = (None, None, true);
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
            let claim = arp::claim(self.mac, bytes).filter(|(_, by)| !own.iter().any(|own| own.is_of_port(*by)));
            if let (Some((address, by)), Some(check)) = (claim, self.check.as_mut())
                && check.claimed(address, by, now)
            {
                let title = format!("{} ({})", self.link.name, self.mac);
                say::warn!("net: {title}: {address} of ip= is in use by {by}; asked again in 10 s");
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
