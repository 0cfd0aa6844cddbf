//! The link's own address, and what routers say.

use std::net::Ipv6Addr;
use std::time::Duration;

use log::Level;

use super::{Action, Client, Mode, Sent, Standing, State, note};
use crate::dhcp::Ignored;
use crate::ipv6::advert::Advertisement;
use crate::ipv6::grant::{Giver, Grant, Router};

pub(super) const MAX_ROUTERS: usize = 8;
/// RFC 4861 section 10 for the first pauses, RFC 7559 for the growth of those that follow.
const BETWEEN_SOLICITATIONS: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(64);

impl Client {
    pub(super) fn look_for_link_local(&mut self, addresses: &[(Ipv6Addr, Standing)], now: Duration) -> Vec<Action> {
        let own = || addresses.iter().filter(|(address, _)| address.is_unicast_link_local());
        if let Some((address, _)) = own().find(|(_, standing)| *standing == Standing::Ours) {
            self.link_local = Some(*address);
            return self.begin(now);
        }
        match own().find(|(_, standing)| *standing == Standing::Duplicate) {
            Some((address, _)) => {
                let line =
                    format!("{address}, the link's own address, is in use by another machine: two have one MAC?");
                vec![self.complain(line)]
            }
            None => Vec::new(),
        }
    }

    pub(super) fn ask_routers(&mut self, now: Duration) -> Vec<Action> {
        let count = self.asked.map_or(0, |sent| sent.count);
        let wait = self.pause_of(count, BETWEEN_SOLICITATIONS, LONGEST);
        self.asked = Some(Sent { count: count + 1, again: now + wait });
        self.tally.solicitations = self.tally.solicitations.saturating_add(1);
        let line = format!("router solicitation {} sent, the next in {:.1} s", count + 1, wait.as_secs_f32());
        vec![Action::AskRouters, Action::Say(Level::Info, line)]
    }

    pub(super) fn advertised(&mut self, advert: &Advertisement, from: Ipv6Addr, now: Duration) -> Vec<Action> {
        if matches!(self.state, State::NoCarrier) {
            return vec![Action::Ignore(Ignored::Unexpected)];
        }
        let router = Router { from, advert: advert.clone() };
        let mut actions = Vec::new();
        let full = self.routers.len() == MAX_ROUTERS;
        match self.routers.iter_mut().find(|known| known.from == from) {
            Some(known) => *known = router.clone(),
            None if full => return vec![Action::Ignore(Ignored::Unexpected)],
            None => {
                self.routers.push(router.clone());
                actions.push(Action::Say(Level::Info, described(&router)));
            }
        }
        note(&mut self.tally.routers, from, MAX_ROUTERS);
        self.asked = None;
        match self.state {
            State::Soliciting => actions.extend(self.use_routers(now)),
            State::Routing(_) => actions.extend(self.routed(false)),
            _ => actions.extend(self.refresh(&router, now)),
        }
        actions
    }

    pub(super) fn use_routers(&mut self, now: Duration) -> Vec<Action> {
        let any = |says: fn(&Advertisement) -> bool| self.routers.iter().any(|router| says(&router.advert));
        // M makes O redundant (RFC 4861 section 4.2).
        let (managed, other) = (any(|advert| advert.managed), any(|advert| advert.managed || advert.other));
        if managed && self.identity.mode == Mode::Either {
            return self.solicit(0, now);
        }
        if self.router_grant(now).is_some() {
            return if other { self.inform(0, now) } else { self.make_address(None, now) };
        }
        let instead = if managed { "; servers have addresses: ip=dhcp6 or ip=either6" } else { "" };
        let routers: Vec<String> = self.routers.iter().map(|router| router.from.to_string()).collect();
        let line = format!("no prefix of 64 bits to make an address of from router {}{instead}", routers.join(", "));
        vec![self.complain(line)]
    }

    pub(super) fn router_grant(&self, now: Duration) -> Option<Grant> {
        Grant::of_router(&self.routers, self.link_local?, now)
    }

    /// An advertisement while an address is ours: its prefix may be ours for longer, and routes and the like may be others.
    fn refresh(&mut self, router: &Router, now: Duration) -> Vec<Action> {
        let max_mtu = self.identity.max_mtu;
        let bound = matches!(self.state, State::Bound);
        let Some(held) = self.held.as_mut().filter(|held| held.grant.giver != Giver::Nobody) else { return Vec::new() };
        let of_router = matches!(held.grant.giver, Giver::Router(_));
        let refreshed = of_router && held.grant.refresh(router, now);
        held.lease = held.grant.lease(&self.routers, held.options.as_ref(), max_mtu).0;
        if refreshed && bound { vec![Action::Bound] } else { Vec::new() }
    }
}

/// What a router says, in words.
fn described(router: &Router) -> String {
    let advert = &router.advert;
    let prefixes: Vec<String> =
        advert.prefixes.iter().map(|prefix| format!("{}/{}", prefix.first, prefix.length)).collect();
    let prefixes = if prefixes.is_empty() { "no prefix".to_owned() } else { prefixes.join(", ") };
    let servers = match (advert.managed, advert.other) {
        (true, _) => ", servers have addresses",
        (false, true) => ", servers have more",
        (false, false) => "",
    };
    let default = if advert.default_router { "" } else { ", no default router" };
    format!("router {} advertises {prefixes}{servers}{default}", router.from)
}
