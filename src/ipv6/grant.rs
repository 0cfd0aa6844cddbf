//! What routers and servers give, put together as a [`Lease`].

use std::net::Ipv6Addr;
use std::time::Duration;

use super::advert::{Advertisement, Preference, Prefix, network};
use super::wire::{Association, Granted, Options, option};
use crate::dhcp::search;
use crate::lease::{self, checked_mtu, is_name};

/// The same as everybody's, with addresses of this family only.
pub type Lease = lease::Lease<Ipv6Addr>;

/// As little as a server can mean: one of 0 s or 1 s would be renewed without end.
const SHORTEST: Duration = Duration::from_secs(5);
/// The same for the time until the first renewal.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(2);
const INFINITE: u32 = u32::MAX;
/// Below this IPv6 does not work (RFC 8200 section 5).
const SMALLEST_MTU: u16 = 1280;
/// Interface identifiers have 64 bits (RFC 4291 section 2.5.1), and so has the prefix that an address is made of.
const HALF: u8 = 64;
/// RFC 4862 section 5.5.3: no single advertisement makes an address end sooner than this.
const TWO_HOURS: Duration = Duration::from_secs(7200);

/// A router and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its address on the link.
    pub from: Ipv6Addr,
    /// The latest that it said.
    pub advert: Advertisement,
}

/// Who gave an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Giver {
    /// Nobody: it is the link's own.
    Nobody,
    /// A router, with the prefix.
    Router(Ipv6Addr),
    /// A server: its identifier and its address.
    Server(Vec<u8>, Ipv6Addr),
}

/// An address and how long it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The address.
    pub address: Ipv6Addr,
    /// The length of the prefix on the link that it has, 128 where none is known.
    pub prefix: u8,
    /// Who gave it.
    pub giver: Giver,
    /// How long, from `since` on; `None` is for ever.
    pub time: Option<Duration>,
    /// When its server is asked for more time, and when any; `renewal` < `rebinding` < `time`.
    pub renewal: Option<Duration>,
    /// See `renewal`.
    pub rebinding: Option<Duration>,
    /// When it was asked for.
    pub since: Duration,
}

impl Grant {
    /// The link's own address.
    pub fn of_link(address: Ipv6Addr, now: Duration) -> Self {
        let giver = Giver::Nobody;
        Self { address, prefix: HALF, giver, time: None, renewal: None, rebinding: None, since: now }
    }

    /// An address made of the first prefix of the best router that is for that, and of the identifier in the link's own
    /// address.
    pub fn of_router(routers: &[Router], link_local: Ipv6Addr, now: Duration) -> Option<Self> {
        preferred(routers).find_map(|router| {
            let makes_addresses = |prefix: &&Prefix| prefix.autonomous && prefix.length == HALF;
            let prefix = router.advert.prefixes.iter().find(makes_addresses)?;
            let identifier = u128::from(link_local) & u128::from(u64::MAX);
            let address = Ipv6Addr::from(u128::from(prefix.first) | identifier);
            let giver = Giver::Router(router.from);
            let time = prefix.valid.map(|time| time.max(SHORTEST));
            let length = if prefix.on_link { HALF } else { 128 };
            Some(Self { address, prefix: length, giver, time, renewal: None, rebinding: None, since: now })
        })
    }

    /// The first address of a server's association that a host can have; the one that we have before others.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of_server(
        association: &Association,
        server: (&[u8], Ipv6Addr),
        held: Option<Ipv6Addr>,
        since: Duration,
        notes: &mut Vec<String>,
    ) -> Result<Self, String> {
        let valid = || association.addresses.iter().filter(|granted| granted.valid > 0);
        let ours = valid().find(|granted| Some(granted.address) == held);
        let Some(granted) = ours.or_else(|| valid().find(|granted| is_host(granted.address))) else {
            return Err(match association.addresses.first() {
                Some(granted) if granted.valid > 0 => format!("{} is not a host's address", granted.address),
                Some(granted) => format!("{} for no time at all", granted.address),
                None => "no address".to_owned(),
            });
        };
        let time = time(granted, notes);
        let renewals = time.map(|time| renewals(association, time, notes));
        Ok(Self {
            address: granted.address,
            prefix: 128,
            giver: Giver::Server(server.0.to_vec(), server.1),
            time,
            renewal: renewals.map(|(renewal, _)| renewal),
            rebinding: renewals.map(|(_, rebinding)| rebinding),
            since,
        })
    }

    /// Notes which prefix on the link it has.
    #[must_use]
    pub fn on_link(mut self, routers: &[Router]) -> Self {
        let all = routers.iter().flat_map(|router| &router.advert.prefixes);
        let near = |prefix: &&Prefix| prefix.on_link && network(self.address, prefix.length) == prefix.first;
        self.prefix = all.filter(near).map(|prefix| prefix.length).max().unwrap_or(self.prefix);
        self
    }

    /// Takes the time that its router gives it now. False when the router says nothing of it.
    pub fn refresh(&mut self, router: &Router, now: Duration) -> bool {
        let ours = |prefix: &&Prefix| {
            prefix.autonomous && prefix.length == HALF && network(self.address, HALF) == prefix.first
        };
        let Some(prefix) = router.advert.prefixes.iter().find(ours) else { return false };
        let left = self.time.map(|time| (self.since + time).saturating_sub(now));
        self.time = match (prefix.valid, left) {
            (Some(valid), Some(left)) if valid <= TWO_HOURS && valid <= left => Some(left.min(TWO_HOURS)),
            (Some(valid), None) => Some(valid.max(TWO_HOURS)),
            (valid, _) => valid.map(|valid| valid.max(SHORTEST)),
        };
        self.since = now;
        true
    }

    /// The lease that it is with all that routers and servers say. The second part is what was left out of that.
    pub fn lease(&self, routers: &[Router], options: Option<&Options>, max_mtu: u16) -> (Lease, Vec<String>) {
        let mut notes = Vec::new();
        let server = match &self.giver {
            Giver::Nobody => Ipv6Addr::UNSPECIFIED,
            Giver::Router(from) | Giver::Server(_, from) => *from,
        };
        let mut lease = Lease::new(self.address, self.prefix, server);
        if let Some(options) = options {
            lease.dns = hosts(options.addresses(option::DNS));
            lease.ntp = time_servers(options);
            lease.search = names(options, option::SEARCH, "search domain", &mut notes);
            lease.boot_file = boot_file(options, &mut notes);
            (lease.hostname, lease.domain) = own_name(options, &mut notes);
        }
        let adverts = || routers.iter().map(|router| &router.advert);
        // RFC 8106 section 5.3.1: what servers say comes first.
        for server in hosts(adverts().flat_map(|advert| advert.dns.iter().copied()).collect()) {
            add(&mut lease.dns, server);
        }
        for name in adverts().flat_map(|advert| &advert.search) {
            if is_name(name) {
                add(&mut lease.search, name.clone());
            }
        }
        let mtus = adverts().filter_map(|advert| advert.mtu).filter_map(|mtu| u16::try_from(mtu).ok());
        lease.mtu = mtus.min().and_then(|mtu| checked_mtu(mtu, SMALLEST_MTU, max_mtu, &mut notes));
        if self.giver != Giver::Nobody {
            lease.routes = routes(routers, (network(self.address, self.prefix), self.prefix));
        }
        (lease.time, lease.renewal, lease.rebinding) = (self.time, self.renewal, self.rebinding);
        (lease, notes)
    }
}

/// The best first; without a sort, whose code is larger than all else here.
fn preferred(routers: &[Router]) -> impl Iterator<Item = &Router> {
    let order = [Preference::High, Preference::Medium, Preference::Low];
    order.into_iter().flat_map(|preference| routers.iter().filter(move |router| router.advert.preference == preference))
}

fn add<T: PartialEq>(list: &mut Vec<T>, one: T) {
    if !list.contains(&one) {
        list.push(one);
    }
}

/// A host can have it, and others can reach it there.
fn is_host(address: Ipv6Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address.to_ipv4_mapped().is_some())
}

fn hosts(addresses: Vec<Ipv6Addr>) -> Vec<Ipv6Addr> {
    addresses.into_iter().filter(|address| is_host(*address)).collect()
}

fn time(granted: &Granted, notes: &mut Vec<String>) -> Option<Duration> {
    if granted.valid == INFINITE {
        return None;
    }
    let time = Duration::from_secs(granted.valid.into());
    if time < SHORTEST {
        notes.push(format!("lease of {} s taken as {} s", granted.valid, SHORTEST.as_secs()));
    }
    Some(time.max(SHORTEST))
}

/// T1 and T2: what the server says where it makes sense, else a half and four fifths (RFC 8415 section 21.4).
fn renewals(association: &Association, time: Duration, notes: &mut Vec<String>) -> (Duration, Duration) {
    let usual = (time / 2, time * 4 / 5);
    if (association.t1, association.t2) == (0, 0) {
        return usual;
    }
    let said = |seconds: u32, usual| if seconds == 0 { usual } else { Duration::from_secs(seconds.into()) };
    let given = (said(association.t1, usual.0), said(association.t2, usual.1));
    if SHORTEST_RENEWAL <= given.0 && given.0 < given.1 && given.1 < time {
        return given;
    }
    notes.push(format!(
        "renewal times ignored (T1 {} s, T2 {} s): they do not fit a lease of {} s",
        association.t1,
        association.t2,
        time.as_secs()
    ));
    usual
}

/// What is on the link, but for the subnet that comes with the address; then where routers lead, the preferred first.
fn routes(routers: &[Router], own: (Ipv6Addr, u8)) -> Vec<(Ipv6Addr, u8, Ipv6Addr)> {
    let mut routes: Vec<(Ipv6Addr, u8, Ipv6Addr)> = Vec::new();
    let prefixes = preferred(routers).flat_map(|router| &router.advert.prefixes).filter(|prefix| prefix.on_link);
    let near = prefixes.map(|prefix| (prefix.first, prefix.length, Ipv6Addr::UNSPECIFIED));
    let far =
        preferred(routers).flat_map(|router| router.advert.routes.iter().map(|(to, width)| (*to, *width, router.from)));
    let default = preferred(routers).filter(|router| router.advert.default_router);
    let default = default.map(|router| (Ipv6Addr::UNSPECIFIED, 0, router.from));
    for route in near.chain(far).chain(default) {
        let to = (route.0, route.1);
        if to != own && routes.iter().all(|known| (known.0, known.1) != to) {
            routes.push(route);
        }
    }
    routes
}

/// Option 56, or the older 31.
fn time_servers(options: &Options) -> Vec<Ipv6Addr> {
    /// The only kind of server in option 56 that is an address of one host (RFC 5908 section 4.1).
    const SERVER_ADDRESS: u16 = 1;
    let nested = options.nested(option::NTP);
    let new = nested.all(SERVER_ADDRESS).filter_map(|bytes| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)));
    let new = hosts(new.collect());
    if new.is_empty() { hosts(options.addresses(option::SNTP)) } else { new }
}

/// Those of a list of names that may go into files.
fn names(options: &Options, code: u16, what: &str, notes: &mut Vec<String>) -> Vec<String> {
    let bytes = options.get(code).unwrap_or_default();
    let (mut names, broken) = search::parse(bytes);
    if broken {
        notes.push(format!("domain search list of {} bytes is broken after {} names", bytes.len(), names.len()));
    }
    names.retain(|name| is_name(name) || drop_said(name, what, notes));
    names
}

fn drop_said(text: &str, what: &str, notes: &mut Vec<String>) -> bool {
    notes.push(format!("{what} of {} bytes dropped: \"{}\"", text.len(), crate::dhcp::shown(text)));
    false
}

/// Option 39: the host's name, and the domain behind it.
fn own_name(options: &Options, notes: &mut Vec<String>) -> (Option<String>, Option<String>) {
    let name = options.get(option::NAME).and_then(|bytes| bytes.split_first());
    // A name that is not the whole one ends without the root (RFC 4704 section 4.2).
    let name = name.map(|(_, name)| search::parse(&[name, &[0]].concat()).0);
    let Some(name) = name.and_then(|names| names.into_iter().next()) else { return (None, None) };
    if !is_name(&name) {
        drop_said(&name, "host name", notes);
        return (None, None);
    }
    match name.split_once('.') {
        Some((host, domain)) => (Some(host.to_owned()), Some(domain.to_owned()).filter(|domain| is_name(domain))),
        None => (Some(name), None),
    }
}

/// Option 59: printable and without spaces.
fn boot_file(options: &Options, notes: &mut Vec<String>) -> Option<String> {
    let text = String::from_utf8_lossy(options.get(option::BOOT_FILE)?).trim_end_matches('\0').to_owned();
    let usable = text.bytes().all(|b| b.is_ascii_graphic()) || drop_said(&text, "boot file", notes);
    (usable && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
