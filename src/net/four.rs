//! DHCP for IPv4 on one port: the client with its raw sockets.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::arp::{self, Claim};
use super::defence::Defence;
use super::engine::{Engine, Lack, Outcome};
use super::link::{Link, Links};
use super::packet::{Frame, Socket};
use crate::dhcp::client::{Action, Client, Event, Identity};
use crate::dhcp::wire::{Message, option};
use crate::dhcp::{Ignored, frame};
use crate::lease::Lease;
use crate::mac::Hardware;
use crate::random;
use crate::say;

/// How many frames are taken from a port before the others have their turn.
const FRAMES_A_TURN: usize = 32;
/// Larger than any message that we ask for.
const LARGEST_FRAME: usize = 4096;
/// Where DHCP servers listen.
const SERVER_PORT: u16 = 67;
/// The servers whose MAC is remembered.
const MAX_SERVERS: usize = 16;

/// A port's DHCP client.
#[derive(Debug)]
pub(super) struct Four {
    link: Link,
    mac: Hardware,
    /// An address that was put on the port before its server was asked.
    address: Option<(Ipv4Addr, u8)>,
    socket: Socket,
    /// While somebody may claim the address that is ours, or that we are about to take.
    arp: Option<Socket>,
    /// Of the address that is ours.
    defence: Option<Defence>,
    client: Client,
    frames: u32,
    ignored: BTreeMap<Ignored, u32>,
    /// Where each server's answers came from: its own MAC, or that of the router towards it.
    hops: BTreeMap<Ipv4Addr, [u8; 6]>,
}

impl Four {
    /// Listens on a port that is up.
    pub(super) fn open(links: &Links, link: &Link, identity: Identity) -> io::Result<Self> {
        let socket = Socket::dhcp(link)?;
        // A server answers INFORM to the address, and asks by ARP who has it.
        let address = identity.fixed.filter(|(address, prefix)| {
            let added = links.add_address(link.index, IpAddr::V4(*address), *prefix);
            added.unwrap_or_else(|error| {
                say::warn!("net: {}: adding address {address}/{prefix}: {error}", link.name);
                false
            })
        });
        let mac = identity.mac;
        Ok(Self {
            link: link.clone(),
            mac,
            address,
            socket,
            arp: None,
            defence: None,
            client: Client::new(identity, random::bits(mac)),
            frames: 0,
            ignored: BTreeMap::new(),
            hops: BTreeMap::new(),
        })
    }

    /// The second part says whether what arrived was of no use.
    fn step(&mut self, event: Event<'_>, now: Duration) -> (Outcome, bool) {
        let mut outcome = Outcome::default();
        let mut ignored = false;
        for action in self.client.step(event, now) {
            match action {
                Action::Broadcast(message) => self.send(&message, frame::BROADCAST, Ipv4Addr::BROADCAST),
                Action::Unicast(message, server) => {
                    outcome.gave_back = true;
                    if self.mac.is_infiniband() && routed(&message, server).is_ok() {
                        continue;
                    }
                    let to = self.hops.get(&server).copied().unwrap_or(frame::BROADCAST);
                    self.send(&message, to, server);
                }
                Action::Probe(address) => self.probe(address),
                Action::Announce(address) => self.send_arp(self.arp.as_ref(), &arp::announcement(self.mac, address)),
                Action::Say(level, line) => say::at(level, format_args!("dhcp: {}: {line}", self.link.name)),
                Action::Ignore(why) => {
                    ignored = true;
                    self.ignore(why);
                }
                Action::Bound => {
                    self.defend();
                    outcome.bound = Some(true);
                }
                Action::Lost => {
                    (self.arp, self.defence) = (None, None);
                    outcome.bound = Some(false);
                }
            }
        }
        (outcome, ignored)
    }

    fn take(&mut self, event: Event<'_>, now: Duration, sum: &mut Outcome) -> bool {
        let (outcome, ignored) = self.step(event, now);
        sum.bound = outcome.bound.or(sum.bound);
        ignored
    }

    fn send(&self, message: &Message, to: [u8; 6], destination: Ipv4Addr) {
        let frame = match self.mac {
            Hardware::Ethernet(mac) => frame::build(mac, to, message.ciaddr, destination, &message.to_bytes()),
            Hardware::InfiniBand(_) => frame::packet(message.ciaddr, destination, &message.to_bytes()),
        };
        // Retransmission mends what is lost here, too.
        if let Err(error) = self.socket.send(&frame) {
            say::warn!("dhcp: {}: sending {}: {error}", self.link.name, message.kind);
        }
    }

    /// Asks who has an address, and listens for who claims it.
    fn probe(&mut self, address: Ipv4Addr) {
        self.defence = None;
        self.arp = self.listen(address);
        self.send_arp(self.arp.as_ref(), &arp::probe(self.mac, address));
    }

    /// Listens for who uses the address that is ours now.
    fn defend(&mut self) {
        let Some(address) = self.client.lease().map(|lease| lease.address) else { return };
        if self.arp.is_none() {
            self.arp = self.listen(address);
        }
        if self.defence.is_none_or(|defence| defence.address() != address) {
            self.defence = Some(Defence::of(address));
        }
    }

    fn listen(&self, address: Ipv4Addr) -> Option<Socket> {
        let complain =
            |error: &io::Error| say::warn!("net: {}: {address} is not checked for conflicts: {error}", self.link.name);
        Socket::arp(&self.link).inspect_err(complain).ok()
    }

    /// Somebody else said something of an address.
    fn heard(&mut self, claim: Claim, now: Duration, sum: &mut Outcome) {
        let Claim { address, by, used } = claim;
        let Some(defence) = &mut self.defence else {
            self.take(Event::Claimed(address, by), now, sum);
            return;
        };
        if used && defence.used(address, now) {
            say::warn!("net: {}: {address} is ours, but {by} uses it too; announced again", self.link.name);
            self.send_arp(self.arp.as_ref(), &arp::announcement(self.mac, address));
        }
    }

    fn send_arp(&self, socket: Option<&Socket>, frame: &[u8]) {
        if let Some(Err(error)) = socket.map(|socket| socket.send(frame)) {
            say::warn!("net: {}: sending ARP: {error}", self.link.name);
        }
    }

    /// The message in a frame, and the MAC that it came from; or in a packet, with which the kernel names none.
    fn unwrap(&self, bytes: &[u8], checksum_done: bool) -> Result<(Message, Option<[u8; 6]>), Ignored> {
        let (payload, from) = match self.mac {
            Hardware::Ethernet(mac) => {
                let datagram = frame::parse(bytes, mac, checksum_done)?;
                (datagram.payload, Some(datagram.from))
            }
            Hardware::InfiniBand(_) => (frame::parse_packet(bytes, checksum_done)?, None),
        };
        Ok((Message::parse(payload)?, from))
    }

    fn ignore(&mut self, why: Ignored) {
        say::debug!("dhcp: {}: a frame ignored: {why}", self.link.name);
        let count = self.ignored.entry(why).or_default();
        *count = count.saturating_add(1);
    }
}

impl Engine for Four {
    fn carrier(&mut self, _: &Links, carrier: bool, now: Duration) -> Outcome {
        self.step(if carrier { Event::Carrier } else { Event::CarrierLost }, now).0
    }

    fn tick(&mut self, _: &Links, now: Duration) -> Outcome {
        self.step(Event::Tick, now).0
    }

    /// Linux answers on every port for the addresses of all, such as one that an earlier try left behind.
    fn receive(&mut self, _: &Links, now: Duration, own: &[Hardware]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut buffer = [0; LARGEST_FRAME];
        for _ in 0..FRAMES_A_TURN {
            let Some(frame) = next_frame(Some(&self.socket), &mut buffer) else { break };
            self.frames = self.frames.saturating_add(1);
            let bytes = buffer.get(..frame.length).unwrap_or_default();
            let read = if frame.vlan { Err(Ignored::OtherStation) } else { self.unwrap(bytes, frame.checksum_done) };
            match read {
                Ok((message, from)) => {
                    let ignored = self.take(Event::Received(&message), now, &mut outcome);
                    if let Some(server) = message.address(option::SERVER).filter(|_| !ignored)
                        && let Some(from) = from
                        && (self.hops.len() < MAX_SERVERS || self.hops.contains_key(&server))
                    {
                        self.hops.insert(server, from);
                    }
                }
                Err(why) => self.ignore(why),
            }
        }
        for _ in 0..FRAMES_A_TURN {
            let Some(frame) = next_frame(self.arp.as_ref(), &mut buffer) else { break };
            let bytes = buffer.get(..frame.length).filter(|_| !frame.vlan).unwrap_or_default();
            let others = |claim: &Claim| !own.iter().any(|own| own.is_of_port(claim.by));
            if let Some(claim) = arp::claim(self.mac, bytes).filter(others) {
                self.heard(claim, now, &mut outcome);
            }
        }
        outcome
    }

    fn release(&mut self, _: &Links) -> Outcome {
        self.step(Event::Leave, Duration::ZERO).0
    }

    fn deadline(&self) -> Option<Duration> {
        self.client.deadline()
    }

    fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        [Some(&self.socket), self.arp.as_ref()].into_iter().flatten().map(AsFd::as_fd).collect()
    }

    fn lease(&self) -> Option<Lease> {
        self.client.lease().map(|lease| lease.clone().widened())
    }

    fn lack(&self) -> Option<Lack> {
        let tally = self.client.tally();
        (tally.servers.is_empty() && tally.refused.is_none()).then_some(Lack::Dhcp)
    }

    fn story(&self) -> String {
        let tally = self.client.tally();
        let many = if tally.discovers == 1 { "" } else { "s" };
        let mut story = format!("{} DISCOVER{many} sent, {} DHCP frames received", tally.discovers, self.frames);
        // Writing into a String cannot fail.
        let _ = write!(story, "{}", counted(&self.ignored));
        let servers: Vec<String> = tally.servers.iter().map(ToString::to_string).collect();
        let _ = write!(story, ", servers seen: {}", listed(&servers));
        if let Some(refused) = &tally.refused {
            let _ = write!(story, ", last: {refused}");
        }
        story
    }

    fn put_back(&self, links: &Links) -> io::Result<()> {
        self.address
            .map_or(Ok(()), |(address, prefix)| links.delete_address(self.link.index, IpAddr::V4(address), prefix))
    }
}

/// ` (ignored: 3 cut short, 1 bad checksum)`, or nothing.
pub(super) fn counted(ignored: &BTreeMap<Ignored, u32>) -> String {
    if ignored.is_empty() {
        return String::new();
    }
    let counts: Vec<String> = ignored.iter().map(|(why, count)| format!("{count} {why}")).collect();
    format!(" (ignored: {})", counts.join(", "))
}

/// With commas, or `none`.
pub(super) fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Sends a message the usual way, by who has its address already: the hardware address of a server on InfiniBand is known
/// to the kernel alone.
fn routed(message: &Message, server: Ipv4Addr) -> io::Result<()> {
    UdpSocket::bind((message.ciaddr, 0))?.send_to(&message.to_bytes(), (server, SERVER_PORT)).map(drop)
}

/// The next frame that waits, if any.
fn next_frame(socket: Option<&Socket>, buffer: &mut [u8]) -> Option<Frame> {
    socket?.receive(buffer).unwrap_or_else(|error| {
        say::debug!("net: receiving: {error}");
        None
    })
}
