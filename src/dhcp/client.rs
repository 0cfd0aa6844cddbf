//! The client's states (RFC 2131 section 4.4): events in, actions out.
//!
//! Time is a `Duration` since some moment of the caller's; the client sees no clock, does no I/O,
//! and never waits: it says by [`Client::deadline`] when it wants [`Event::Tick`].

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use log::Level;

use super::lease::{Lease, Refusal};
use super::wire::{Kind, Message, Op, option};
use super::{Ignored, lease};

/// How long further offers are awaited after the first that nothing prefers (F4).
const COLLECTION: Duration = Duration::from_millis(300);
/// How often a REQUEST is sent before the client starts again (F6).
const REQUESTS: u32 = 3;
const MAX_OFFERS: usize = 8;
const MAX_SERVERS: usize = 16;
/// Carrier that comes and goes does not make DISCOVERs faster than this.
const BETWEEN_DISCOVERS: Duration = Duration::from_secs(1);
/// What this client tells servers in option 60, and servers can tell it.
const VENDOR_CLASS: &[u8] = b"rootstream";
/// The largest message we take: what fits an Ethernet frame, for nothing here joins fragments.
const MAX_SIZE: u16 = 1472;
const PARAMETERS: [u8; 15] = [
    option::SUBNET_MASK,
    option::CLASSLESS_ROUTES,
    option::ROUTER,
    option::DNS,
    option::HOST_NAME,
    option::DOMAIN,
    option::ROOT_PATH,
    option::MTU,
    option::NTP,
    option::LEASE_TIME,
    option::SERVER,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
    option::TFTP_SERVER,
    option::BOOT_FILE,
];

/// Who the client is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `chaddr`.
    pub mac: [u8; 6],
    /// Option 61.
    pub client_id: Option<Vec<u8>>,
    /// The largest MTU that the port can have.
    pub max_mtu: u16,
}

/// What happens to a client.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The port can send.
    Carrier,
    /// The port cannot send any more.
    CarrierLost,
    /// The moment that [`Client::deadline`] named has come.
    Tick,
    /// A message arrived.
    Received(&'a Message),
    /// The lease is not wanted any more.
    Leave,
}

/// What the caller does for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Broadcast this, from 0.0.0.0.
    Broadcast(Message),
    /// Send this to the server that granted the lease, from the lease's address.
    Unicast(Message, Lease),
    /// Log this line.
    Say(Level, String),
    /// The message was of no use.
    Ignore(Ignored),
    /// The lease is ours.
    Bound(Lease),
}

/// What a client did and saw, for the message that says why there is no lease.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// DISCOVERs sent.
    pub discovers: u32,
    /// Servers that answered.
    pub servers: BTreeSet<Ipv4Addr>,
    /// The latest reason why an offer was not taken.
    pub refused: Option<String>,
}

#[derive(Clone, Debug)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
    /// The server is one that boots nodes.
    boots: bool,
}

#[derive(Clone, Debug)]
enum State {
    NoCarrier,
    Init { at: Duration },
    Selecting { sent: u32, resend: Duration, choose: Option<Duration>, offers: Vec<Offer> },
    Requesting { sent: u32, resend: Duration, offer: Offer },
    Bound(Lease),
}

/// One port's client.
#[derive(Clone, Debug)]
pub struct Client {
    identity: Identity,
    random: Random,
    state: State,
    xid: u32,
    /// Of the latest DISCOVER; a REQUEST carries the same, so that relays treat both alike.
    secs: u16,
    /// When the first DISCOVER was sent: what `secs` counts from.
    began: Option<Duration>,
    last_discover: Option<Duration>,
    /// NAKs, refused ACKs and unanswered REQUESTs since the last carrier.
    failures: u32,
    /// The server of the latest failure; any other is preferred.
    failed: Option<Ipv4Addr>,
    tally: Tally,
}

impl Client {
    /// A client without carrier. `seed` should differ between nodes and boots: transaction numbers
    /// and jitter come from it.
    pub fn new(identity: Identity, seed: u64) -> Self {
        Self {
            identity,
            random: Random(seed),
            state: State::NoCarrier,
            xid: 0,
            secs: 0,
            began: None,
            last_discover: None,
            failures: 0,
            failed: None,
            tally: Tally::default(),
        }
    }

    /// When the client wants [`Event::Tick`]; `None` is never.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::NoCarrier | State::Bound(_) => None,
            State::Init { at } => Some(*at),
            State::Selecting { resend, choose, .. } => Some(choose.unwrap_or(*resend)),
            State::Requesting { resend, .. } => Some(*resend),
        }
    }

    /// What it did and saw so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Takes an event at the time `now`.
    pub fn step(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        match event {
            Event::Carrier => self.carrier(now),
            Event::CarrierLost => {
                self.state = State::NoCarrier;
                Vec::new()
            }
            Event::Tick if self.deadline().is_some_and(|at| at <= now) => self.tick(now),
            Event::Tick => Vec::new(),
            Event::Received(message) => self.received(message, now),
            Event::Leave => self.leave(),
        }
    }

    fn carrier(&mut self, now: Duration) -> Vec<Action> {
        if !matches!(self.state, State::NoCarrier) {
            return Vec::new();
        }
        self.failures = 0;
        match self.last_discover.map(|last| last + BETWEEN_DISCOVERS) {
            Some(at) if at > now => {
                self.state = State::Init { at };
                Vec::new()
            }
            _ => self.discover(0, now),
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        match &mut self.state {
            State::NoCarrier | State::Bound(_) => Vec::new(),
            State::Init { .. } => self.discover(0, now),
            State::Selecting { choose: None, sent, .. } => {
                let sent = *sent;
                self.discover(sent, now)
            }
            State::Selecting { offers, .. } => {
                let offers = std::mem::take(offers);
                self.choose(offers, now)
            }
            State::Requesting { sent, offer, .. } => {
                let (sent, offer) = (*sent, offer.clone());
                if sent < REQUESTS {
                    return self.request(sent, offer, now);
                }
                let why = format!("no answer from {} to {sent} REQUESTs", offer.server);
                self.start_again(offer.server, &why, now)
            }
        }
    }

    fn received(&mut self, message: &Message, now: Duration) -> Vec<Action> {
        if message.op != Op::Reply {
            return vec![Action::Ignore(Ignored::NotDhcp)];
        }
        if message.xid != self.xid || message.chaddr != self.identity.mac {
            return vec![Action::Ignore(Ignored::OtherClient)];
        }
        let server = message.address(option::SERVER);
        let new = server.filter(|_| self.tally.servers.len() < MAX_SERVERS).filter(|s| self.tally.servers.insert(*s));
        match (&self.state, message.kind) {
            (State::Selecting { .. }, Kind::Offer) => self.offered(message, now),
            (State::Requesting { offer, .. }, Kind::Ack) if server == Some(offer.server) => {
                self.acknowledged(message, now)
            }
            (State::Requesting { offer, .. }, Kind::Nak) if server == Some(offer.server) => {
                let server = offer.server;
                let said = message.text(option::TEXT).map(|text| format!(" ({})", lease::shown(&text)));
                self.start_again(server, &format!("NAK from {server}{}", said.unwrap_or_default()), now)
            }
            // A second server is worth a line, once.
            (_, kind) => {
                let line = |server| Action::Say(Level::Info, format!("{kind} from {server} too, not taken"));
                new.map(line).into_iter().chain([Action::Ignore(Ignored::Unexpected)]).collect()
            }
        }
    }

    fn offered(&mut self, message: &Message, now: Duration) -> Vec<Action> {
        let lease = match Lease::from_message(message, self.identity.max_mtu) {
            Ok((lease, _)) => lease,
            Err(refusal) => return vec![self.refuse("OFFER", message, &refusal)],
        };
        let offer = Offer { address: lease.address, server: lease.server, boots: boots_nodes(message) };
        let State::Selecting { offers, choose, .. } = &mut self.state else { return Vec::new() };
        if offers.len() == MAX_OFFERS || offers.iter().any(|known| known.server == offer.server) {
            return vec![Action::Ignore(Ignored::Unexpected)];
        }
        let what = if offer.boots { ", which boots nodes" } else { "" };
        let line = format!("OFFER {} from {}{what}", offer.address, offer.server);
        let at_once = offer.boots && self.failed != Some(offer.server);
        choose.get_or_insert(now + COLLECTION);
        offers.push(offer);
        let mut actions = vec![Action::Say(Level::Info, line)];
        if at_once {
            let offers = std::mem::take(offers);
            actions.extend(self.choose(offers, now));
        }
        actions
    }

    /// Requests the best offer: not of the server that failed last, of one that boots nodes, the first.
    fn choose(&mut self, offers: Vec<Offer>, now: Duration) -> Vec<Action> {
        let failed = self.failed;
        let best = offers.into_iter().min_by_key(|offer| (failed == Some(offer.server), !offer.boots));
        match best {
            Some(offer) => self.request(0, offer, now),
            None => self.discover(0, now),
        }
    }

    fn acknowledged(&mut self, message: &Message, now: Duration) -> Vec<Action> {
        match Lease::from_message(message, self.identity.max_mtu) {
            Ok((lease, notes)) => {
                let time = lease.time.map_or("ever".to_owned(), |time| format!("{} s", time.as_secs()));
                let line = format!("lease {}/{} from {} for {time}", lease.address, lease.prefix, lease.server);
                let mut actions = vec![Action::Say(Level::Info, line)];
                actions.extend(notes.into_iter().map(|note| Action::Say(Level::Warn, note)));
                actions.push(Action::Bound(lease.clone()));
                self.state = State::Bound(lease);
                actions
            }
            Err(refusal) => {
                let mut actions = vec![self.refuse("ACK", message, &refusal)];
                if let Some(server) = message.address(option::SERVER) {
                    actions.extend(self.start_again(server, &format!("unusable ACK from {server}"), now));
                }
                actions
            }
        }
    }

    fn refuse(&mut self, what: &str, message: &Message, refusal: &Refusal) -> Action {
        let from = message.address(option::SERVER).map_or("an unnamed server".to_owned(), |s| s.to_string());
        let line = format!("{what} {} from {from} refused: {refusal}", message.yiaddr);
        if self.tally.refused.as_ref() == Some(&line) {
            return Action::Ignore(Ignored::Unexpected);
        }
        self.tally.refused = Some(line.clone());
        Action::Say(Level::Warn, line)
    }

    fn leave(&mut self) -> Vec<Action> {
        let State::Bound(lease) = std::mem::replace(&mut self.state, State::NoCarrier) else { return Vec::new() };
        let mut message = Message::request(Kind::Release, self.random.bits(), self.identity.mac)
            .with(option::SERVER, lease.server.octets());
        message.ciaddr = lease.address;
        if let Some(id) = &self.identity.client_id {
            message = message.with(option::CLIENT_ID, id.clone());
        }
        let line = format!("RELEASE of {} sent to {}", lease.address, lease.server);
        vec![Action::Unicast(message, lease), Action::Say(Level::Info, line)]
    }

    fn discover(&mut self, sent: u32, now: Duration) -> Vec<Action> {
        if sent == 0 {
            self.xid = self.random.bits();
        }
        let wait = self.backoff(sent);
        self.state = State::Selecting { sent: sent + 1, resend: now + wait, choose: None, offers: Vec::new() };
        let elapsed = now.saturating_sub(*self.began.get_or_insert(now));
        self.secs = u16::try_from(elapsed.as_secs()).unwrap_or(u16::MAX);
        self.last_discover = Some(now);
        self.tally.discovers += 1;
        let line = format!("DISCOVER {} sent, the next in {:.1} s", sent + 1, wait.as_secs_f32());
        vec![Action::Broadcast(self.message(Kind::Discover)), Action::Say(Level::Info, line)]
    }

    fn request(&mut self, sent: u32, offer: Offer, now: Duration) -> Vec<Action> {
        let wait = self.backoff(sent);
        let message = self
            .message(Kind::Request)
            .with(option::REQUESTED_ADDRESS, offer.address.octets())
            .with(option::SERVER, offer.server.octets());
        let line = format!("REQUEST {} for {} sent to {}", sent + 1, offer.address, offer.server);
        self.state = State::Requesting { sent: sent + 1, resend: now + wait, offer };
        vec![Action::Broadcast(message), Action::Say(Level::Info, line)]
    }

    fn start_again(&mut self, server: Ipv4Addr, why: &str, now: Duration) -> Vec<Action> {
        // 1, 2, 4 ... 64 s, less up to half: a server that always says NAK is not hammered.
        let delay = Duration::from_secs(1 << self.failures.min(6)).mul_f64(1.0 - self.random.unit() / 2.0);
        self.failures += 1;
        self.failed = Some(server);
        self.tally.refused = Some(why.to_owned());
        self.state = State::Init { at: now + delay };
        vec![Action::Say(Level::Warn, format!("{why}; starting again in {:.1} s", delay.as_secs_f32()))]
    }

    /// RFC 2131 section 4.1: 4, 8, 16, 32, 64, 64 ... s, each one second more or less.
    fn backoff(&mut self, sent: u32) -> Duration {
        Duration::from_secs(4 << sent.min(4)) - Duration::from_secs(1)
            + Duration::from_secs(2).mul_f64(self.random.unit())
    }

    fn message(&self, kind: Kind) -> Message {
        let mut message = Message::request(kind, self.xid, self.identity.mac)
            .with(option::MAX_SIZE, MAX_SIZE.to_be_bytes())
            .with(option::VENDOR_CLASS, VENDOR_CLASS)
            .with(option::PARAMETERS, PARAMETERS);
        if let Some(id) = &self.identity.client_id {
            message = message.with(option::CLIENT_ID, id.clone());
        }
        message.secs = self.secs;
        message
    }
}

/// A server that names something to boot, or our vendor class, is more likely the site's own than
/// a stray one.
fn boots_nodes(offer: &Message) -> bool {
    !offer.file.is_empty()
        || offer.options.contains_key(&option::ROOT_PATH)
        || offer.options.get(&option::VENDOR_CLASS).is_some_and(|class| class.as_slice() == VENDOR_CLASS)
}

/// SplitMix64: enough to tell transactions apart and to spread retransmissions.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bits(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap_or_default()
    }

    /// From 0 up to, not including, 1.
    fn unit(&mut self) -> f64 {
        f64::from(self.bits()) / f64::from(u32::MAX).next_up()
    }
}

#[cfg(test)]
mod tests;
