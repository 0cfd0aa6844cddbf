//! From nothing to a lease: ASKING, SELECTING, REQUESTING, CHECKING, ROUTING.

use std::net::Ipv6Addr;
use std::time::Duration;

use log::Level;

use super::messages::{self, VENDOR_CLASS};
use super::{AFTER_DECLINE, Action, Client, Held, Offer, Pending, Sent, State};
use crate::dhcp::Ignored;
use crate::ipv6::grant::{Giver, Grant};
use crate::ipv6::wire::{Kind, Message, Options, option, status};

/// How long further ADVERTISEs are awaited after the first that nothing prefers, as with IPv4 (F4). RFC 8415 section
/// 18.2.1 would wait a second.
const COLLECTION: Duration = Duration::from_millis(300);
/// How often a REQUEST is sent before the client starts again (F6). The ten of RFC 8415 would take three minutes.
pub(super) const REQUESTS: u32 = 4;
pub(super) const MAX_OFFERS: usize = 8;
/// How often options are asked for before the client does without.
const INFORMS: u32 = 2;
/// The kernel's check takes a second or two.
const CHECK: Duration = Duration::from_secs(10);
/// How long after the question a router may take to answer, before an address is used without one.
const ROUTERS: Duration = Duration::from_secs(4);
/// RFC 8415 section 18.2.1: such an ADVERTISE is taken at once.
const HIGHEST: u8 = 255;

impl Client {
    /// INFORMATION-REQUEST: asks for options only.
    pub(super) fn inform(&mut self, count: u32, now: Duration) -> Vec<Action> {
        if count >= INFORMS {
            let line = format!("no answer to {count} INFORMATION-REQUESTs; going on with what routers say");
            let mut actions = vec![Action::Say(Level::Warn, line)];
            actions.extend(self.make_address(None, now));
            return actions;
        }
        if count == 0 {
            self.begin_exchange();
        }
        let again = now + self.pause_of(count, messages::INFORM_FIRST, messages::INFORM_MAX);
        self.state = State::Asking { sent: Sent { count: count + 1, again } };
        self.tally.solicits = self.tally.solicits.saturating_add(1);
        self.count_elapsed(now);
        let line = format!("INFORMATION-REQUEST {} sent", count + 1);
        vec![Action::Send(self.information_request()), Action::Say(Level::Info, line)]
    }

    pub(super) fn informed(&mut self, message: &Message, from: Ipv6Addr, now: Duration) -> Vec<Action> {
        let mut actions = vec![Action::Say(Level::Info, format!("options from {from}"))];
        actions.extend(self.make_address(Some(message.options.clone()), now));
        actions
    }

    /// Of a router's prefix, which may be gone by now.
    pub(super) fn make_address(&mut self, options: Option<Options>, now: Duration) -> Vec<Action> {
        match self.router_grant(now) {
            Some(grant) => self.check(grant, options, now),
            None => self.start_again("the routers' prefixes are gone", now),
        }
    }

    pub(super) fn solicit(&mut self, count: u32, now: Duration) -> Vec<Action> {
        if count == 0 {
            self.begin_exchange();
        }
        let wait = self.pause_of(count, messages::SOLICIT_FIRST, self.solicit_max);
        let sent = Sent { count: count + 1, again: now + wait };
        self.state = State::Selecting { sent, choose: None, offers: Vec::new() };
        self.tally.solicits = self.tally.solicits.saturating_add(1);
        self.count_elapsed(now);
        let line = format!("SOLICIT {} sent, the next in {:.1} s", count + 1, wait.as_secs_f32());
        vec![Action::Send(self.solicitation()), Action::Say(Level::Info, line)]
    }

    pub(super) fn offered(&mut self, message: &Message, server: &[u8], from: Ipv6Addr, now: Duration) -> Vec<Action> {
        let address = match self.granted(message, server, from, now) {
            Ok((grant, _)) => grant.address,
            Err((_, why)) => return vec![self.refuse(Kind::Advertise, from, &why)],
        };
        let preference = message.options.fixed::<1>(option::PREFERENCE).map_or(0, |[preference]| preference);
        let boots = boots_nodes(&message.options);
        let offer = Offer { address, server: server.to_vec(), from, preference, boots };
        let at_once = (boots || preference == HIGHEST) && self.failed.as_deref() != Some(server);
        let State::Selecting { offers, choose, .. } = &mut self.state else { return Vec::new() };
        if offers.len() == MAX_OFFERS || offers.iter().any(|known| known.server == offer.server) {
            return vec![Action::Ignore(Ignored::Unexpected)];
        }
        let what = if boots { ", which boots nodes" } else { "" };
        let mut actions = vec![Action::Say(Level::Info, format!("ADVERTISE {address} from {from}{what}"))];
        choose.get_or_insert(now + COLLECTION);
        offers.push(offer);
        if at_once {
            let offers = std::mem::take(offers);
            actions.extend(self.choose(offers, now));
        }
        actions
    }

    /// Requests the best offer: not of the server that failed last, of the highest preference, of one that boots nodes,
    /// the first.
    pub(super) fn choose(&mut self, offers: Vec<Offer>, now: Duration) -> Vec<Action> {
        let failed = |offer: &Offer| self.failed.as_ref() == Some(&offer.server);
        let rank = |offer: &Offer| (failed(offer), u8::MAX - offer.preference, !offer.boots);
        match offers.into_iter().min_by_key(rank) {
            Some(offer) => self.request(0, offer, now),
            None => self.solicit(0, now),
        }
    }

    pub(super) fn request(&mut self, count: u32, offer: Offer, now: Duration) -> Vec<Action> {
        if count == 0 {
            self.begin_exchange();
        }
        let again = now + self.pause_of(count, messages::REQUEST_FIRST, messages::REQUEST_MAX);
        self.count_elapsed(now);
        self.requested = now;
        let message = self.request_of(offer.address, &offer.server);
        let line = format!("REQUEST {} for {} sent to {}", count + 1, offer.address, offer.from);
        self.state = State::Requesting { sent: Sent { count: count + 1, again }, offer };
        vec![Action::Send(message), Action::Say(Level::Info, line)]
    }

    pub(super) fn unanswered(&mut self, count: u32, offer: Offer, now: Duration) -> Vec<Action> {
        if count < REQUESTS {
            return self.request(count, offer, now);
        }
        let why = format!("no answer from {} to {count} REQUESTs", offer.from);
        self.failed = Some(offer.server);
        self.start_again(&why, now)
    }

    pub(super) fn replied(&mut self, message: &Message, server: &[u8], from: Ipv6Addr, now: Duration) -> Vec<Action> {
        match self.granted(message, server, from, self.requested) {
            Ok((grant, notes)) => {
                let mut actions = self.check(grant, Some(message.options.clone()), now);
                actions.extend(notes.into_iter().map(|note| Action::Say(Level::Warn, note)));
                actions
            }
            Err((_, why)) => {
                self.failed = Some(server.to_vec());
                self.start_again(&format!("REPLY from {from} refused: {why}"), now)
            }
        }
    }

    /// What a server grants in a message, with what of it was not taken.
    ///
    /// # Errors
    /// The status code, and why there is nothing.
    pub(super) fn granted(
        &self,
        message: &Message,
        server: &[u8],
        from: Ipv6Addr,
        since: Duration,
    ) -> Result<(Grant, Vec<String>), (u16, String)> {
        let whole = message.options.status();
        let association = message.association(self.identity.iaid);
        let status = association.as_ref().map(|association| &association.status);
        let refusing = [Some(&whole), status].into_iter().flatten().find(|status| status.code != status::SUCCESS);
        if let Some(refusing) = refusing {
            return Err((refusing.code, messages::described(refusing)));
        }
        let Some(association) = association else {
            return Err((status::SUCCESS, "nothing about an address".to_owned()));
        };
        let mut notes = Vec::new();
        let held = self.held.as_ref().map(|held| held.grant.address);
        Grant::of_server(&association, (server, from), held, since, &mut notes)
            .map(|grant| (grant.on_link(&self.routers), notes))
            .map_err(|why| (status::SUCCESS, why))
    }

    /// Puts an address on the port, unless it is there already.
    pub(super) fn check(&mut self, grant: Grant, options: Option<Options>, now: Duration) -> Vec<Action> {
        let from = match &grant.giver {
            Giver::Nobody => String::new(),
            Giver::Router(from) => format!(" of router {from}"),
            Giver::Server(_, from) => format!(" from {from}"),
        };
        let same = self.held.as_ref().is_some_and(|held| held.grant.address == grant.address);
        let again = if same { "again " } else { "" };
        let line = format!("lease {}/{}{from} {again}for {}", grant.address, grant.prefix, shown(grant.time));
        let said = Action::Say(Level::Info, line);
        if same {
            let mut actions = self.hold(grant, options);
            actions.push(said);
            return actions;
        }
        let actions = vec![Action::Assign(grant.address, grant.prefix), said];
        self.state = State::Checking(Box::new(Pending { grant, options, until: now + CHECK }));
        actions
    }

    /// Nobody else has the address.
    pub(super) fn checked(&mut self, now: Duration) -> Vec<Action> {
        let State::Checking(mut pending) = std::mem::replace(&mut self.state, State::Bound) else { return Vec::new() };
        let of_server = matches!(pending.grant.giver, Giver::Server(..));
        let until = self.last_beginning.unwrap_or(now) + ROUTERS;
        if of_server && self.routers.is_empty() && until > now {
            pending.until = until;
            self.state = State::Routing(pending);
            return Vec::new();
        }
        let silent = of_server && self.routers.is_empty();
        self.state = State::Routing(pending);
        self.routed(silent)
    }

    /// The address is used, with a router or without.
    pub(super) fn routed(&mut self, without: bool) -> Vec<Action> {
        let State::Routing(pending) = std::mem::replace(&mut self.state, State::Bound) else { return Vec::new() };
        let line = format!("no router advertises: {} reaches nothing but itself", pending.grant.address);
        let mut actions = self.hold(pending.grant, pending.options);
        actions.extend(without.then_some(Action::Say(Level::Warn, line)));
        actions
    }

    /// Somebody else has the address.
    pub(super) fn taken(&mut self, now: Duration) -> Vec<Action> {
        let State::Checking(pending) = std::mem::replace(&mut self.state, State::Link) else { return Vec::new() };
        let address = pending.grant.address;
        let mut actions = Vec::new();
        let mut declined = "";
        if let Giver::Server(server, _) = &pending.grant.giver {
            actions.push(Action::Send(self.decline(address, server)));
            self.failed = Some(server.clone());
            declined = ", DECLINE sent";
        }
        actions.push(Action::Remove(address));
        actions.extend(self.pause(AFTER_DECLINE, &format!("{address} is in use by another machine{declined}"), now));
        actions
    }

    /// The kernel has no verdict.
    pub(super) fn unchecked(&mut self, now: Duration) -> Vec<Action> {
        let State::Checking(pending) = std::mem::replace(&mut self.state, State::Link) else { return Vec::new() };
        let address = pending.grant.address;
        let mut actions = vec![Action::Remove(address)];
        actions.extend(self.start_again(&format!("the kernel does not say whether {address} is ours"), now));
        actions
    }

    /// The lease is ours from now on.
    pub(super) fn hold(&mut self, grant: Grant, options: Option<Options>) -> Vec<Action> {
        let early = grant.renewal.map_or(Duration::ZERO, |renewal| renewal.mul_f64(self.random.unit() / 16.0));
        let (lease, notes) = grant.lease(&self.routers, options.as_ref(), self.identity.max_mtu);
        let before = self.held.replace(Held { grant, lease, options, early }).map(|held| held.grant.address);
        let now = self.held.as_ref().map(|held| held.grant.address);
        self.state = State::Bound;
        self.failures = 0;
        self.failed = None;
        self.began = None;
        let mut actions: Vec<Action> = before.filter(|_| before != now).map(Action::Remove).into_iter().collect();
        actions.push(Action::Bound);
        if before != now {
            actions.extend(notes.into_iter().map(|note| Action::Say(Level::Warn, note)));
        }
        actions
    }
}

/// How long a lease is, in words.
fn shown(time: Option<Duration>) -> String {
    time.map_or("ever".to_owned(), |time| format!("{} s", time.as_secs()))
}

/// A server that names something to boot, or our vendor class, is more likely the site's own than
/// a stray one.
fn boots_nodes(options: &Options) -> bool {
    let class = options.get(option::VENDOR_CLASS).unwrap_or_default();
    options.get(option::BOOT_FILE).is_some_and(|file| !file.is_empty()) || class.ends_with(VENDOR_CLASS)
}
