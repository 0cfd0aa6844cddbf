//! IPv6 on one port: the client with its sockets, and the addresses that it puts on the port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use super::addresses;
use super::engine::{Engine, Lack, Outcome};
use super::four::{counted, listed};
use super::link::{Link, Links};
use super::routers::RouterSocket;
use super::switches::{self, Switches};
use crate::dhcp::Ignored;
use crate::ipv6::advert::Advertisement;
use crate::ipv6::client::{Action, Client, Event, Identity, Missing};
use crate::ipv6::wire::{Kind, Message};
use crate::lease::Lease;
use crate::mac::Hardware;
use crate::random;
use crate::say;

/// How many messages are taken from a port before the others have their turn.
const MESSAGES_A_TURN: usize = 32;
/// Larger than any message that we ask for.
const LARGEST_MESSAGE: usize = 4096;
/// How often the kernel is asked whether an address is ours.
const LOOK: Duration = Duration::from_millis(50);
const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// `All_DHCP_Relay_Agents_and_Servers` (RFC 8415 section 7.1).
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A port's IPv6 client.
#[derive(Debug)]
pub(super) struct Six {
    index: u32,
    name: String,
    mac: [u8; 6],
    switches: Switches,
    routers: RouterSocket,
    /// From the first message to servers on.
    servers: Option<UdpSocket>,
    client: Client,
    /// When the kernel is asked again whether an address is ours.
    next_look: Duration,
    /// Addresses that were put on the port, with their prefix lengths.
    added: Vec<(Ipv6Addr, u8)>,
    messages: u32,
    ignored: BTreeMap<Ignored, u32>,
}

impl Six {
    /// Makes a port ready that is not up yet: from then on the kernel does nothing of itself.
    pub(super) fn open(link: &Link, mac: [u8; 6], identity: Identity) -> io::Result<Self> {
        let routers = RouterSocket::open(&link.name, link.index)?;
        Ok(Self {
            index: link.index,
            name: link.name.clone(),
            mac,
            switches: Switches::set(Path::new(switches::FOLDER), &link.name),
            routers,
            servers: None,
            client: Client::new(identity, random::bits(mac)),
            next_look: Duration::ZERO,
            added: Vec::new(),
            messages: 0,
            ignored: BTreeMap::new(),
        })
    }

    fn step(&mut self, links: &Links, event: Event<'_>, now: Duration, outcome: &mut Outcome) {
        for action in self.client.step(event, now) {
            match action {
                Action::AskRouters => self.ask_routers(),
                Action::Send(message) => {
                    outcome.gave_back |= message.kind == Kind::Release;
                    self.send(&message);
                }
                Action::Assign(address, prefix) => self.assign(links, address, prefix),
                Action::Remove(address) => self.remove(links, address),
                Action::Say(level, line) => say::at(level, format_args!("ipv6: {}: {line}", self.name)),
                Action::Ignore(why) => self.ignore(why),
                Action::Bound => outcome.bound = Some(true),
                Action::Lost => outcome.bound = Some(false),
            }
        }
    }

    fn ask_routers(&self) {
        if let Err(error) = self.routers.ask(self.mac) {
            say::warn!("ipv6: {}: asking routers: {error}", self.name);
        }
    }

    fn send(&mut self, message: &Message) {
        // Retransmission mends what is lost here, too.
        if let Err(error) = self.try_send(message) {
            say::warn!("ipv6: {}: sending {}: {error}", self.name, message.kind);
        }
    }

    fn try_send(&mut self, message: &Message) -> io::Result<()> {
        let socket = match self.servers.take() {
            Some(socket) => socket,
            None => self.server_socket()?,
        };
        let to = SocketAddrV6::new(ALL_SERVERS, SERVER_PORT, 0, self.index);
        let sent = socket.send_to(&message.to_bytes(), SocketAddr::V6(to));
        self.servers = Some(socket);
        sent.map(drop)
    }

    fn server_socket(&self) -> io::Result<UdpSocket> {
        let own = self.client.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let socket = UdpSocket::bind(SocketAddr::V6(SocketAddrV6::new(own, CLIENT_PORT, 0, self.index)))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn assign(&mut self, links: &Links, address: Ipv6Addr, prefix: u8) {
        self.next_look = Duration::ZERO;
        match links.add_address(self.index, IpAddr::V6(address), prefix) {
            Ok(true) => self.added.push((address, prefix)),
            Ok(false) => say::info!("net: {}: it has the address {address} already", self.name),
            Err(error) => say::warn!("net: {}: adding address {address}/{prefix}: {error}", self.name),
        }
    }

    fn remove(&mut self, links: &Links, address: Ipv6Addr) {
        let Some(place) = self.added.iter().position(|(added, _)| *added == address) else { return };
        let (_, prefix) = self.added.swap_remove(place);
        if let Err(error) = links.delete_address(self.index, IpAddr::V6(address), prefix) {
            say::warn!("net: {}: deleting address {address}: {error}", self.name);
        }
    }

    fn ignore(&mut self, why: Ignored) {
        say::debug!("ipv6: {}: a message ignored: {why}", self.name);
        let count = self.ignored.entry(why).or_default();
        *count = count.saturating_add(1);
    }

    fn hear_routers(&mut self, links: &Links, buffer: &mut [u8], now: Duration, outcome: &mut Outcome) {
        for _ in 0..MESSAGES_A_TURN {
            let received = self.routers.receive(buffer).unwrap_or_else(|error| {
                say::debug!("ipv6: {}: receiving: {error}", self.name);
                None
            });
            let Some(received) = received else { return };
            let read = Advertisement::parse(buffer.get(..received.length).unwrap_or_default());
            match (read, received.neighbour) {
                // Neighbours ask each other for addresses all the time.
                (Err(Ignored::OtherTraffic), _) => {}
                (Err(why), _) => self.ignore(why),
                (Ok(_), None) => self.ignore(Ignored::OffLink),
                (Ok(advert), Some(from)) => self.step(links, Event::Advertised(&advert, from), now, outcome),
            }
        }
    }

    fn hear_servers(&mut self, links: &Links, buffer: &mut [u8], now: Duration, outcome: &mut Outcome) {
        for _ in 0..MESSAGES_A_TURN {
            let Some(Ok((length, SocketAddr::V6(from)))) = self.servers.as_ref().map(|socket| socket.recv_from(buffer))
            else {
                return;
            };
            self.messages = self.messages.saturating_add(1);
            match Message::parse(buffer.get(..length).unwrap_or_default()) {
                Ok(message) => self.step(links, Event::Received(&message, *from.ip()), now, outcome),
                Err(why) => self.ignore(why),
            }
        }
    }
}

impl Engine for Six {
    fn carrier(&mut self, links: &Links, carrier: bool, now: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        self.next_look = now;
        self.step(links, if carrier { Event::Carrier } else { Event::CarrierLost }, now, &mut outcome);
        outcome
    }

    fn tick(&mut self, links: &Links, now: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        if self.client.awaits_addresses() && self.next_look <= now {
            self.next_look = now + LOOK;
            let addresses = addresses::of_port(self.index);
            self.step(links, Event::Addresses(&addresses), now, &mut outcome);
        }
        self.step(links, Event::Tick, now, &mut outcome);
        outcome
    }

    fn receive(&mut self, links: &Links, now: Duration, _: &[Hardware]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut buffer = [0; LARGEST_MESSAGE];
        self.hear_routers(links, &mut buffer, now, &mut outcome);
        self.hear_servers(links, &mut buffer, now, &mut outcome);
        outcome
    }

    fn release(&mut self, links: &Links) -> Outcome {
        let mut outcome = Outcome::default();
        self.step(links, Event::Leave, Duration::ZERO, &mut outcome);
        outcome
    }

    fn deadline(&self) -> Option<Duration> {
        let look = self.client.awaits_addresses().then_some(self.next_look);
        self.client.deadline().into_iter().chain(look).min()
    }

    fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        [self.routers.as_fd()].into_iter().chain(self.servers.as_ref().map(AsFd::as_fd)).collect()
    }

    fn lease(&self) -> Option<Lease> {
        self.client.lease().map(|lease| lease.clone().widened())
    }

    fn lack(&self) -> Option<Lack> {
        self.client.missing().map(|missing| match missing {
            Missing::LinkLocal => Lack::LinkLocal,
            Missing::Router => Lack::Router,
            Missing::Server => Lack::Dhcp6,
        })
    }

    fn story(&self) -> String {
        let tally = self.client.tally();
        let shown = |addresses: &[Ipv6Addr]| listed(&addresses.iter().map(ToString::to_string).collect::<Vec<_>>());
        let last = tally.refused.as_ref().map(|refused| format!(", last: {refused}"));
        format!(
            "{} router solicitations and {} SOLICITs or INFORMATION-REQUESTs sent, {} DHCPv6 messages received{}, routers \
             seen: {}, servers seen: {}{}",
            tally.solicitations,
            tally.solicits,
            self.messages,
            counted(&self.ignored),
            shown(&tally.routers),
            shown(&tally.servers),
            last.unwrap_or_default()
        )
    }

    fn put_back(&self, links: &Links) -> io::Result<()> {
        let deleted =
            self.added.iter().map(|(address, prefix)| links.delete_address(self.index, IpAddr::V6(*address), *prefix));
        let deleted = deleted.fold(Ok(()), Result::and);
        self.switches.put_back();
        deleted
    }
}
