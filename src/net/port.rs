//! One port in the race for a lease: its socket, its DHCP client, and what both saw.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::choose::Runner;
use super::link::{Link, Links};
use super::mac::Mac;
use super::packet::Socket;
use crate::dhcp::client::{Action, Client, Event, Identity};
use crate::dhcp::wire::Message;
use crate::dhcp::{Ignored, Lease, frame};
use crate::random;

/// How many frames are taken from a port before the others have their turn.
const FRAMES_A_TURN: usize = 32;
/// Larger than any message that we ask for.
const LARGEST_FRAME: usize = 4096;

/// A port that takes part.
#[derive(Debug)]
pub(super) struct Port {
    link: Link,
    mac: [u8; 6],
    driver: Option<String>,
    socket: Option<Socket>,
    /// Why the port cannot take part.
    broken: Option<io::Error>,
    client: Client,
    carrier: bool,
    first_carrier: Option<Duration>,
    frames: u32,
    ignored: BTreeMap<Ignored, u32>,
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    at: Duration,
    lease: Lease,
    /// The MAC that the lease came from: the server, or the router towards it.
    next_hop: [u8; 6],
}

impl Port {
    /// Brings the port up and listens on it. A port that cannot be brought up takes part without
    /// ever having carrier.
    pub(super) fn open(
        links: &Links,
        link: Link,
        mac: [u8; 6],
        driver: Option<String>,
        client_id: Option<Vec<u8>>,
    ) -> Self {
        let max_mtu = u16::try_from(link.max_mtu.unwrap_or(link.mtu)).unwrap_or(u16::MAX);
        let up = if link.up { Ok(()) } else { links.set_up(link.index) };
        let (socket, broken) = match up.and_then(|()| Socket::open(link.index)) {
            Ok(socket) => (Some(socket), None),
            Err(error) => (None, Some(error)),
        };
        let port = Self {
            link,
            mac,
            driver,
            socket,
            broken,
            client: Client::new(Identity { mac, client_id, max_mtu }, random::bits(mac)),
            carrier: false,
            first_carrier: None,
            frames: 0,
            ignored: BTreeMap::new(),
            bound: None,
        };
        match &port.broken {
            None => log::info!("net: {} is up", port.full_title()),
            Some(why) => log::warn!("net: {} cannot be brought up: {why}", port.full_title()),
        }
        port
    }

    pub(super) fn index(&self) -> u32 {
        self.link.index
    }

    pub(super) fn name(&self) -> &str {
        &self.link.name
    }

    pub(super) fn mac(&self) -> [u8; 6] {
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
        format!("{} ({})", self.link.name, Mac(self.mac))
    }

    fn full_title(&self) -> String {
        format!("{} ({}, {})", self.link.name, Mac(self.mac), self.driver.as_deref().unwrap_or("unknown driver"))
    }

    pub(super) fn has_carrier(&self) -> bool {
        self.carrier
    }

    /// When it had carrier for the first time.
    pub(super) fn first_carrier(&self) -> Option<Duration> {
        self.first_carrier
    }

    pub(super) fn runner(&self, bootif: Option<[u8; 6]>) -> Runner {
        Runner { boot: bootif == Some(self.mac), bound: self.bound.as_ref().map(|bound| bound.at) }
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.bound.as_ref().map(|bound| &bound.lease)
    }

    /// Any server answered at all.
    pub(super) fn was_answered(&self) -> bool {
        !self.client.tally().servers.is_empty() || self.client.tally().refused.is_some()
    }

    /// When [`Port::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.client.deadline()
    }

    /// What to poll, while the port can receive.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().filter(|_| self.carrier).map(AsFd::as_fd)
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
            log::info!("net: {}: carrier after {:.1} s", self.title(), now.as_secs_f32());
            self.step(Event::Carrier, now, None);
        } else {
            log::warn!("net: {}: carrier lost", self.title());
            self.bound = None;
            self.step(Event::CarrierLost, now, None);
        }
    }

    /// Lets the client do what its time has come for.
    pub(super) fn tick(&mut self, now: Duration) {
        self.step(Event::Tick, now, None);
    }

    /// Takes the frames that wait.
    pub(super) fn receive(&mut self, now: Duration) {
        let mut buffer = [0; LARGEST_FRAME];
        for _ in 0..FRAMES_A_TURN {
            let Some(socket) = &self.socket else { return };
            let frame = match socket.receive(&mut buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    log::debug!("net: {}: receiving: {error}", self.name());
                    return;
                }
            };
            self.frames = self.frames.saturating_add(1);
            let bytes = buffer.get(..frame.length).unwrap_or_default();
            let read = if frame.vlan {
                Err(Ignored::OtherStation)
            } else {
                frame::parse(bytes, self.mac, frame.checksum_done)
                    .and_then(|datagram| Ok((Message::parse(datagram.payload)?, datagram.from)))
            };
            match read {
                Ok((message, from)) => self.step(Event::Received(&message), now, Some(from)),
                Err(why) => self.ignore(why),
            }
        }
    }

    /// Gives the lease back, if there is one. True when a frame was sent.
    pub(super) fn release(&mut self) -> bool {
        let had_lease = self.bound.is_some();
        self.step(Event::Leave, Duration::ZERO, None);
        self.bound = None;
        had_lease
    }

    /// Takes the port down if it was found down.
    pub(super) fn put_back(&self, links: &Links) -> io::Result<()> {
        if self.link.up {
            return Ok(());
        }
        log::info!("net: {} is taken down again", self.title());
        links.set_down(self.link.index)
    }

    fn step(&mut self, event: Event<'_>, now: Duration, from: Option<[u8; 6]>) {
        for action in self.client.step(event, now) {
            match action {
                Action::Broadcast(message) => {
                    self.send(&message, frame::BROADCAST, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
                }
                Action::Unicast(message, lease) => {
                    let to = self.bound.as_ref().map_or(frame::BROADCAST, |bound| bound.next_hop);
                    self.send(&message, to, lease.address, lease.server);
                }
                Action::Say(level, line) => log::log!(level, "dhcp: {}: {line}", self.link.name),
                Action::Ignore(why) => self.ignore(why),
                Action::Bound(lease) => {
                    self.bound = Some(Bound { at: now, lease, next_hop: from.unwrap_or(frame::BROADCAST) });
                }
            }
        }
    }

    fn send(&self, message: &Message, to: [u8; 6], source: Ipv4Addr, destination: Ipv4Addr) {
        let Some(socket) = &self.socket else { return };
        let frame = frame::build(self.mac, to, source, destination, &message.to_bytes());
        // Retransmission mends what is lost here, too.
        if let Err(error) = socket.send(&frame) {
            log::warn!("dhcp: {}: sending {}: {error}", self.link.name, message.kind);
        }
    }

    fn ignore(&mut self, why: Ignored) {
        log::debug!("dhcp: {}: a frame ignored: {why}", self.link.name);
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
        if let Some(refused) = &tally.refused {
            let _ = write!(story, ", last: {refused}");
        }
        story
    }
}
