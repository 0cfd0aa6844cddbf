//! The client's states (RFC 4861, 4862, 8415): events in, actions out.
//!
//! Time is a `Duration` since some moment of the caller's; the client sees no clock, does no I/O,
//! and never waits: it says by [`Client::deadline`] when it wants [`Event::Tick`].
//!
//! A lease that was had is kept until its end, whatever the state: it is lost by its end, by a server that takes it
//! back, and replaced by the next.
//!
//! | state | event | actions | next state |
//! |---|---|---|---|
//! | NO CARRIER | carrier | - | LINK |
//! | any | carrier lost | - | NO CARRIER |
//! | CHECKING | carrier lost | remove | NO CARRIER |
//! | LINK | the link-local address is ours | ask routers | SOLICITING |
//! | LINK | the same, and a router was heard | assign | CHECKING |
//! | LINK | the same, with `dhcp6` | ask routers, SOLICIT | SELECTING |
//! | LINK | the same, with `link6` | bound | BOUND |
//! | LINK | the same, a server's lease is kept | ask routers, REBIND | REBINDING |
//! | LINK | the same within 1 s of the last beginning | - | INIT |
//! | LINK | the link-local address is another's | - | LINK |
//! | LINK | advertisement | - | LINK |
//! | INIT | its time | ask routers | SOLICITING |
//! | SOLICITING | 4 to 64 s without an advertisement | ask routers | SOLICITING |
//! | SOLICITING | a prefix to make an address of | assign | CHECKING |
//! | SOLICITING | the same, and servers have more | INFORMATION-REQUEST | ASKING |
//! | SOLICITING | with `either6`, servers have addresses | SOLICIT | SELECTING |
//! | SOLICITING | nothing to make an address of | - | SOLICITING |
//! | SOLICITING | the prefix of the lease that is kept | bound | BOUND |
//! | ASKING | REPLY | assign | CHECKING |
//! | ASKING | no answer | INFORMATION-REQUEST | ASKING |
//! | ASKING | no answer to the second | assign | CHECKING |
//! | SELECTING | ADVERTISE | - | SELECTING |
//! | SELECTING | ADVERTISE that boots nodes, or of the highest preference | REQUEST | REQUESTING |
//! | SELECTING | ADVERTISE without an address | - | SELECTING |
//! | SELECTING | 300 ms after the first ADVERTISE | REQUEST | REQUESTING |
//! | SELECTING | 1 s and twice as long each time without one | SOLICIT | SELECTING |
//! | REQUESTING | REPLY | assign | CHECKING |
//! | REQUESTING | REPLY without an address | - | INIT |
//! | REQUESTING | no answer | REQUEST | REQUESTING |
//! | REQUESTING | no answer to the fourth REQUEST | - | INIT |
//! | CHECKING | the address is ours | bound | BOUND |
//! | CHECKING | the same, of a server, and no router was heard | - | ROUTING |
//! | CHECKING | the address is another's | remove | INIT |
//! | CHECKING | the same, of a server | DECLINE, remove | INIT |
//! | CHECKING | 10 s | remove | INIT |
//! | ROUTING | advertisement | bound | BOUND |
//! | ROUTING | 4 s after routers were asked | bound | BOUND |
//! | BOUND | advertisement with the address's prefix | bound | BOUND |
//! | BOUND | the end of the router's prefix | lost, remove, ask routers | SOLICITING |
//! | BOUND | T1 | RENEW | RENEWING |
//! | RENEWING | REPLY | bound | BOUND |
//! | RENEWING | REPLY with another address | assign | CHECKING |
//! | RENEWING | REPLY that knows nothing of it | REQUEST | REQUESTING |
//! | RENEWING | REPLY that refuses | - | RENEWING |
//! | RENEWING | 10 s and twice as long each time | RENEW | RENEWING |
//! | RENEWING | T2 | REBIND | REBINDING |
//! | REBINDING | REPLY of any server | bound | BOUND |
//! | REBINDING | REPLY that the address is not of this link | lost, remove | INIT |
//! | REBINDING | 10 s and twice as long each time | REBIND | REBINDING |
//! | REBINDING | the lease's end | lost, remove, ask routers, SOLICIT | SELECTING |
//! | NO CARRIER | the lease's end | lost, remove | NO CARRIER |
//! | REQUESTING | leave | RELEASE | NO CARRIER |
//! | BOUND, of a server | leave | remove, RELEASE | NO CARRIER |
//! | BOUND | leave | remove | NO CARRIER |
//!
//! `assign` puts an address on the port, so that the kernel asks whether somebody has it (RFC 4862 section 5.4);
//! [`Event::Addresses`] brings its verdict. Routers are asked until one was heard, whatever else goes on. INIT lasts until
//! its time, and then the client begins as in LINK: 10 s after a DECLINE, 1 to 64 s after another failure.

mod getting;
mod keeping;
mod messages;
mod routers;

use std::net::Ipv6Addr;
use std::time::Duration;

use log::Level;

use super::advert::Advertisement;
use super::grant::{Giver, Grant, Lease, Router};
use super::wire::{Kind, Message, Options, option};
use crate::dhcp::Ignored;
use crate::random::Random;

const MAX_SERVERS: usize = 16;
/// Carrier that comes and goes does not make the client begin faster than this.
const BETWEEN_BEGINNINGS: Duration = Duration::from_secs(1);
/// RFC 8415 section 18.2.8 leaves it to the client; the same as for IPv4.
const AFTER_DECLINE: Duration = Duration::from_secs(10);

/// Where addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Routers' prefixes; servers are asked for the rest where routers say that they have it.
    Auto,
    /// A server.
    Dhcp,
    /// A server where routers say that it has addresses, else routers' prefixes.
    Either,
    /// Nowhere: the link-local address is enough.
    LinkLocal,
}

/// Who the client is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Option 1: the machine.
    pub duid: Vec<u8>,
    /// The port, among those of the machine.
    pub iaid: u32,
    /// The largest MTU that the port can have.
    pub max_mtu: u16,
    /// Option 61: what the machine and its firmware are, as PXE numbers them.
    pub arch: Option<u16>,
    /// Where addresses come from.
    pub mode: Mode,
}

/// What the kernel knows of an address of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not known yet whether somebody else has it.
    Tentative,
    /// It is ours.
    Ours,
    /// Somebody else has it.
    Duplicate,
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
    /// The port has these addresses now.
    Addresses(&'a [(Ipv6Addr, Standing)]),
    /// A router of the link, with this address, advertises.
    Advertised(&'a Advertisement, Ipv6Addr),
    /// A message arrived from this address.
    Received(&'a Message, Ipv6Addr),
    /// The lease is not wanted any more.
    Leave,
}

/// What the caller does for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask all routers of the link for advertisements.
    AskRouters,
    /// Send this to all servers of the link.
    Send(Message),
    /// Put an address with this prefix length on the port, and tell what the kernel makes of it.
    Assign(Ipv6Addr, u8),
    /// Take an address off the port again.
    Remove(Ipv6Addr),
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
    /// How often routers were asked.
    pub solicitations: u32,
    /// SOLICITs and INFORMATION-REQUESTs sent.
    pub solicits: u32,
    /// Routers that advertised.
    pub routers: Vec<Ipv6Addr>,
    /// Servers that answered.
    pub servers: Vec<Ipv6Addr>,
    /// The latest reason why something was not taken.
    pub refused: Option<String>,
}

/// What a port is still without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An address on the link, without which nobody can be asked.
    LinkLocal,
    /// A router's advertisement.
    Router,
    /// A server's answer.
    Server,
}

#[derive(Clone, Debug)]
struct Offer {
    address: Ipv6Addr,
    /// Its identifier.
    server: Vec<u8>,
    from: Ipv6Addr,
    /// Option 7.
    preference: u8,
    /// The server is one that boots nodes.
    boots: bool,
}

/// A lease that is ours.
#[derive(Clone, Debug)]
struct Held {
    grant: Grant,
    lease: Lease,
    /// What its server said besides.
    options: Option<Options>,
    /// How much before T1 it is renewed, so that nodes which booted together do not renew together.
    early: Duration,
}

impl Held {
    fn at(&self, time: Option<Duration>) -> Option<Duration> {
        time.map(|time| self.grant.since.saturating_add(time))
    }

    fn renewal(&self) -> Option<Duration> {
        self.at(self.grant.renewal.map(|renewal| renewal.saturating_sub(self.early)))
    }

    fn rebinding(&self) -> Option<Duration> {
        self.at(self.grant.rebinding)
    }

    fn end(&self) -> Option<Duration> {
        self.at(self.grant.time)
    }
}

/// How often a message was sent, and when it is sent again.
#[derive(Clone, Copy, Debug)]
struct Sent {
    count: u32,
    again: Duration,
}

/// What is about to be ours.
#[derive(Clone, Debug)]
struct Pending {
    grant: Grant,
    options: Option<Options>,
    until: Duration,
}

#[derive(Clone, Debug)]
enum State {
    NoCarrier,
    Link,
    Init { at: Duration },
    Soliciting,
    Asking { sent: Sent },
    Selecting { sent: Sent, choose: Option<Duration>, offers: Vec<Offer> },
    Requesting { sent: Sent, offer: Offer },
    Checking(Box<Pending>),
    Routing(Box<Pending>),
    Bound,
    Renewing { sent: Sent },
    Rebinding { sent: Sent },
}

/// One port's client.
#[derive(Clone, Debug)]
pub struct Client {
    identity: Identity,
    random: Random,
    state: State,
    link_local: Option<Ipv6Addr>,
    /// Those that advertised since there is carrier.
    routers: Vec<Router>,
    /// While no router was heard.
    asked: Option<Sent>,
    held: Option<Held>,
    xid: u32,
    /// When the first message of this exchange was sent.
    began: Option<Duration>,
    /// In hundredths of a second, of the latest message.
    elapsed: u16,
    /// When the client began last.
    last_beginning: Option<Duration>,
    /// When the latest request for an address or for more time was sent.
    requested: Duration,
    /// The longest pause between SOLICITs.
    solicit_max: Duration,
    /// Refusals and unanswered REQUESTs since the last carrier or lease.
    failures: u32,
    /// The server of the latest failure; any other is preferred.
    failed: Option<Vec<u8>>,
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
            link_local: None,
            routers: Vec::new(),
            asked: None,
            held: None,
            xid: 0,
            began: None,
            elapsed: 0,
            last_beginning: None,
            requested: Duration::ZERO,
            solicit_max: messages::SOLICIT_MAX,
            failures: 0,
            failed: None,
            tally: Tally::default(),
        }
    }

    /// When the client wants [`Event::Tick`]; `None` is never.
    pub fn deadline(&self) -> Option<Duration> {
        let asked = self.asked.map(|sent| sent.again);
        let end = self.held.as_ref().and_then(Held::end);
        [self.state_deadline(), asked, end].into_iter().flatten().min()
    }

    fn state_deadline(&self) -> Option<Duration> {
        let held = self.held.as_ref();
        match &self.state {
            State::NoCarrier | State::Link | State::Soliciting => None,
            State::Init { at } => Some(*at),
            State::Selecting { sent, choose, .. } => Some(choose.unwrap_or(sent.again)),
            State::Asking { sent } | State::Requesting { sent, .. } | State::Rebinding { sent } => Some(sent.again),
            State::Checking(pending) | State::Routing(pending) => Some(pending.until),
            State::Bound => held.and_then(Held::renewal),
            State::Renewing { sent } => held.and_then(Held::rebinding).map(|rebinding| rebinding.min(sent.again)),
        }
    }

    /// Whether it waits for [`Event::Addresses`].
    pub fn awaits_addresses(&self) -> bool {
        matches!(self.state, State::Link | State::Checking(_))
    }

    /// The address on the link, as soon as it is known to be ours.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.link_local
    }

    /// What it did and saw so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What it has waited for in vain so far.
    pub fn missing(&self) -> Option<Missing> {
        let managed = self.routers.iter().any(|router| router.advert.managed);
        let by_server = match self.identity.mode {
            Mode::Dhcp => true,
            Mode::Either => managed,
            Mode::Auto | Mode::LinkLocal => false,
        };
        let (routers, servers) = (&self.tally.routers, &self.tally.servers);
        match () {
            () if self.link_local.is_none() => Some(Missing::LinkLocal),
            () if by_server && servers.is_empty() => Some(Missing::Server),
            () if !by_server && routers.is_empty() => Some(Missing::Router),
            () => None,
        }
    }

    /// The lease that is ours now.
    pub fn lease(&self) -> Option<&Lease> {
        self.held.as_ref().map(|held| &held.lease)
    }

    /// Takes an event at the time `now`.
    pub fn step(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        match event {
            Event::Carrier if matches!(self.state, State::NoCarrier) => {
                self.failures = 0;
                self.routers.clear();
                self.state = State::Link;
                Vec::new()
            }
            Event::Carrier => Vec::new(),
            Event::CarrierLost => {
                self.asked = None;
                self.pending().map(|grant| Action::Remove(grant.address)).into_iter().collect()
            }
            Event::Tick => self.tick(now),
            Event::Addresses(addresses) => self.addresses(addresses, now),
            Event::Advertised(advert, from) => self.advertised(advert, from, now),
            Event::Received(message, from) => self.received(message, from, now),
            Event::Leave => self.leave(),
        }
    }

    fn addresses(&mut self, addresses: &[(Ipv6Addr, Standing)], now: Duration) -> Vec<Action> {
        match &self.state {
            State::Link => self.look_for_link_local(addresses, now),
            State::Checking(pending) => {
                let address = pending.grant.address;
                match addresses.iter().find(|(other, _)| *other == address).map(|(_, standing)| *standing) {
                    Some(Standing::Ours) => self.checked(now),
                    Some(Standing::Duplicate) => self.taken(now),
                    Some(Standing::Tentative) | None => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    /// As fast as once a second: asks routers, and servers where that is the way.
    fn begin(&mut self, now: Duration) -> Vec<Action> {
        if let Some(at) = self.last_beginning.map(|last| last + BETWEEN_BEGINNINGS).filter(|at| *at > now) {
            self.state = State::Init { at };
            return Vec::new();
        }
        self.last_beginning = Some(now);
        self.began = None;
        if self.identity.mode == Mode::LinkLocal {
            return self.link_local.map(|own| self.hold(Grant::of_link(own, now), None)).unwrap_or_default();
        }
        self.asked = None;
        let heard = !self.routers.is_empty();
        let mut actions = if heard { Vec::new() } else { self.ask_routers(now) };
        let of_server = self.held.as_ref().is_some_and(|held| matches!(held.grant.giver, Giver::Server(..)));
        if of_server {
            actions.extend(self.rebind(0, now));
        } else if self.identity.mode == Mode::Dhcp {
            actions.extend(self.solicit(0, now));
        } else {
            self.state = State::Soliciting;
            if heard {
                actions.extend(self.use_routers(now));
            }
        }
        actions
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if due(self.held.as_ref().and_then(Held::end)) {
            return self.run_out(now);
        }
        if due(self.asked.map(|sent| sent.again)) {
            return self.ask_routers(now);
        }
        if !due(self.state_deadline()) {
            return Vec::new();
        }
        match &mut self.state {
            State::NoCarrier | State::Link | State::Soliciting => Vec::new(),
            State::Init { .. } => self.begin(now),
            State::Asking { sent } => {
                let count = sent.count;
                self.inform(count, now)
            }
            State::Selecting { choose: None, sent, .. } => {
                let count = sent.count;
                self.solicit(count, now)
            }
            State::Selecting { offers, .. } => {
                let offers = std::mem::take(offers);
                self.choose(offers, now)
            }
            State::Requesting { sent, offer } => {
                let (count, offer) = (sent.count, offer.clone());
                self.unanswered(count, offer, now)
            }
            State::Checking(_) => self.unchecked(now),
            State::Routing(_) => self.routed(true),
            State::Bound => self.renew(0, now),
            State::Renewing { sent } => {
                let count = sent.count;
                self.renew(count, now)
            }
            State::Rebinding { sent } => {
                let count = sent.count;
                self.rebind(count, now)
            }
        }
    }

    fn received(&mut self, message: &Message, from: Ipv6Addr, now: Duration) -> Vec<Action> {
        let ours = message.options.get(option::CLIENT_ID) == Some(self.identity.duid.as_slice());
        if !matches!(message.kind, Kind::Advertise | Kind::Reply) {
            return vec![Action::Ignore(Ignored::NotDhcp)];
        }
        if !ours || message.xid != self.xid {
            return vec![Action::Ignore(Ignored::OtherClient)];
        }
        let Some(server) = message.options.get(option::SERVER_ID) else {
            return vec![self.refuse(message.kind, from, "no server identifier")];
        };
        let new = note(&mut self.tally.servers, from, MAX_SERVERS);
        self.take_solicit_max(&message.options);
        match (&self.state, message.kind) {
            (State::Selecting { .. }, Kind::Advertise) => self.offered(message, server, from, now),
            (State::Asking { .. }, Kind::Reply) => self.informed(message, from, now),
            (State::Requesting { offer, .. }, Kind::Reply) if offer.server == server => {
                self.replied(message, server, from, now)
            }
            (State::Renewing { .. } | State::Rebinding { .. }, Kind::Reply) => self.renewed(message, server, from, now),
            // A second server is worth a line, once.
            (_, kind) => {
                let line = new.then(|| Action::Say(Level::Info, format!("{kind} from {from} too, not taken")));
                line.into_iter().chain([Action::Ignore(Ignored::Unexpected)]).collect()
            }
        }
    }

    fn refuse(&mut self, what: Kind, from: Ipv6Addr, why: &str) -> Action {
        self.complain(format!("{what} from {from} refused: {why}"))
    }

    /// Says what is wrong, once.
    fn complain(&mut self, line: String) -> Action {
        if self.tally.refused.as_ref() == Some(&line) {
            return Action::Ignore(Ignored::Unexpected);
        }
        self.tally.refused = Some(line.clone());
        Action::Say(Level::Warn, line)
    }

    fn start_again(&mut self, why: &str, now: Duration) -> Vec<Action> {
        // 1, 2, 4 ... 64 s, less up to half: a server that always refuses is not hammered.
        let delay = Duration::from_secs(1 << self.failures.min(6)).mul_f64(1.0 - self.random.unit() / 2.0);
        self.failures = self.failures.saturating_add(1);
        self.pause(delay, why, now)
    }

    fn pause(&mut self, delay: Duration, why: &str, now: Duration) -> Vec<Action> {
        self.tally.refused = Some(why.to_owned());
        self.state = State::Init { at: now + delay };
        vec![Action::Say(Level::Warn, format!("{why}; starting again in {:.1} s", delay.as_secs_f32()))]
    }

    /// Without carrier from now on; what is on the port, but not ours yet.
    fn pending(&mut self) -> Option<Grant> {
        match std::mem::replace(&mut self.state, State::NoCarrier) {
            State::Checking(pending) | State::Routing(pending) => Some(pending.grant),
            _ => None,
        }
    }

    /// Gives back what a server granted, or is about to.
    fn leave(&mut self) -> Vec<Action> {
        self.asked = None;
        // The REPLY may be on its way.
        let offered = match &self.state {
            State::Requesting { offer, .. } => Some((offer.address, offer.server.clone(), offer.from)),
            _ => None,
        };
        let (held, pending) = (self.held.take().map(|held| held.grant), self.pending());
        let grants: Vec<Grant> = held.into_iter().chain(pending).filter(|grant| grant.giver != Giver::Nobody).collect();
        // RFC 8415 section 18.2.7: it is not used any more when it is given back.
        let mut actions: Vec<Action> = grants.iter().map(|grant| Action::Remove(grant.address)).collect();
        let granted = grants.into_iter().filter_map(|grant| match grant.giver {
            Giver::Server(server, from) => Some((grant.address, server, from)),
            _ => None,
        });
        for (address, server, from) in granted.chain(offered) {
            actions.push(Action::Send(self.release(address, &server)));
            actions.push(Action::Say(Level::Info, format!("RELEASE of {address} sent to {from}")));
        }
        actions
    }
}

/// Adds an address to those that were seen; false when it is there, or there are too many.
fn note(seen: &mut Vec<Ipv6Addr>, address: Ipv6Addr, most: usize) -> bool {
    let new = seen.len() < most && !seen.contains(&address);
    if new {
        seen.push(address);
    }
    new
}

#[cfg(test)]
mod tests;
