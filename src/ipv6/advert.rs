//! Router solicitations and advertisements as bytes: RFC 4861, routes by RFC 4191, name servers by RFC 8106.
//!
//! Contract: [`Advertisement::parse`] never panics, whatever the bytes; an advertisement it cannot make sense of is an
//! [`Ignored`], never half of one. What only the kernel can tell, the sender and the hop limit, is its caller's.

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::dhcp::{Ignored, Reader, search};

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const OPTION_SOURCE: u8 = 1;
const OPTION_PREFIX: u8 = 3;
const OPTION_MTU: u8 = 5;
const OPTION_ROUTE: u8 = 24;
const OPTION_DNS: u8 = 25;
const OPTION_SEARCH: u8 = 31;
/// In all lifetimes of 32 bits.
const INFINITE: u32 = u32::MAX;

/// How much a router is preferred to others (RFC 4191 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Rather not.
    Low,
    /// As most are; also what the reserved value means.
    Medium,
    /// Rather this one.
    High,
}

impl Preference {
    fn of(flags: u8) -> Self {
        match flags & 0x18 {
            0x08 => Self::High,
            0x18 => Self::Low,
            _ => Self::Medium,
        }
    }
}

/// A prefix that a router advertises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its first address.
    pub first: Ipv6Addr,
    /// Its length in bits, at most 128.
    pub length: u8,
    /// Addresses with it are on the link.
    pub on_link: bool,
    /// Hosts may make addresses of it.
    pub autonomous: bool,
    /// How long both hold; `None` is for ever.
    pub valid: Option<Duration>,
}

/// What a router says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// DHCPv6 servers have addresses (M).
    pub managed: bool,
    /// DHCPv6 servers have everything but addresses (O).
    pub other: bool,
    /// It can be a default router.
    pub default_router: bool,
    /// Among the default routers.
    pub preference: Preference,
    /// MTU of the link.
    pub mtu: Option<u32>,
    /// Prefixes that hold.
    pub prefixes: Vec<Prefix>,
    /// Where else it leads: first address, length in bits.
    pub routes: Vec<(Ipv6Addr, u8)>,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Domains that complete short names, as they came.
    pub search: Vec<String>,
}

impl Advertisement {
    /// Reads an ICMPv6 message.
    ///
    /// # Errors
    /// Why it is not a usable advertisement.
    pub fn parse(bytes: &[u8]) -> Result<Self, Ignored> {
        let mut reader = Reader(bytes);
        let [kind, code, _, _] = reader.array()?;
        if kind != ADVERTISEMENT || code != 0 {
            return Err(Ignored::OtherTraffic);
        }
        let [_hop_limit, flags] = reader.array()?;
        let lifetime = reader.u16()?;
        let _timers = reader.array::<8>()?;
        let mut advert = Self {
            managed: flags & 0x80 != 0,
            other: flags & 0x40 != 0,
            default_router: lifetime > 0,
            preference: Preference::of(flags),
            mtu: None,
            prefixes: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
        };
        while !reader.0.is_empty() {
            let [kind, units] = reader.array().map_err(|_| Ignored::Options)?;
            // RFC 4861 section 6.1.2: an option without a length spoils all.
            let length = (usize::from(units) * 8).checked_sub(2).ok_or(Ignored::Options)?;
            let value = reader.slice(length).map_err(|_| Ignored::Options)?;
            // One that is too short for its kind counts as missing.
            let _ = advert.option(kind, Reader(value));
        }
        Ok(advert)
    }

    fn option(&mut self, kind: u8, mut value: Reader<'_>) -> Result<(), Ignored> {
        match kind {
            OPTION_PREFIX => {
                let [length, flags] = value.array()?;
                let valid = u32::from_be_bytes(value.array()?);
                let preferred = u32::from_be_bytes(value.array()?);
                let _reserved = value.array::<4>()?;
                let first = Ipv6Addr::from(value.array::<16>()?);
                // RFC 4862 section 5.5.3: the link's own prefix is not to be advertised, nor is one that is preferred
                // longer than it is valid.
                let usable = length <= 128 && valid > 0 && preferred <= valid && !first.is_multicast();
                if usable && !first.is_unicast_link_local() {
                    let valid = (valid != INFINITE).then(|| Duration::from_secs(valid.into()));
                    let first = network(first, length);
                    let (on_link, autonomous) = (flags & 0x80 != 0, flags & 0x40 != 0);
                    self.prefixes.push(Prefix { first, length, on_link, autonomous, valid });
                }
            }
            OPTION_MTU => {
                let _reserved = value.u16()?;
                self.mtu = Some(u32::from_be_bytes(value.array()?));
            }
            OPTION_ROUTE => {
                let [length, _flags] = value.array()?;
                let lifetime = u32::from_be_bytes(value.array()?);
                let mut octets = [0; 16];
                for (octet, byte) in octets.iter_mut().zip(value.0) {
                    *octet = *byte;
                }
                if length <= 128 && usize::from(length).div_ceil(8) <= value.0.len() && lifetime > 0 {
                    self.routes.push((network(Ipv6Addr::from(octets), length), length));
                }
            }
            OPTION_DNS => {
                let _reserved = value.u16()?;
                if value.array()? != [0; 4] {
                    self.dns.extend(value.0.as_chunks().0.iter().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets)));
                }
            }
            OPTION_SEARCH => {
                let _reserved = value.u16()?;
                if value.array()? != [0; 4] {
                    self.search.extend(search::parse(value.0).0);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The question which routers there are, from the port with this MAC, without a checksum.
pub fn solicitation(mac: [u8; 6]) -> Vec<u8> {
    [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0, OPTION_SOURCE, 1][..], &mac].concat()
}

/// The first address with the prefix of this length that an address has.
pub(super) fn network(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(u32::from(128_u8.saturating_sub(length))).unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & mask)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An advertisement with these flags, router lifetime and options.
    pub(crate) fn advertisement(flags: u8, lifetime: u16, options: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![ADVERTISEMENT, 0, 0, 0, 64, flags];
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(options.concat());
        bytes
    }

    /// The option for a prefix.
    pub(crate) fn prefix(first: &str, length: u8, flags: u8, valid: u32) -> Vec<u8> {
        let mut bytes = vec![OPTION_PREFIX, 4, length, flags];
        bytes.extend(valid.to_be_bytes());
        bytes.extend(valid.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(first.parse::<Ipv6Addr>().unwrap().octets());
        bytes
    }

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_router_says_is_read() {
        let route = [&[OPTION_ROUTE, 2, 48, 0][..], &600_u32.to_be_bytes(), &ip("fd01:2:3::").octets()[..8]].concat();
        let dns = [&[OPTION_DNS, 3, 0, 0][..], &600_u32.to_be_bytes(), &ip("fd00::53").octets()].concat();
        let search =
            [&[OPTION_SEARCH, 3, 0, 0][..], &600_u32.to_be_bytes(), b"\x07cluster\x04test\x00\x00\x00"].concat();
        let mtu = [OPTION_MTU, 1, 0, 0, 0, 0, 5, 0xdc];
        let unknown = [250, 1, 0, 0, 0, 0, 0, 0];
        let own = prefix("fd00::7", 64, 0xc0, 120);
        let bytes = advertisement(0xc8, 1800, &[&own, &route, &unknown, &dns, &search, &mtu]);
        let advert = Advertisement::parse(&bytes).unwrap();
        let valid = Some(Duration::from_secs(120));
        let own = Prefix { first: ip("fd00::"), length: 64, on_link: true, autonomous: true, valid };
        let expected = Advertisement {
            managed: true,
            other: true,
            default_router: true,
            preference: Preference::High,
            mtu: Some(1500),
            prefixes: vec![own],
            routes: vec![(ip("fd01:2:3::"), 48)],
            dns: vec![ip("fd00::53")],
            search: vec!["cluster.test".to_owned()],
        };
        assert_eq!(advert, expected);
        let bare = Advertisement::parse(&advertisement(0x18, 0, &[])).unwrap();
        assert!(!bare.managed && !bare.other && !bare.default_router && bare.preference == Preference::Low);
    }

    #[test]
    fn what_does_not_hold_is_left_out_and_what_makes_no_sense_is_refused() {
        let dead = prefix("fd00::", 64, 0xc0, 0);
        let own = prefix("fe80::", 64, 0xc0, 120);
        let long = prefix("fd00::", 129, 0xc0, 120);
        let mut odd = prefix("fd00::", 64, 0xc0, 120);
        odd[8..12].copy_from_slice(&121_u32.to_be_bytes());
        let short = [OPTION_PREFIX, 1, 64, 0xc0, 0, 0, 0, 9];
        let gone = [OPTION_DNS, 3, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let bytes = advertisement(0, 0, &[&dead, &own, &long, &odd, &short, &gone]);
        let advert = Advertisement::parse(&bytes).unwrap();
        assert_eq!((advert.prefixes, advert.dns), (Vec::new(), Vec::new()));

        let good = advertisement(0, 0, &[&prefix("fd00::", 64, 0xc0, u32::MAX)]);
        assert_eq!(Advertisement::parse(&good).unwrap().prefixes[0].valid, None);
        for end in (0..good.len()).filter(|end| *end != 16) {
            assert!(Advertisement::parse(&good[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(Advertisement::parse(&advertisement(0, 0, &[&[1, 0]])), Err(Ignored::Options));
        assert_eq!(Advertisement::parse(&solicitation([2; 6])), Err(Ignored::OtherTraffic));
    }
}
