//! The client's states (RFC 2131 section 4.4): events in, actions out.
//!
//! Time is a `Duration` since some moment of the caller's; the client sees no clock, does no I/O,
//! and never waits: it says by [`Client::deadline`] when it wants [`Event::Tick`].
//!
//! A lease that was had is kept until its end, whatever the state: it is lost by its end, by a NAK of a server that may
//! say so, by a conflict, and replaced by the next. What begins with carrier depends on it.
//!
//! | state | event | actions | next state |
//! |---|---|---|---|
//! | NO CARRIER | carrier | DISCOVER | SELECTING |
//! | NO CARRIER | carrier within 1 s of the last beginning | - | INIT |
//! | NO CARRIER | carrier, a lease is kept | REQUEST | REBOOTING |
//! | NO CARRIER | carrier, the address is fixed | INFORM | INFORMING |
//! | any | carrier lost | - | NO CARRIER |
//! | INIT | its time | DISCOVER | SELECTING |
//! | INIT | its time, a lease is kept | REQUEST | REBOOTING |
//! | SELECTING | OFFER | - | SELECTING |
//! | SELECTING | OFFER that boots nodes | REQUEST | REQUESTING |
//! | SELECTING | OFFER that is unusable | - | SELECTING |
//! | SELECTING | 300 ms after the first OFFER | REQUEST | REQUESTING |
//! | SELECTING | 4 to 64 s without an OFFER | DISCOVER | SELECTING |
//! | REQUESTING | ACK | probe | CHECKING |
//! | REQUESTING | ACK that is unusable | - | INIT |
//! | REQUESTING | NAK | - | INIT |
//! | REQUESTING | no answer | REQUEST | REQUESTING |
//! | REQUESTING | no answer to the third REQUEST | - | INIT |
//! | CHECKING | 300 ms | announce, bound | BOUND |
//! | CHECKING | the address is claimed | DECLINE | INIT |
//! | BOUND | T1 | REQUEST to its server | RENEWING |
//! | RENEWING | ACK | bound | BOUND |
//! | RENEWING | ACK that is unusable | - | RENEWING |
//! | RENEWING | NAK | lost | INIT |
//! | RENEWING | half of the time to T2, at least 60 s | REQUEST to its server | RENEWING |
//! | RENEWING | T2 | REQUEST | REBINDING |
//! | REBINDING | ACK of any server | bound | BOUND |
//! | REBINDING | NAK of any server | lost | INIT |
//! | REBINDING | half of the time to the end, at least 60 s | REQUEST | REBINDING |
//! | REBINDING | the lease's end | lost, DISCOVER | SELECTING |
//! | REBOOTING | ACK of any server | bound | BOUND |
//! | REBOOTING | NAK of any server | lost | INIT |
//! | REBOOTING | no answer | REQUEST | REBOOTING |
//! | REBOOTING | no answer to the second REQUEST | DISCOVER | SELECTING |
//! | NO CARRIER | the lease's end | lost | NO CARRIER |
//! | SELECTING | the lease's end | lost | SELECTING |
//! | INFORMING | ACK | bound | BOUND |
//! | INFORMING | no answer | INFORM | INFORMING |
//! | INFORMING | no answer to the second INFORM | bound | BOUND |
//! | REQUESTING | leave | RELEASE to its server | NO CARRIER |
//! | BOUND | leave | RELEASE to its server | NO CARRIER |
//! | BOUND, the address is fixed | leave | - | NO CARRIER |
//! | SELECTING | leave | - | NO CARRIER |
//!
//! `probe` asks by ARP whether somebody has the address (RFC 5227); `announce` tells everybody that we have it now. What
//! else comes in a state is ignored and counted. INIT lasts until its time: 10 s after a DECLINE, 1 to 64 s after another
//! failure.

mod getting;
mod keeping;
mod messages;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use log::Level;

use super::lease::{Lease, Refusal};
use super::wire::{Kind, Message, Op, option};
use super::{Ignored, lease};
use crate::mac::Hardware;
use crate::random::Random;

const MAX_SERVERS: usize = 16;
/// Carrier that comes and goes does not make the client begin faster than this.
const BETWEEN_BEGINNINGS: Duration = Duration::from_secs(1);

/// Who the client is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its MAC is `chaddr`; over InfiniBand there is none.
    pub mac: Hardware,
    /// Option 61; over InfiniBand there must be one (RFC 4390 section 2).
    pub client_id: Option<Vec<u8>>,
    /// The largest MTU that the port can have.
    pub max_mtu: u16,
    /// Option 93: what the machine and its firmware are, as PXE numbers them.
    pub arch: Option<u16>,
    /// Option 97: the machine's UUID as SMBIOS has it.
    pub uuid: Option<[u8; 16]>,
    /// The address that the port has, with its prefix length: only options are asked for.
    pub fixed: Option<(Ipv4Addr, u8)>,
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
    /// The station with this hardware address has the address, or is about to take it.
    Claimed(Ipv4Addr, Hardware),
    /// The lease is not wanted any more.
    Leave,
}

/// What the caller does for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Broadcast this, from its `ciaddr`.
    Broadcast(Message),
    /// Send this to this server, from its `ciaddr`.
    Unicast(Message, Ipv4Addr),
    /// Ask by ARP who has the address, and tell who claims it.
    Probe(Ipv4Addr),
    /// Tell by ARP that the address is ours.
    Announce(Ipv4Addr),
    /// Log this line.
    Say(Level, String),
    /// The message was of no use.
    Ignore(Ignored),
    /// The lease that [`Client::lease`] has is ours, or ours for longer.
    Bound,
    /// The lease is not ours any more.
    Lost,
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

#[derive(Clone, Copy, Debug)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
    /// The server is one that boots nodes.
    boots: bool,
}

/// A lease that is ours.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    /// When it was asked for: its times count from then.
    since: Duration,
    /// How much before T1 it is renewed, so that nodes which booted together do not renew together.
    early: Duration,
}

impl Held {
    fn at(&self, time: Option<Duration>) -> Option<Duration> {
        time.map(|time| self.since.saturating_add(time))
    }

    fn renewal(&self) -> Option<Duration> {
        self.at(self.lease.renewal.map(|renewal| renewal.saturating_sub(self.early)))
    }

    fn rebinding(&self) -> Option<Duration> {
        self.at(self.lease.rebinding)
    }

    fn end(&self) -> Option<Duration> {
        self.at(self.lease.time)
    }
}

/// How often a message was sent, and when it is sent again.
#[derive(Clone, Copy, Debug)]
struct Sent {
    count: u32,
    again: Duration,
}

#[derive(Clone, Debug)]
enum State {
    NoCarrier,
    Init { at: Duration },
    Selecting { sent: Sent, choose: Option<Duration>, offers: Vec<Offer> },
    Requesting { sent: Sent, offer: Offer },
    Checking { until: Duration, lease: Box<Lease>, since: Duration },
    Bound,
    Renewing { again: Duration },
    Rebinding { again: Duration },
    Rebooting { sent: Sent },
    Informing { sent: Sent },
}

/// One port's client.
#[derive(Clone, Debug)]
pub struct Client {
    identity: Identity,
    random: Random,
    state: State,
    held: Option<Held>,
    xid: u32,
    /// Of the latest DISCOVER; a REQUEST carries the same, so that relays treat both alike.
    secs: u16,
    /// When the first message of this try for a lease, or for more time, was sent: what `secs` counts from.
    began: Option<Duration>,
    /// When a DISCOVER, or the first message of INIT-REBOOT or INFORM, was sent last.
    last_beginning: Option<Duration>,
    /// When the latest REQUEST was sent.
    requested: Duration,
    /// NAKs, refused ACKs and unanswered REQUESTs since the last carrier or lease.
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
            random: Random::new(seed),
            state: State::NoCarrier,
            held: None,
            xid: 0,
            secs: 0,
            began: None,
            last_beginning: None,
            requested: Duration::ZERO,
            failures: 0,
            failed: None,
            tally: Tally::default(),
        }
    }

    /// When the client wants [`Event::Tick`]; `None` is never.
    pub fn deadline(&self) -> Option<Duration> {
        let held = self.held.as_ref();
        let state = match &self.state {
            State::NoCarrier => None,
            State::Init { at } => Some(*at),
            State::Selecting { sent, choose, .. } => Some(choose.unwrap_or(sent.again)),
            State::Requesting { sent, .. } | State::Rebooting { sent } | State::Informing { sent } => Some(sent.again),
            State::Checking { until, .. } => Some(*until),
            State::Bound => held.and_then(Held::renewal),
            State::Renewing { again } => held.and_then(Held::rebinding).map(|rebinding| rebinding.min(*again)),
            State::Rebinding { again } => Some(*again),
        };
        state.into_iter().chain(held.and_then(Held::end)).min()
    }

    /// What it did and saw so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The lease that is ours now.
    pub fn lease(&self) -> Option<&Lease> {
        self.held.as_ref().map(|held| &held.lease)
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
            Event::Claimed(address, by) => self.claimed(address, by, now),
            Event::Leave => self.leave(),
        }
    }

    fn carrier(&mut self, now: Duration) -> Vec<Action> {
        if !matches!(self.state, State::NoCarrier) {
            return Vec::new();
        }
        self.failures = 0;
        match self.last_beginning.map(|last| last + BETWEEN_BEGINNINGS) {
            Some(at) if at > now => {
                self.state = State::Init { at };
                Vec::new()
            }
            _ => self.begin(now),
        }
    }

    fn begin(&mut self, now: Duration) -> Vec<Action> {
        if self.identity.fixed.is_some() {
            self.inform(0, now)
        } else if self.held.is_some() {
            self.reboot(0, now)
        } else {
            self.discover(0, now)
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.held.as_ref().and_then(Held::end).is_some_and(|end| end <= now) {
            return self.run_out(now);
        }
        match &mut self.state {
            State::NoCarrier => Vec::new(),
            State::Init { .. } => self.begin(now),
            State::Selecting { choose: None, sent, .. } => {
                let count = sent.count;
                self.discover(count, now)
            }
            State::Selecting { offers, .. } => {
                let offers = std::mem::take(offers);
                self.choose(offers, now)
            }
            State::Requesting { sent, offer } => {
                let (count, offer) = (sent.count, *offer);
                self.unanswered(count, offer, now)
            }
            State::Checking { .. } => self.checked(),
            State::Bound | State::Renewing { .. } => self.renew(now),
            State::Rebinding { .. } => self.rebind(now),
            State::Rebooting { sent } => {
                let count = sent.count;
                self.reboot(count, now)
            }
            State::Informing { sent } => {
                let count = sent.count;
                self.inform(count, now)
            }
        }
    }

    fn received(&mut self, message: &Message, now: Duration) -> Vec<Action> {
        if message.op != Op::Reply {
            return vec![Action::Ignore(Ignored::NotDhcp)];
        }
        let theirs = message.options.get(&option::CLIENT_ID);
        // Ports that share a MAC are told apart by their ids, which servers repeat (RFC 6842).
        if message.xid != self.xid
            || message.chaddr != self.chaddr()
            || theirs.is_some_and(|id| Some(id) != self.identity.client_id.as_ref())
        {
            return vec![Action::Ignore(Ignored::OtherClient)];
        }
        let server = message.address(option::SERVER);
        let new = server.filter(|_| self.tally.servers.len() < MAX_SERVERS).filter(|s| self.tally.servers.insert(*s));
        let expected = match &self.state {
            State::Requesting { offer, .. } => Some(offer.server),
            State::Renewing { .. } => self.lease().map(|lease| lease.server),
            _ => server,
        };
        let from = server.filter(|_| server == expected);
        match (&self.state, message.kind, from) {
            // One without a server's name is refused, with that reason.
            (State::Selecting { .. }, Kind::Offer, _) => self.offered(message, now),
            (State::Requesting { .. }, Kind::Ack, Some(server)) => self.acknowledged(message, server, now),
            (State::Requesting { .. }, Kind::Nak, Some(server)) => self.start_again(server, &nak(message, server), now),
            (State::Informing { .. }, Kind::Ack, Some(_)) => self.informed(message, now),
            (State::Renewing { .. } | State::Rebinding { .. } | State::Rebooting { .. }, Kind::Ack, Some(_)) => {
                self.renewed(message)
            }
            (State::Renewing { .. } | State::Rebinding { .. } | State::Rebooting { .. }, Kind::Nak, Some(server)) => {
                let mut actions = self.lose("taken back by its server");
                actions.extend(self.start_again(server, &nak(message, server), now));
                actions
            }
            // A second server is worth a line, once.
            (_, kind, _) => {
                let line = |server| Action::Say(Level::Info, format!("{kind} from {server} too, not taken"));
                new.map(line).into_iter().chain([Action::Ignore(Ignored::Unexpected)]).collect()
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

    fn start_again(&mut self, server: Ipv4Addr, why: &str, now: Duration) -> Vec<Action> {
        // 1, 2, 4 ... 64 s, less up to half: a server that always says NAK is not hammered.
        let delay = Duration::from_secs(1 << self.failures.min(6)).mul_f64(1.0 - self.random.unit() / 2.0);
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(server);
        self.pause(delay, why, now)
    }

    fn pause(&mut self, delay: Duration, why: &str, now: Duration) -> Vec<Action> {
        self.tally.refused = Some(why.to_owned());
        self.state = State::Init { at: now + delay };
        vec![Action::Say(Level::Warn, format!("{why}; starting again in {:.1} s", delay.as_secs_f32()))]
    }

    /// Gives back what a server granted, or is about to.
    fn leave(&mut self) -> Vec<Action> {
        let held = self.held.take();
        let granted = match std::mem::replace(&mut self.state, State::NoCarrier) {
            // The ACK may be on its way.
            State::Requesting { offer, .. } => Some((offer.address, offer.server)),
            State::Checking { lease, .. } => Some((lease.address, lease.server)),
            _ => held.filter(|_| self.identity.fixed.is_none()).map(|held| (held.lease.address, held.lease.server)),
        };
        let Some((address, server)) = granted else { return Vec::new() };
        let line = format!("RELEASE of {address} sent to {server}");
        vec![Action::Unicast(self.release(address, server), server), Action::Say(Level::Info, line)]
    }
}

fn nak(message: &Message, server: Ipv4Addr) -> String {
    let said = message.text(option::TEXT).map(|text| format!(" ({})", lease::shown(&text)));
    format!("NAK from {server}{}", said.unwrap_or_default())
}

#[cfg(test)]
mod tests;
