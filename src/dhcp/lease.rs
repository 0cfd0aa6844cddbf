//! What a server grants: checked, clamped, and turned into our own terms.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::wire::{Message, option};

/// Shorter leases would be renewed without end.
const SHORTEST: Duration = Duration::from_secs(60);
/// What RFC 2131 section 3.3 calls infinite.
const INFINITE: u32 = u32::MAX;
/// Below this IPv4 does not work (RFC 791).
const SMALLEST_MTU: u16 = 576;
const LONGEST_NAME: usize = 253;

/// What a server granted, checked and clamped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// Our address (`yiaddr`).
    pub address: Ipv4Addr,
    /// Prefix length of the subnet mask.
    pub prefix: u8,
    /// The server's identifier (option 54).
    pub server: Ipv4Addr,
    /// Routes in order: destination, prefix length, gateway (option 121, else option 3). The
    /// gateway 0.0.0.0 says that the destination is on the link.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Domain name (option 15).
    pub domain: Option<String>,
    /// Host name (option 12).
    pub hostname: Option<String>,
    /// Interface MTU (option 26).
    pub mtu: Option<u16>,
    /// NTP servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// Root path (option 17).
    pub root_path: Option<String>,
    /// Boot file (option 67, or the message's own field).
    pub boot_file: Option<String>,
    /// Lease time; `None` is infinite. In seconds, when serialized.
    #[serde(serialize_with = "in_seconds")]
    pub time: Option<Duration>,
}

fn in_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs()).serialize(serializer)
}

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
        if prefix < 31 && [network(address, prefix), broadcast(address, prefix)].contains(&address) {
            return Err(Refusal::SubnetAddress(address, prefix));
        }
        let routes = match message.options.get(&option::CLASSLESS_ROUTES) {
            Some(bytes) => classless_routes(bytes, address, prefix, &mut notes),
            None => default_route(&message.addresses(option::ROUTER), address, prefix)?,
        };
        let hosts = |code| message.addresses(code).into_iter().filter(|a| is_host(*a)).collect::<Vec<_>>();
        let dns = hosts(option::DNS);
        let ntp = hosts(option::NTP);
        let domain = name(message, option::DOMAIN, "domain", &mut notes);
        let hostname = name(message, option::HOST_NAME, "host name", &mut notes);
        let mtu = mtu(message, max_mtu, &mut notes);
        let time = time(message, &mut notes);
        let root_path = message.options.get(&option::ROOT_PATH);
        let root_path = root_path.and_then(|bytes| path(bytes, "root path", &mut notes));
        let boot_file = path(&message.file, "boot file", &mut notes);
        let lease =
            Self { address, prefix, server, routes, dns, domain, hostname, mtu, ntp, root_path, boot_file, time };
        Ok((lease, notes))
    }
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
    let fits = name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    if fits {
        return Some(name);
    }
    notes.push(format!("{what} of {} bytes dropped: \"{}\"", name.len(), shown(&name)));
    None
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
pub(super) fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_default).collect()
}

fn mtu(message: &Message, max_mtu: u16, notes: &mut Vec<String>) -> Option<u16> {
    let mtu = u16::from_be_bytes(message.fixed(option::MTU)?);
    if mtu < SMALLEST_MTU {
        notes.push(format!("MTU {mtu} ignored: below {SMALLEST_MTU}"));
        return None;
    }
    if mtu > max_mtu {
        notes.push(format!("MTU {mtu} clamped to {max_mtu}, the most this port can do"));
    }
    Some(mtu.min(max_mtu))
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

#[cfg(test)]
mod tests {
    use super::super::wire::{Kind, Op};
    use super::*;

    fn offer() -> Message {
        let mut message = Message::request(Kind::Offer, 7, [2, 0, 0, 0, 0, 1])
            .with(option::SERVER, [10, 1, 0, 254])
            .with(option::SUBNET_MASK, [255, 255, 255, 0])
            .with(option::LEASE_TIME, 3600_u32.to_be_bytes());
        message.op = Op::Reply;
        message.yiaddr = Ipv4Addr::new(10, 1, 0, 5);
        message
    }

    fn check(message: &Message) -> (Lease, Vec<String>) {
        Lease::from_message(message, 1500).unwrap()
    }

    #[test]
    fn a_plain_offer_is_taken_as_it_is() {
        let message = offer()
            .with(option::ROUTER, [10, 1, 0, 254])
            .with(option::DNS, [10, 1, 0, 254, 10, 1, 0, 253])
            .with(option::HOST_NAME, *b"n1\0")
            .with(option::DOMAIN, *b"cluster.example")
            .with(option::MTU, [5, 120]);
        let (lease, notes) = check(&message);
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 1, 0, 5), 24));
        assert_eq!(lease.routes, [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 1, 0, 254))]);
        assert_eq!(lease.dns.len(), 2);
        assert_eq!(lease.hostname.as_deref(), Some("n1"));
        assert_eq!(lease.domain.as_deref(), Some("cluster.example"));
        assert_eq!(lease.mtu, Some(1400));
        assert_eq!(lease.time, Some(Duration::from_secs(3600)));
        assert_eq!(serde_json::to_value(&lease).unwrap()["time"], 3600);
    }

    // F9
    #[test]
    fn unusable_addresses_masks_and_routers_are_refused() {
        for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1", "0.1.2.3", "240.0.0.1"] {
            let mut message = offer();
            message.yiaddr = address.parse().unwrap();
            assert_eq!(Lease::from_message(&message, 1500), Err(Refusal::Address(message.yiaddr)), "{address}");
        }
        for address in ["10.1.0.0", "10.1.0.255"] {
            let mut message = offer();
            message.yiaddr = address.parse().unwrap();
            assert_eq!(Lease::from_message(&message, 1500), Err(Refusal::SubnetAddress(message.yiaddr, 24)));
        }
        for mask in [[255, 0, 255, 0], [0, 0, 0, 0], [0, 255, 255, 255]] {
            let refusal = Lease::from_message(&offer().with(option::SUBNET_MASK, mask), 1500).unwrap_err();
            assert_eq!(refusal, Refusal::Mask(mask.into()));
        }
        let refusal = Lease::from_message(&offer().with(option::ROUTER, [10, 2, 0, 1]), 1500).unwrap_err();
        assert_eq!(refusal.to_string(), "router 10.2.0.1 is not on the subnet of 10.1.0.5/24");
        let mut message = offer();
        message.options.remove(&option::SERVER);
        assert_eq!(Lease::from_message(&message, 1500), Err(Refusal::NoServer));
    }

    // F9
    #[test]
    fn the_first_router_on_the_subnet_is_used() {
        let (lease, _) = check(&offer().with(option::ROUTER, [10, 2, 0, 1, 10, 1, 0, 1]));
        assert_eq!(lease.routes, [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 1, 0, 1))]);
    }

    // F8
    #[test]
    fn classless_routes_replace_the_router() {
        let routes = [
            24, 10, 9, 8, 10, 1, 0, 1, // fine
            33, 1, 2, 3, 4, 5, 10, 1, 0, 1, // a prefix of 33 bits
            8, 11, 10, 2, 0, 1, // off the link
            32, 169, 254, 1, 1, 0, 0, 0, 0, // on the link
            0, 169, 254, 1, 1, // through the one before
        ];
        let (lease, notes) = check(&offer().with(option::ROUTER, [10, 1, 0, 254]).with(121, routes));
        let gateway = Ipv4Addr::new(169, 254, 1, 1);
        assert_eq!(
            lease.routes,
            [
                (Ipv4Addr::new(10, 9, 8, 0), 24, Ipv4Addr::new(10, 1, 0, 1)),
                (gateway, 32, Ipv4Addr::UNSPECIFIED),
                (Ipv4Addr::UNSPECIFIED, 0, gateway),
            ]
        );
        assert_eq!(notes.len(), 2, "{notes:?}");
    }

    // F8
    #[test]
    fn classless_routes_cut_short_end_there() {
        for length in 1..8 {
            let routes = [24, 10, 9, 8, 10, 1, 0, 1];
            let (lease, notes) = check(&offer().with(121, &routes[..length]));
            assert!(lease.routes.is_empty());
            assert_eq!(notes, ["classless routes cut short"]);
        }
    }

    // F11
    #[test]
    fn lease_times_are_clamped() {
        let minute = Some(Duration::from_secs(60));
        let hour = Some(Duration::from_secs(3600));
        for (seconds, time) in [(0, minute), (1, minute), (59, minute), (3600, hour), (u32::MAX, None)] {
            let (lease, _) = check(&offer().with(option::LEASE_TIME, seconds.to_be_bytes()));
            assert_eq!(lease.time, time, "{seconds}");
        }
    }

    // F12
    #[test]
    fn mtus_are_ignored_or_clamped() {
        for (given, taken) in [(0_u16, None), (575, None), (576, Some(576)), (1500, Some(1500)), (9000, Some(1500))] {
            let (lease, notes) = check(&offer().with(option::MTU, given.to_be_bytes()));
            assert_eq!(lease.mtu, taken);
            assert_eq!(notes.is_empty(), taken == Some(given), "{notes:?}");
        }
    }

    #[test]
    fn what_to_boot_is_kept_as_text() {
        let url = "http://m/images/c/latest.json";
        let mut message = offer().with(option::ROOT_PATH, [url.as_bytes(), b"\0"].concat());
        message.file = b"pxelinux.0".to_vec();
        let (lease, notes) = check(&message);
        assert_eq!((lease.root_path.as_deref(), lease.boot_file.as_deref()), (Some(url), Some("pxelinux.0")));
        assert!(notes.is_empty(), "{notes:?}");
        for odd in [&b"http://m/a b"[..], b"http://m/\n", b"http://m/\xff", b"a\0b"] {
            message.file = odd.to_vec();
            let (lease, notes) = check(&message.clone().with(option::ROOT_PATH, odd));
            assert_eq!((lease.root_path, lease.boot_file), (None, None));
            assert_eq!(notes.len(), 2);
        }
        assert_eq!(check(&offer().with(option::ROOT_PATH, [0])).0.root_path, None);
    }

    // F16
    #[test]
    fn names_that_could_do_harm_are_dropped() {
        let long = vec![b'a'; 256];
        for name in [&b"n1;reboot"[..], b"$(id)", b"a\0b", b"-rf", b"..", b"a b", b"n\xff", &long] {
            let (lease, notes) = check(&offer().with(option::HOST_NAME, name).with(option::DOMAIN, name));
            assert_eq!((lease.hostname, lease.domain), (None, None), "{name:?}");
            assert_eq!(notes.len(), 2);
            assert!(notes.iter().all(|note| note.len() < 300 && note.is_ascii()), "{notes:?}");
        }
    }
}
