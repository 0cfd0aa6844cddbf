//! What becomes of a lease: RENEWING, REBINDING, its end.

use std::net::Ipv6Addr;
use std::time::Duration;

use log::Level;

use super::{Action, Client, Held, Offer, Sent, State, messages};
use crate::ipv6::grant::Giver;
use crate::ipv6::wire::{Kind, Message, status};

impl Client {
    /// BOUND and RENEWING: asks the server of the lease for more time, until T2.
    pub(super) fn renew(&mut self, count: u32, now: Duration) -> Vec<Action> {
        let Some(Held { grant, .. }) = &self.held else { return Vec::new() };
        let Giver::Server(server, from) = &grant.giver else { return Vec::new() };
        let (address, server, from) = (grant.address, server.clone(), *from);
        if self.held.as_ref().and_then(Held::rebinding).is_some_and(|rebinding| rebinding <= now) {
            return self.rebind(0, now);
        }
        if count == 0 {
            self.begin_exchange();
        }
        let again = now + self.pause_of(count, messages::RENEW_FIRST, messages::RENEW_MAX);
        self.count_elapsed(now);
        self.requested = now;
        self.state = State::Renewing { sent: Sent { count: count + 1, again } };
        let line = format!("RENEW of {address} sent to {from}");
        vec![Action::Send(self.renewal_of(address, &server)), Action::Say(Level::Info, line)]
    }

    /// REBINDING: asks any server, until the lease's end. Also what a lease is kept with after a pulled cable.
    pub(super) fn rebind(&mut self, count: u32, now: Duration) -> Vec<Action> {
        let Some(held) = &self.held else { return Vec::new() };
        let (address, end) = (held.grant.address, held.end());
        if count == 0 {
            self.begin_exchange();
        }
        let again = now + self.pause_of(count, messages::RENEW_FIRST, messages::RENEW_MAX);
        self.count_elapsed(now);
        self.requested = now;
        self.state = State::Rebinding { sent: Sent { count: count + 1, again } };
        let left =
            end.map_or("never ends".to_owned(), |end| format!("ends in {} s", end.saturating_sub(now).as_secs()));
        let line = format!("REBIND of {address} sent to any server; the lease {left}");
        vec![Action::Send(self.rebinding_of(address)), Action::Say(Level::Warn, line)]
    }

    pub(super) fn renewed(&mut self, message: &Message, server: &[u8], from: Ipv6Addr, now: Duration) -> Vec<Action> {
        match self.granted(message, server, from, self.requested) {
            Ok((mut grant, _)) => {
                if let Some(held) = self.held.as_ref().filter(|held| held.grant.address == grant.address) {
                    grant.prefix = held.grant.prefix;
                }
                self.check(grant, Some(message.options.clone()), now)
            }
            Err((status::NO_BINDING, why)) => {
                let mut actions = vec![self.refuse(Kind::Reply, from, &why)];
                if let Some(address) = self.held.as_ref().map(|held| held.grant.address) {
                    let offer = Offer { address, server: server.to_vec(), from, preference: 0, boots: false };
                    actions.extend(self.request(0, offer, now));
                }
                actions
            }
            Err((status::NOT_ON_LINK, why)) => {
                let mut actions = self.lose("not of this link");
                actions.extend(self.start_again(&format!("REPLY from {from} refused: {why}"), now));
                actions
            }
            Err((_, why)) => vec![self.refuse(Kind::Reply, from, &why)],
        }
    }

    /// The lease's end has come.
    pub(super) fn run_out(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = self.lose("run out");
        if matches!(self.state, State::Bound | State::Renewing { .. } | State::Rebinding { .. }) {
            actions.extend(self.begin(now));
        }
        actions
    }

    fn lose(&mut self, how: &str) -> Vec<Action> {
        let Some(Held { grant, lease, .. }) = self.held.take() else { return Vec::new() };
        let line = format!("the lease of {} from {} is lost: {how}", grant.address, lease.server);
        vec![Action::Lost, Action::Remove(grant.address), Action::Say(Level::Error, line)]
    }
}
