//! The ports of this machine that nodes may be on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use crate::config::addresses::{AddressRange, Cidr};

/// The ports by name, with the IPv4 addresses of each; without the loopback.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn list() -> Result<BTreeMap<String, Vec<Cidr>>> {
    let mut found: BTreeMap<String, Vec<Cidr>> = BTreeMap::new();
    for one in getifaddrs().context("listing network interfaces")? {
        if one.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let addresses = found.entry(one.interface_name).or_default();
        let v4 = |address: Option<SockaddrStorage>| {
            address.as_ref().and_then(SockaddrStorage::as_sockaddr_in).map(|a| a.ip())
        };
        if let (Some(address), Some(mask)) = (v4(one.address), v4(one.netmask)) {
            addresses.extend(with_mask(address, mask));
        }
    }
    Ok(found)
}

/// Nothing where no network of nodes can be there: /31, /32.
fn with_mask(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Cidr> {
    format!("{address}/{}", mask.to_bits().leading_ones()).parse().ok()
}

/// Addresses near the network's end for machines that are no known node; nothing in small networks, or where the master
/// would be among them.
pub(super) fn proposed_range(master: Cidr) -> Option<AddressRange> {
    let end = master.broadcast().to_bits();
    let range = AddressRange { first: Ipv4Addr::from_bits(end - 55), last: Ipv4Addr::from_bits(end - 5) };
    (master.prefix <= 25 && !range.holds(master.address)).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_is_in_the_network() {
        let range = |master: &str| proposed_range(master.parse().unwrap()).map(|range| range.to_string());
        assert_eq!(range("172.16.0.254/24").as_deref(), Some("172.16.0.200-172.16.0.250"));
        assert_eq!(range("10.0.0.1/8").as_deref(), Some("10.255.255.200-10.255.255.250"));
        assert_eq!(range("172.16.0.210/24"), None);
        assert_eq!(range("172.16.0.1/28"), None);
        assert_eq!(with_mask([10, 0, 0, 1].into(), [255, 255, 255, 254].into()), None);
    }

    #[test]
    fn the_loopback_is_no_port_of_nodes() {
        assert!(!list().unwrap().contains_key("lo"));
    }
}
