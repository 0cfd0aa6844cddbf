//! From nothing to a lease: INIT, SELECTING, REQUESTING, CHECKING.

use std::net::Ipv4Addr;
use std::time::Duration;

use log::Level;

use super::messages::VENDOR_CLASS;
use super::{Action, Client, Held, Offer, Sent, State};
use crate::dhcp::wire::{Message, option};
use crate::dhcp::{Ignored, Lease};
use crate::mac::Hardware;

/// How long further offers are awaited after the first that nothing prefers (F4).
const COLLECTION: Duration = Duration::from_millis(300);
/// How often a REQUEST is sent before the client starts again (F6).
pub(super) const REQUESTS: u32 = 3;
pub(super) const MAX_OFFERS: usize = 8;
/// How long somebody who has the address may take to say so (F13).
const CHECK: Duration = Duration::from_millis(300);
/// RFC 2131 section 3.1: the least time between a DECLINE and the next DISCOVER.
const AFTER_DECLINE: Duration = Duration::from_secs(10);

impl Client {
    pub(super) fn discover(&mut self, count: u32, now: Duration) -> Vec<Action> {
        if count == 0 {
            self.xid = self.random.bits();
        }
        let wait = self.backoff(count);
        let sent = Sent { count: count + 1, again: now + wait };
        self.state = State::Selecting { sent, choose: None, offers: Vec::new() };
        self.count_seconds(now);
        self.last_beginning = Some(now);
        self.tally.discovers = self.tally.discovers.saturating_add(1);
        let line = format!("DISCOVER {} sent, the next in {:.1} s", count + 1, wait.as_secs_f32());
        vec![Action::Broadcast(self.discovery()), Action::Say(Level::Info, line)]
    }

    pub(super) fn offered(&mut self, message: &Message, now: Duration) -> Vec<Action> {
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
    pub(super) fn choose(&mut self, offers: Vec<Offer>, now: Duration) -> Vec<Action> {
        let failed = self.failed;
        let best = offers.into_iter().min_by_key(|offer| (failed == Some(offer.server), !offer.boots));
        match best {
            Some(offer) => self.request(0, offer, now),
            None => self.discover(0, now),
        }
    }

    fn request(&mut self, count: u32, offer: Offer, now: Duration) -> Vec<Action> {
        let again = now + self.backoff(count);
        let message = self.request_of(offer.address, offer.server);
        let line = format!("REQUEST {} for {} sent to {}", count + 1, offer.address, offer.server);
        self.requested = now;
        self.state = State::Requesting { sent: Sent { count: count + 1, again }, offer };
        vec![Action::Broadcast(message), Action::Say(Level::Info, line)]
    }

    pub(super) fn unanswered(&mut self, count: u32, offer: Offer, now: Duration) -> Vec<Action> {
        if count < REQUESTS {
            return self.request(count, offer, now);
        }
        let why = format!("no answer from {} to {count} REQUESTs", offer.server);
        self.start_again(offer.server, &why, now)
    }

    pub(super) fn acknowledged(&mut self, message: &Message, server: Ipv4Addr, now: Duration) -> Vec<Action> {
        match Lease::from_message(message, self.identity.max_mtu) {
            Ok((lease, notes)) => {
                let time = shown(lease.time);
                let line = format!("lease {}/{} from {server} for {time}", lease.address, lease.prefix);
                let mut actions = vec![Action::Probe(lease.address), Action::Say(Level::Info, line)];
                actions.extend(notes.into_iter().map(|note| Action::Say(Level::Warn, note)));
                self.state = State::Checking { until: now + CHECK, lease: Box::new(lease), since: self.requested };
                actions
            }
            Err(refusal) => {
                let mut actions = vec![self.refuse("ACK", message, &refusal)];
                actions.extend(self.start_again(server, &format!("unusable ACK from {server}"), now));
                actions
            }
        }
    }

    /// Nobody has the address.
    pub(super) fn checked(&mut self) -> Vec<Action> {
        let State::Checking { lease, since, .. } = std::mem::replace(&mut self.state, State::Bound) else {
            return Vec::new();
        };
        let announce = Action::Announce(lease.address);
        self.hold(*lease, since);
        vec![announce, Action::Bound]
    }

    pub(super) fn claimed(&mut self, address: Ipv4Addr, by: Hardware, now: Duration) -> Vec<Action> {
        let State::Checking { lease, .. } = &self.state else { return Vec::new() };
        if lease.address != address || by.is_of_port(self.identity.mac) {
            return Vec::new();
        }
        let server = lease.server;
        let message = self.decline(address, server);
        let why = format!("{address} from {server} is in use by {by}, DECLINE sent");
        let mut actions = vec![Action::Broadcast(message)];
        if self.lease().is_some_and(|lease| lease.address == address) {
            actions.extend(self.lose("in use by another machine"));
        }
        self.failed = Some(server);
        actions.extend(self.pause(AFTER_DECLINE, &why, now));
        actions
    }

    /// The lease is ours from now on.
    pub(super) fn hold(&mut self, lease: Lease, since: Duration) {
        let early = lease.renewal.map_or(Duration::ZERO, |renewal| renewal.mul_f64(self.random.unit() / 16.0));
        self.held = Some(Held { lease, since, early });
        self.state = State::Bound;
        self.failures = 0;
        self.failed = None;
        self.began = None;
    }

    /// RFC 2131 section 4.1: 4, 8, 16, 32, 64, 64 ... s, each one second more or less.
    pub(super) fn backoff(&mut self, count: u32) -> Duration {
        Duration::from_secs(4 << count.min(4)) - Duration::from_secs(1)
            + Duration::from_secs(2).mul_f64(self.random.unit())
    }

    /// Sets `secs` of the next message.
    pub(super) fn count_seconds(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(*self.began.get_or_insert(now));
        self.secs = u16::try_from(elapsed.as_secs()).unwrap_or(u16::MAX);
    }
}

/// How long a lease is, in words.
pub(super) fn shown(time: Option<Duration>) -> String {
    time.map_or("ever".to_owned(), |time| format!("{} s", time.as_secs()))
}

/// A server that names something to boot, or our vendor class, is more likely the site's own than
/// a stray one.
fn boots_nodes(offer: &Message) -> bool {
    !offer.file.is_empty()
        || offer.options.contains_key(&option::ROOT_PATH)
        || offer.options.get(&option::VENDOR_CLASS).is_some_and(|class| class.as_slice() == VENDOR_CLASS)
}
