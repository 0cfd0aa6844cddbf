//! The values that configuration is made of: names, MACs, networks, lease times.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Says what is wrong with a value, as the end of a sentence about it.
pub type Wrong = String;

/// Makes serde read and write a type through its text.
macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = Wrong;

            fn try_from(text: String) -> Result<Self, Wrong> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

pub(crate) use as_text;

/// A name of a node or an image: letters, digits and hyphens, at most 63 (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let good = !text.is_empty()
            && text.len() <= 63
            && text.chars().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is no name: 1 to 63 letters, digits and inner hyphens"))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(Name);

/// A domain name: names joined by dots.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Domain(String);

impl FromStr for Domain {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text.len() > 253 || text.split('.').any(|label| label.parse::<Name>().is_err()) {
            return Err(format!("`{text}` is no domain name such as cluster.example.org"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(Domain);

/// The hardware address of one Ethernet port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// PXELINUX's name of the menu for this port: `01-52-54-00-ac-10-01`.
    pub fn pxelinux(self) -> String {
        format!("01-{}", self.to_string().replace(':', "-"))
    }
}

impl FromStr for Mac {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || format!("`{text}` is no MAC such as 52:54:00:ac:10:01");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        match bytes {
            [0, 0, 0, 0, 0, 0] => Err(format!("`{text}` is no port's MAC")),
            [first, ..] if first & 1 == 1 => Err(format!("`{text}` is a multicast address, no port's MAC")),
            _ => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

as_text!(Mac);

/// An address in its network, such as 172.16.0.254/24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address.
    pub address: Ipv4Addr,
    /// The prefix length of its network, 1 to 30.
    pub prefix: u8,
}

impl Cidr {
    /// The subnet mask.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }

    /// The network's first address, its name.
    pub fn network(self) -> Ipv4Addr {
        self.address & self.mask()
    }

    /// The network's last address.
    pub fn broadcast(self) -> Ipv4Addr {
        self.address | !self.mask()
    }

    /// Whether a machine of this network can have `address`.
    pub fn holds(self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.network() && address != self.network() && address != self.broadcast()
    }
}

impl FromStr for Cidr {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || format!("`{text}` is no address with its prefix, such as 172.16.0.254/24");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let cidr =
            Self { address: address.parse().map_err(|_| wrong())?, prefix: prefix.parse().map_err(|_| wrong())? };
        if !(1..=30).contains(&cidr.prefix) {
            return Err(format!("`{text}`: the prefix must be between 1 and 30"));
        }
        if !cidr.holds(cidr.address) {
            return Err(format!("`{text}` is the network's own or its broadcast address, not a machine's"));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

as_text!(Cidr);

/// Addresses for machines that no node entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange {
    /// The first address.
    pub first: Ipv4Addr,
    /// The last address, not below the first.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// Whether `address` is in it.
    pub fn holds(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

impl FromStr for AddressRange {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || format!("`{text}` is no range such as 172.16.0.200-172.16.0.250");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let range =
            Self { first: first.trim().parse().map_err(|_| wrong())?, last: last.trim().parse().map_err(|_| wrong())? };
        if range.last < range.first { Err(format!("`{text}` ends before it starts")) } else { Ok(range) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

as_text!(AddressRange);

/// How long a lease lasts, in dnsmasq's words: `90s`, `45m`, `1h`, `7d`, `infinite`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LeaseTime(String);

impl Default for LeaseTime {
    fn default() -> Self {
        Self("3600".to_owned())
    }
}

impl FromStr for LeaseTime {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || format!("`{text}` is no lease time: 120s or more, as in 300s, 45m, 1h, 7d, infinite");
        if text == "infinite" {
            return Ok(Self(text.to_owned()));
        }
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u32 = match text.strip_prefix(number) {
            Some("s") => 1,
            Some("m") => 60,
            Some("h") => 3600,
            Some("d") => 86400,
            _ => return Err(wrong()),
        };
        let seconds = number.parse::<u32>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
        // dnsmasq knows no shorter leases.
        if seconds < 120 { Err(wrong()) } else { Ok(Self(seconds.to_string())) }
    }
}

impl fmt::Display for LeaseTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(LeaseTime);

/// A 64-bit IPv6 prefix, such as `fd00:ac10::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix64(Ipv6Addr);

impl Prefix64 {
    /// The prefix as an address whose last 64 bits are zero.
    pub fn address(self) -> Ipv6Addr {
        self.0
    }
}

impl FromStr for Prefix64 {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let address: Option<Ipv6Addr> = text.strip_suffix("/64").and_then(|a| a.parse().ok());
        match address {
            Some(address) if address.segments().iter().skip(4).all(|&s| s == 0) => Ok(Self(address)),
            _ => Err(format!("`{text}` is no prefix such as fd00:ac10::/64")),
        }
    }
}

impl fmt::Display for Prefix64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/64", self.0)
    }
}

as_text!(Prefix64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_in_either_notation() {
        let mac: Mac = "52-54-00-AC-10-01".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ac:10:01");
        assert_eq!(mac.pxelinux(), "01-52-54-00-ac-10-01");
        for wrong in
            ["", "52:54:00:ac:10", "52:54:00:ac:10:01:02", "0:54:00:ac:10:01", "+2:54:00:ac:10:01", "52:54:00:ac:10:0g"]
        {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
        assert!("ff:ff:ff:ff:ff:ff".parse::<Mac>().unwrap_err().contains("multicast"));
        assert!("00:00:00:00:00:00".parse::<Mac>().is_err());
    }

    #[test]
    fn a_network_knows_its_machines() {
        let net: Cidr = "172.16.0.254/24".parse().unwrap();
        assert_eq!(net.network().to_string(), "172.16.0.0");
        assert_eq!(net.broadcast().to_string(), "172.16.0.255");
        assert_eq!(net.mask().to_string(), "255.255.255.0");
        assert!(net.holds("172.16.0.1".parse().unwrap()));
        for outside in ["172.16.0.0", "172.16.0.255", "172.16.1.1"] {
            assert!(!net.holds(outside.parse().unwrap()), "{outside}");
        }
        for wrong in ["172.16.0.254", "172.16.0.0/24", "172.16.0.1/31", "172.16.0.1/0", "x/24"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_leases_names_and_prefixes() {
        assert!("172.16.0.9-172.16.0.8".parse::<AddressRange>().is_err());
        assert!("172.16.0.8-172.16.0.9".parse::<AddressRange>().is_ok());
        assert_eq!("1h".parse::<LeaseTime>().unwrap().to_string(), "3600");
        for wrong in ["", "h", "1", "60s", "1w", "-5m", "99999999d"] {
            assert!(wrong.parse::<LeaseTime>().is_err(), "{wrong}");
        }
        for wrong in ["", "-a", "a-", "a.b", "a b", "a\nb", "../x"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
        assert!("cluster.example.org".parse::<Domain>().is_ok());
        assert!("a..b".parse::<Domain>().is_err());
        assert!("fd00:ac10::/64".parse::<Prefix64>().is_ok());
        assert!("fd00:ac10::1/64".parse::<Prefix64>().is_err());
    }
}
