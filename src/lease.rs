//! What a port is configured with, whoever said so: a server, a router or the command line.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

const LONGEST_NAME: usize = 253;

/// An address and what comes with it. Clients that know one family only have leases of its addresses; everything else
/// takes both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lease<A = IpAddr> {
    /// Our address.
    pub address: A,
    /// Prefix length of its subnet.
    pub prefix: u8,
    /// Who granted it; unspecified where nobody was asked.
    pub server: A,
    /// Routes in order: destination, prefix length, gateway. An unspecified gateway (0.0.0.0, ::) says that the
    /// destination is on the link.
    pub routes: Vec<(A, u8, A)>,
    /// Name servers.
    pub dns: Vec<A>,
    /// Domain name.
    pub domain: Option<String>,
    /// Domains that complete short names, in order.
    pub search: Vec<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// MTU of the port.
    pub mtu: Option<u16>,
    /// NTP servers.
    pub ntp: Vec<A>,
    /// Log servers.
    pub log_servers: Vec<A>,
    /// Root path.
    pub root_path: Option<String>,
    /// Boot file.
    pub boot_file: Option<String>,
    /// What only the site's own programs understand, as it came. In hexadecimal, when serialized.
    #[serde(serialize_with = "in_hexadecimal")]
    pub vendor: Vec<u8>,
    /// Lease time; `None` is infinite. In seconds, when serialized.
    #[serde(serialize_with = "in_seconds")]
    pub time: Option<Duration>,
    /// When it is renewed with its own server (T1), and when with any (T2), both from when it was granted and
    /// `renewal` < `rebinding` < `time`. In seconds, when serialized.
    #[serde(serialize_with = "in_seconds")]
    pub renewal: Option<Duration>,
    /// See `renewal`.
    #[serde(serialize_with = "in_seconds")]
    pub rebinding: Option<Duration>,
    /// When it was granted or last renewed, from the kernel's start. In seconds, when serialized.
    #[serde(serialize_with = "in_seconds")]
    pub granted: Option<Duration>,
}

fn in_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs()).serialize(serializer)
}

fn in_hexadecimal<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().serialize(serializer)
}

impl<A> Lease<A> {
    /// A lease for ever that says nothing but the address.
    pub fn new(address: A, prefix: u8, server: A) -> Self {
        Self {
            address,
            prefix,
            server,
            routes: Vec::new(),
            dns: Vec::new(),
            domain: None,
            search: Vec::new(),
            hostname: None,
            mtu: None,
            ntp: Vec::new(),
            log_servers: Vec::new(),
            root_path: None,
            boot_file: None,
            vendor: Vec::new(),
            time: None,
            renewal: None,
            rebinding: None,
            granted: None,
        }
    }

    /// What completes short names: the search list, or without one the domain.
    pub fn search_list(&self) -> Vec<&str> {
        let list = self.search.iter().map(String::as_str);
        if self.search.is_empty() { self.domain.as_deref().into_iter().collect() } else { list.collect() }
    }
}

impl<A: Into<IpAddr>> Lease<A> {
    /// The same, of either family.
    pub fn widened(self) -> Lease {
        let all = |addresses: Vec<A>| addresses.into_iter().map(Into::into).collect();
        Lease {
            address: self.address.into(),
            prefix: self.prefix,
            server: self.server.into(),
            routes: self.routes.into_iter().map(|(to, width, by)| (to.into(), width, by.into())).collect(),
            dns: all(self.dns),
            domain: self.domain,
            search: self.search,
            hostname: self.hostname,
            mtu: self.mtu,
            ntp: all(self.ntp),
            log_servers: all(self.log_servers),
            root_path: self.root_path,
            boot_file: self.boot_file,
            vendor: self.vendor,
            time: self.time,
            renewal: self.renewal,
            rebinding: self.rebinding,
            granted: self.granted,
        }
    }
}

impl Lease {
    /// The name servers as resolv.conf(5) has them: one that is known on its link only stands with the port at that link.
    pub fn name_servers(&self, port: &str) -> Vec<String> {
        let text = |server: &IpAddr| match server {
            IpAddr::V6(address) if address.is_unicast_link_local() => format!("{address}%{port}"),
            _ => server.to_string(),
        };
        self.dns.iter().map(text).collect()
    }

    /// Whether the subnet or a route leads to an address.
    pub fn reaches(&self, host: IpAddr) -> bool {
        let own = (network(self.address, self.prefix), self.prefix);
        let routes = self.routes.iter().map(|(to, width, _)| (*to, *width));
        routes.chain([own]).any(|(to, width)| network(host, width) == to)
    }
}

/// The first address of the subnet that this one is on; a prefix that is too long is the whole address.
pub fn network(address: IpAddr, prefix: u8) -> IpAddr {
    let shift = |bits: u8| u32::from(bits.saturating_sub(prefix));
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(shift(32)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(shift(128)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

/// Whether a name may go into files and commands: letters, digits, `.`, `-` and `_`.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

/// An MTU that a server or router names: none below `smallest`, and no more than the port can have. `notes` has what was
/// changed, a sentence each.
pub(crate) fn checked_mtu(mtu: u16, smallest: u16, max_mtu: u16, notes: &mut Vec<String>) -> Option<u16> {
    if mtu < smallest {
        notes.push(format!("MTU {mtu} ignored: below {smallest}"));
        return None;
    }
    if mtu > max_mtu {
        notes.push(format!("MTU {mtu} clamped to {max_mtu}, the most this port can do"));
    }
    Some(mtu.min(max_mtu))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_of_both_families() {
        for (address, prefix, first) in [
            ("10.1.2.3", 24, "10.1.2.0"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("10.1.2.3", 32, "10.1.2.3"),
            ("fd00:1:2:3:4::5", 64, "fd00:1:2:3::"),
            ("fd00::5", 0, "::"),
            ("fd00::5", 128, "fd00::5"),
        ] {
            assert_eq!(network(ip(address), prefix), ip(first), "{address}/{prefix}");
        }
    }

    // F15
    #[test]
    fn a_lease_leads_to_its_own_family_only() {
        let mut lease = Lease::new(ip("fd00::9"), 64, ip("::"));
        assert!(lease.reaches(ip("fd00::1")) && !lease.reaches(ip("fd01::1")));
        lease.routes = vec![(ip("::"), 0, ip("fe80::1"))];
        assert!(lease.reaches(ip("fd01::1")) && !lease.reaches(ip("10.0.0.1")));
        let four = Lease::new(ip("10.0.0.1"), 0, ip("0.0.0.0"));
        assert!(four.reaches(ip("10.9.9.9")) && !four.reaches(ip("::1")));
    }

    #[test]
    fn the_serialized_form_is_that_of_every_family() {
        let four = Lease::new(std::net::Ipv4Addr::new(10, 0, 0, 5), 24, std::net::Ipv4Addr::new(10, 0, 0, 1));
        let routes = vec![(std::net::Ipv4Addr::UNSPECIFIED, 0, std::net::Ipv4Addr::new(10, 0, 0, 1))];
        let four = Lease { routes, ..four };
        let json = serde_json::to_value(four.clone().widened()).unwrap();
        assert_eq!(json, serde_json::to_value(&four).unwrap());
        assert_eq!(json["routes"][0], serde_json::json!(["0.0.0.0", 0, "10.0.0.1"]));
    }
}
