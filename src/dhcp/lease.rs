//! What a server grants: checked, clamped, and turned into a [`Lease`].

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::search;
use super::wire::{Message, option};
use crate::lease::{checked_mtu, is_name};

/// As little as a server can mean: one of 0 s or 1 s would be renewed without end.
const SHORTEST: Duration = Duration::from_secs(5);
/// The same for the time until the first renewal.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(2);
/// What RFC 2131 section 3.3 calls infinite.
const INFINITE: u32 = u32::MAX;
/// Below this IPv4 does not work (RFC 791).
const SMALLEST_MTU: u16 = 576;

/// What a DHCPv4 server granted, checked and clamped.
pub type Lease = crate::lease::Lease<Ipv4Addr>;

/// Why an offer cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `yiaddr` is no address that a host can have.
    Address(Ipv4Addr),
    /// `yiaddr` names its whole subnet.
    SubnetAddress(Ipv4Addr, u8),
    /// The bits of option 1 are not ones followed by zeros.
    Mask(Ipv4Addr),
    /// None of the routers in option 3 is on our subnet.
    Router(Ipv4Addr, Ipv4Addr, u8),
    /// No option 54, so it cannot be asked for.
    NoServer,
    /// Another address than the one that more time was asked for.
    OtherAddress(Ipv4Addr, Ipv4Addr),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address} is not a host's address"),
            Self::SubnetAddress(address, prefix) => {
                write!(f, "{address}/{prefix} is the subnet's own or its broadcast address")
            }
            Self::Mask(mask) => write!(f, "subnet mask {mask} is not contiguous"),
            Self::Router(router, address, prefix) => {
                write!(f, "router {router} is not on the subnet of {address}/{prefix}")
            }
            Self::NoServer => write!(f, "no server identifier"),
            Self::OtherAddress(address, held) => write!(f, "{address} instead of {held}, which was asked for"),
        }
    }
}

impl Lease {
    /// Reads the lease out of an OFFER or ACK for a port whose MTU can be `max_mtu`.
    ///
    /// The second part says, one sentence each, what was left out or changed.
    ///
    /// # Errors
    /// The offer is unusable.
    pub fn from_message(message: &Message, max_mtu: u16) -> Result<(Self, Vec<String>), Refusal> {
        let mut notes = Vec::new();
        let address = message.yiaddr;
        let server = message.address(option::SERVER).filter(|s| is_host(*s)).ok_or(Refusal::NoServer)?;
        if !is_host(address) {
            return Err(Refusal::Address(address));
        }
        let prefix = match message.address(option::SUBNET_MASK) {
            Some(mask) => prefix_of(mask).ok_or(Refusal::Mask(mask))?,
            None => {
                let prefix = class_prefix(address);
                notes.push(format!("no subnet mask: /{prefix} by the address's class"));
                prefix
            }
        };
        check_address(address, prefix)?;
        let routes = match message.options.get(&option::CLASSLESS_ROUTES) {
            Some(bytes) => classless_routes(bytes, address, prefix, &mut notes),
            None => default_route(&message.addresses(option::ROUTER), address, prefix)?,
        };
        let hosts = |code| message.addresses(code).into_iter().filter(|a| is_host(*a)).collect::<Vec<_>>();
        let mut lease = Self::new(address, prefix, server);
        lease.routes = routes;
        lease.dns = hosts(option::DNS);
        lease.ntp = hosts(option::NTP);
        lease.log_servers = hosts(option::LOG_SERVERS);
        lease.domain = name(message, option::DOMAIN, "domain", &mut notes);
        lease.search = search_list(message, &mut notes);
        lease.hostname = name(message, option::HOST_NAME, "host name", &mut notes);
        lease.mtu = mtu(message, max_mtu, &mut notes);
        let root_path = message.options.get(&option::ROOT_PATH);
        lease.root_path = root_path.and_then(|bytes| path(bytes, "root path", &mut notes));
        lease.boot_file = path(&message.file, "boot file", &mut notes);
        lease.vendor = message.options.get(&option::VENDOR).cloned().unwrap_or_default();
        lease.time = time(message, &mut notes);
        if let Some(time) = lease.time {
            let (renewal, rebinding) = renewals(message, time, &mut notes);
            (lease.renewal, lease.rebinding) = (Some(renewal), Some(rebinding));
        }
        Ok((lease, notes))
    }
}

/// Whether a host can have this address on such a subnet.
pub(crate) fn check_address(address: Ipv4Addr, prefix: u8) -> Result<(), Refusal> {
    if !is_host(address) {
        return Err(Refusal::Address(address));
    }
    if prefix < 31 && [network(address, prefix), broadcast(address, prefix)].contains(&address) {
        return Err(Refusal::SubnetAddress(address, prefix));
    }
    Ok(())
}

fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

/// The prefix length of a contiguous, non-empty mask.
fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    (ones > 0 && bits.count_ones() == ones).then(|| u8::try_from(ones).ok()).flatten()
}

fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        _ => 24,
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// The first address of the subnet that this one is on.
fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & mask(prefix))
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) | !mask(prefix))
}

/// The route through the first router on our subnet, when any router was given.
fn default_route(
    routers: &[Ipv4Addr],
    address: Ipv4Addr,
    prefix: u8,
) -> Result<Vec<(Ipv4Addr, u8, Ipv4Addr)>, Refusal> {
    let Some(first) = routers.first() else { return Ok(Vec::new()) };
    let near = |router: &&Ipv4Addr| **router != address && network(**router, prefix) == network(address, prefix);
    match routers.iter().find(near) {
        Some(router) => Ok(vec![(Ipv4Addr::UNSPECIFIED, 0, *router)]),
        None => Err(Refusal::Router(*first, address, prefix)),
    }
}

/// Option 121 (RFC 3442). A route that cannot work is dropped alone.
fn classless_routes(
    mut bytes: &[u8],
    address: Ipv4Addr,
    prefix: u8,
    notes: &mut Vec<String>,
) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    let mut routes: Vec<(Ipv4Addr, u8, Ipv4Addr)> = Vec::new();
    while let Some((width, rest)) = bytes.split_first() {
        let significant = usize::from(*width).div_ceil(8);
        let Some((prefix_bytes, rest)) = rest.split_at_checked(significant) else {
            notes.push("classless routes cut short".to_owned());
            break;
        };
        let Some((gateway, rest)) = rest.split_first_chunk::<4>() else {
            notes.push("classless routes cut short".to_owned());
            break;
        };
        bytes = rest;
        if *width > 32 {
            notes.push(format!("route with a prefix of {width} bits dropped"));
            continue;
        }
        let mut octets = [0; 4];
        for (octet, byte) in octets.iter_mut().zip(prefix_bytes) {
            *octet = *byte;
        }
        let destination = network(Ipv4Addr::from(octets), *width);
        let gateway = Ipv4Addr::from(*gateway);
        let on_link = gateway.is_unspecified()
            || network(gateway, prefix) == network(address, prefix)
            || routes.iter().any(|(to, width, by)| by.is_unspecified() && network(gateway, *width) == *to);
        if !on_link || gateway == address {
            notes.push(format!("route to {destination}/{width} dropped: its gateway {gateway} is not on the link"));
            continue;
        }
        routes.push((destination, *width, gateway));
    }
    routes
}

/// A name of letters, digits, `.`, `-` and `_`, as it may go into files and commands.
fn name(message: &Message, code: u8, what: &str, notes: &mut Vec<String>) -> Option<String> {
    let name = message.text(code)?;
    if is_name(&name) {
        return Some(name);
    }
    notes.push(format!("{what} of {} bytes dropped: \"{}\"", name.len(), shown(&name)));
    None
}

fn search_list(message: &Message, notes: &mut Vec<String>) -> Vec<String> {
    let bytes = message.options.get(&option::SEARCH).map(Vec::as_slice).unwrap_or_default();
    let (mut names, broken) = search::parse(bytes);
    if broken {
        notes.push(format!("domain search list of {} bytes is broken after {} names", bytes.len(), names.len()));
    }
    names.retain(|name| {
        let fits = is_name(name);
        if !fits {
            notes.push(format!("search domain of {} bytes dropped: \"{}\"", name.len(), shown(name)));
        }
        fits
    });
    names
}

/// The name of something to boot, without the NULs that some servers end it with: printable and without spaces.
fn path(bytes: &[u8], what: &str, notes: &mut Vec<String>) -> Option<String> {
    let text = String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    if text.is_empty() || text.bytes().all(|b| b.is_ascii_graphic()) {
        return (!text.is_empty()).then_some(text);
    }
    notes.push(format!("{what} of {} bytes dropped: \"{}\"", text.len(), shown(&text)));
    None
}

/// Enough of a hostile text to recognize it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_default).collect()
}

fn mtu(message: &Message, max_mtu: u16, notes: &mut Vec<String>) -> Option<u16> {
    checked_mtu(u16::from_be_bytes(message.fixed(option::MTU)?), SMALLEST_MTU, max_mtu, notes)
}

fn time(message: &Message, notes: &mut Vec<String>) -> Option<Duration> {
    let seconds = u32::from_be_bytes(message.fixed(option::LEASE_TIME).unwrap_or([0xff; 4]));
    if seconds == INFINITE {
        return None;
    }
    let time = Duration::from_secs(seconds.into());
    if time < SHORTEST {
        notes.push(format!("lease of {seconds} s taken as {} s", SHORTEST.as_secs()));
    }
    Some(time.max(SHORTEST))
}

/// T1 and T2: what the server says where it makes sense, else a half and seven eighths of the lease (RFC 2131 section
/// 4.4.5).
fn renewals(message: &Message, time: Duration, notes: &mut Vec<String>) -> (Duration, Duration) {
    let said = |code| message.fixed(code).map(|bytes| Duration::from_secs(u32::from_be_bytes(bytes).into()));
    let usual = (time / 2, time * 7 / 8);
    let (renewal, rebinding) = (said(option::RENEWAL_TIME), said(option::REBINDING_TIME));
    // One of them alone may not fit the other's usual value.
    let given = match (renewal, rebinding) {
        (None, None) => return usual,
        (Some(renewal), Some(rebinding)) => (renewal, rebinding),
        (Some(renewal), None) => (renewal, usual.1.max((renewal + time) / 2)),
        (None, Some(rebinding)) => (usual.0.min(rebinding / 2), rebinding),
    };
    if SHORTEST_RENEWAL <= given.0 && given.0 < given.1 && given.1 < time {
        return given;
    }
    let shown = |said: Option<Duration>| said.map_or("none".to_owned(), |said| format!("{} s", said.as_secs()));
    notes.push(format!(
        "renewal times ignored (T1 {}, T2 {}): they do not fit a lease of {} s",
        shown(renewal),
        shown(rebinding),
        time.as_secs()
    ));
    usual
}

#[cfg(test)]
mod tests;
