//! One port in the race for a lease: its socket, its DHCP client, and what both saw.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::Settings;
use super::arp;
use super::choose::Runner;
use super::conflict::{self, Check};
use super::link::{Link, Links};
use super::lldp::Ear;
use super::packet::{Frame, Socket};
use super::statics::Said;
use crate::dhcp::client::{Action, Client, Event, Identity};
use crate::dhcp::wire::{Message, option};
use crate::dhcp::{Ignored, frame};
use crate::lease::Lease;
use crate::lldp::Neighbour;
use crate::mac::Hardware;
use crate::random;
use crate::report::since_kernel_start;
use crate::say;

/// How many frames are taken from a port before the others have their turn.
const FRAMES_A_TURN: usize = 32;
/// Larger than any message that we ask for.
const LARGEST_FRAME: usize = 4096;
/// Where DHCP servers listen.
const SERVER_PORT: u16 = 67;
/// The servers whose MAC is remembered.
const MAX_SERVERS: usize = 16;

/// A port that takes part.
#[derive(Debug)]
pub(super) struct Port {
    link: Link,
    mac: Hardware,
    driver: Option<String>,
    /// What the command line says about it.
    said: Said,
    /// The ports that it is on, if it is a VLAN or a bond.
    below: Vec<Link>,
    /// Where the switch is listened to: on the port, or on those below it.
    ears: Vec<Ear>,
    /// An address that was put on it before its server was asked.
    address: Option<(Ipv4Addr, u8)>,
    socket: Option<Socket>,
    /// Of an address that the command line has for the port, before it is used.
    check: Option<Check>,
    /// While somebody may claim the address that we are about to take.
    arp: Option<Socket>,
    /// Why the port cannot take part.
    broken: Option<io::Error>,
    client: Client,
    carrier: bool,
    first_carrier: Option<Duration>,
    frames: u32,
    ignored: BTreeMap<Ignored, u32>,
    /// Where each server's answers came from: its own MAC, or that of the router towards it.
    hops: BTreeMap<Ipv4Addr, [u8; 6]>,
    /// Since when the lease is ours without a doubt.
    bound: Option<Duration>,
    /// When it was granted, from the kernel's start.
    granted: Duration,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    /// A message to a server was sent.
    unicast: bool,
    /// What arrived was of no use.
    ignored: bool,
}

impl Port {
    /// Brings the port up and listens on it. A port that cannot be brought up takes part without
    /// ever having carrier.
    pub(super) fn open(
        links: &Links,
        link: Link,
        driver: Option<String>,
        identity: Identity,
        said: Said,
        below: Vec<Link>,
    ) -> Self {
        let mac = identity.mac;
        let (socket, broken) = match bring_up(links, &link, mac).and_then(|()| Socket::dhcp(&link)) {
            Ok(socket) => (Some(socket), None),
            Err(error) => (None, Some(error)),
        };
        // A server answers INFORM to the address, and asks by ARP who has it.
        let address = identity.fixed.filter(|(address, prefix)| {
            let added = links.add_address(link.index, IpAddr::V4(*address), *prefix);
            added.unwrap_or_else(|error| {
                say::warn!("net: {}: adding address {address}/{prefix}: {error}", link.name);
                false
            })
        });
        let ears = match below.as_slice() {
            // LLDP is Ethernet's.
            [] if mac.is_infiniband() => Vec::new(),
            [] => vec![Ear::open(&link)],
            below => below.iter().map(Ear::open).collect(),
        };
        let port = Self {
            link,
            mac,
            driver,
            said,
            below,
            ears,
            address,
            socket,
            check: None,
            arp: None,
            broken,
            client: Client::new(identity, random::bits(mac)),
            carrier: false,
            first_carrier: None,
            frames: 0,
            ignored: BTreeMap::new(),
            hops: BTreeMap::new(),
            bound: None,
            granted: Duration::ZERO,
        };
        match &port.broken {
            None => say::info!("net: {} is up", port.full_title()),
            Some(why) => say::warn!("net: {} cannot be brought up: {why}", port.full_title()),
        }
        port
    }

    /// The port as it was found.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn index(&self) -> u32 {
        self.link.index
    }

    pub(super) fn name(&self) -> &str {
        &self.link.name
    }

    pub(super) fn mac(&self) -> Hardware {
        self.mac
    }

    /// The MTU that the port was found with.
    pub(super) fn mtu(&self) -> u32 {
        self.link.mtu
    }

    /// We may not bring it up, or not listen on it.
    pub(super) fn is_forbidden(&self) -> bool {
        self.broken.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Name and MAC, as messages call the port.
    pub(super) fn title(&self) -> String {
        format!("{} ({})", self.link.name, self.mac)
    }

    fn full_title(&self) -> String {
        format!("{} ({}, {})", self.link.name, self.mac, self.driver.as_deref().unwrap_or("unknown driver"))
    }

    pub(super) fn has_carrier(&self) -> bool {
        self.carrier
    }

    /// When it had carrier for the first time.
    pub(super) fn first_carrier(&self) -> Option<Duration> {
        self.first_carrier
    }

    pub(super) fn runner(&self, settings: &Settings) -> Runner {
        let resolves = !settings.nameservers.is_empty();
        let found =
            |bootif| self.below.iter().chain([&self.link]).filter_map(|link| link.mac).any(|mac| mac.mac() == bootif);
        Runner {
            boot: settings.bootif.is_some_and(|bootif| bootif == self.mac.mac() || found(bootif)),
            bound: self.bound,
            reaches: self.lease().is_some_and(|lease| settings.destination.is_reached_by(&lease, resolves)),
        }
    }

    /// The lease that is ours now.
    pub(super) fn lease(&self) -> Option<Lease> {
        let lease = match self.said.lease() {
            Some(lease) => self.first_carrier.map(|_| lease),
            None => self.client.lease().map(|lease| self.said.amend(lease.clone().widened())),
        };
        lease.map(|lease| Lease { granted: Some(self.granted), ..lease })
    }

    /// Whether its address is that of the command line.
    pub(super) fn is_fixed(&self) -> bool {
        self.said.ip.address.is_some()
    }

    /// What the switch says about the port, or about the first of those below it.
    pub(super) fn switch(&self) -> Option<Neighbour> {
        self.ears.iter().find_map(Ear::heard).cloned()
    }

    /// Any server answered at all.
    pub(super) fn was_answered(&self) -> bool {
        !self.client.tally().servers.is_empty() || self.client.tally().refused.is_some()
    }

    /// When [`Port::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.client.deadline().into_iter().chain(self.check.as_ref().map(Check::deadline)).min()
    }

    /// What to poll, while the port can receive.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let own = [&self.socket, &self.arp].into_iter().flatten().map(AsFd::as_fd);
        own.chain(self.ears.iter().filter_map(Ear::socket)).filter(|_| self.carrier)
    }

    /// Takes in ports below it that came later, such as those of a bond.
    pub(super) fn join(&mut self, below: Vec<Link>) {
        for link in below {
            if self.below.iter().all(|known| known.index != link.index) {
                self.ears.push(Ear::open(&link));
                self.below.push(link);
            }
        }
    }

    /// Takes notice of the link's state.
    pub(super) fn carrier(&mut self, carrier: bool, now: Duration) {
        let carrier = carrier && self.broken.is_none();
        if carrier == self.carrier {
            return;
        }
        self.carrier = carrier;
        if carrier {
            self.first_carrier.get_or_insert(now);
            say::info!("net: {}: carrier after {:.1} s", self.title(), now.as_secs_f32());
            match self.said.lease() {
                // Ours since before the carrier went.
                Some(_) if !self.granted.is_zero() => self.bind(now),
                Some(Lease { address: IpAddr::V4(address), .. }) => self.check = Some(Check::new(address, now)),
                // The kernel checks such an address itself, when it is put on the port.
                Some(lease) => self.take(lease.address, now),
                None => drop(self.step(Event::Carrier, now)),
            }
        } else {
            say::warn!("net: {}: carrier lost", self.title());
            self.bound = None;
            self.check = None;
            self.step(Event::CarrierLost, now);
        }
    }

    /// Lets the client do what its time has come for.
    pub(super) fn tick(&mut self, now: Duration) {
        self.step(Event::Tick, now);
        match self.check.as_mut().map_or(conflict::Step::Wait, |check| check.step(now)) {
            conflict::Step::Wait => {}
            conflict::Step::Probe(address) => self.probe(address),
            conflict::Step::Free(address) => {
                self.send_arp(self.arp.as_ref(), &arp::announcement(self.mac, address));
                (self.check, self.arp) = (None, None);
                self.take(address.into(), now);
            }
        }
    }

    /// An address of the command line that somebody else has, and who.
    pub(super) fn conflict(&self) -> Option<(Ipv4Addr, Hardware)> {
        self.check.as_ref()?.claimed_by()
    }

    /// Takes the frames that wait. `own` has the hardware addresses of this machine: Linux answers on every port for the addresses of
    /// all, such as one that an earlier try left behind.
    pub(super) fn receive(&mut self, now: Duration, own: &[Hardware]) {
        self.ears.iter_mut().for_each(Ear::listen);
        let mut buffer = [0; LARGEST_FRAME];
        for _ in 0..FRAMES_A_TURN {
            let Some(frame) = next_frame(self.socket.as_ref(), &mut buffer) else { break };
            self.frames = self.frames.saturating_add(1);
            let bytes = buffer.get(..frame.length).unwrap_or_default();
            let read = if frame.vlan { Err(Ignored::OtherStation) } else { self.unwrap(bytes, frame.checksum_done) };
            match read {
                Ok((message, from)) => {
                    let done = self.step(Event::Received(&message), now);
                    if let Some(server) = message.address(option::SERVER).filter(|_| !done.ignored)
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
            if let Some((address, mac)) =
                arp::claim(self.mac, bytes).filter(|(_, mac)| !own.iter().any(|own| own.is_of_port(*mac)))
            {
                if self.check.as_mut().is_some_and(|check| check.claimed(address, mac, now)) {
                    say::warn!("net: {}: {address} of ip= is in use by {mac}; asked again in 10 s", self.title());
                }
                self.step(Event::Claimed(address, mac), now);
            }
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

    /// Gives the lease back, if there is one. True when a frame was sent.
    pub(super) fn release(&mut self) -> bool {
        self.bound = None;
        self.step(Event::Leave, Duration::ZERO).unicast
    }

    /// The address of the command line is ours.
    fn take(&mut self, address: IpAddr, now: Duration) {
        say::info!("net: {}: address {address} of ip=", self.title());
        self.bind(now);
    }

    fn bind(&mut self, now: Duration) {
        self.bound = Some(now);
        self.granted = since_kernel_start();
    }

    /// Takes the port down if it was found down, and gives it back its own MAC.
    pub(super) fn put_back(&self, links: &Links) -> io::Result<()> {
        let index = self.link.index;
        if let Some((address, prefix)) = self.address {
            links.delete_address(index, IpAddr::V4(address), prefix)?;
        }
        let own = self.link.mac.filter(|own| *own != self.mac);
        if self.link.up && own.is_none() {
            return Ok(());
        }
        say::info!("net: {} is taken down again", self.title());
        links.set_down(index)?;
        own.map_or(Ok(()), |mac| links.set_mac(index, mac))?;
        if self.link.up { links.set_up(index) } else { Ok(()) }
    }

    fn step(&mut self, event: Event<'_>, now: Duration) -> Done {
        let mut done = Done::default();
        for action in self.client.step(event, now) {
            match action {
                Action::Broadcast(message) => self.send(&message, frame::BROADCAST, Ipv4Addr::BROADCAST),
                Action::Unicast(message, server) => {
                    done.unicast = true;
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
                    done.ignored = true;
                    self.ignore(why);
                }
                Action::Bound => {
                    self.arp = None;
                    self.bind(now);
                }
                Action::Lost => self.bound = None,
            }
        }
        done
    }

    fn send(&self, message: &Message, to: [u8; 6], destination: Ipv4Addr) {
        let Some(socket) = &self.socket else { return };
        let frame = match self.mac {
            Hardware::Ethernet(mac) => frame::build(mac, to, message.ciaddr, destination, &message.to_bytes()),
            Hardware::InfiniBand(_) => frame::packet(message.ciaddr, destination, &message.to_bytes()),
        };
        // Retransmission mends what is lost here, too.
        if let Err(error) = socket.send(&frame) {
            say::warn!("dhcp: {}: sending {}: {error}", self.link.name, message.kind);
        }
    }

    /// Asks who has an address, and listens for who claims it.
    fn probe(&mut self, address: Ipv4Addr) {
        match Socket::arp(&self.link) {
            Ok(socket) => {
                self.send_arp(Some(&socket), &arp::probe(self.mac, address));
                self.arp = Some(socket);
            }
            Err(error) => say::warn!("net: {}: {address} is not checked for conflicts: {error}", self.link.name),
        }
    }

    fn send_arp(&self, socket: Option<&Socket>, frame: &[u8]) {
        if let Some(Err(error)) = socket.map(|socket| socket.send(frame)) {
            say::warn!("net: {}: sending ARP: {error}", self.link.name);
        }
    }

    fn ignore(&mut self, why: Ignored) {
        say::debug!("dhcp: {}: a frame ignored: {why}", self.link.name);
        let count = self.ignored.entry(why).or_default();
        *count = count.saturating_add(1);
    }

    /// What the port did and saw, in one line.
    pub(super) fn story(&self) -> String {
        let tally = self.client.tally();
        let mut story = format!("{}: ", self.full_title());
        match (&self.broken, self.first_carrier) {
            (Some(why), _) => return format!("{story}cannot be brought up: {why}"),
            (None, None) => return format!("{story}never had carrier"),
            (None, Some(at)) => story += &format!("carrier after {:.1} s", at.as_secs_f32()),
        }
        let many = if tally.discovers == 1 { "" } else { "s" };
        // Writing into a String cannot fail.
        let _ = write!(story, ", {} DISCOVER{many} sent, {} DHCP frames received", tally.discovers, self.frames);
        if !self.ignored.is_empty() {
            let counts: Vec<String> = self.ignored.iter().map(|(why, count)| format!("{count} {why}")).collect();
            let _ = write!(story, " (ignored: {})", counts.join(", "));
        }
        let servers: Vec<String> = tally.servers.iter().map(ToString::to_string).collect();
        let seen = if servers.is_empty() { "none".to_owned() } else { servers.join(", ") };
        let _ = write!(story, ", servers seen: {seen}");
        if let Some((address, by)) = self.conflict() {
            let _ = write!(story, ", {address} of ip= is in use by {by}");
        }
        if let Some(refused) = &tally.refused {
            let _ = write!(story, ", last: {refused}");
        }
        for heard in self.ears.iter().filter_map(Ear::story) {
            let _ = write!(story, ", {heard}");
        }
        story
    }
}

/// Brings a port up with this MAC, which most drivers change only while it is down.
fn bring_up(links: &Links, link: &Link, mac: Hardware) -> io::Result<()> {
    let other = link.mac != Some(mac);
    if link.up && other {
        links.set_down(link.index)?;
    }
    if other {
        links.set_mac(link.index, mac)?;
    }
    if link.up && !other { Ok(()) } else { links.set_up(link.index) }
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
