//! What the site's DHCP says, whatever server says it.

use std::net::Ipv4Addr;

use crate::config::addresses::{AddressRange, Mac};
use crate::config::nodes::Nodes;
use crate::config::site::{Network, Site};

/// What stage 1 says of itself in option 60, and is told in the same option: so it knows the site's own server, and
/// need not wait for other offers.
pub(super) const STAGE_1: &str = "rootstream";

/// What a DHCP server tells whom.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) network: &'a Network,
    pub(super) hosts: Vec<Host>,
    pub(super) loaders: Vec<Loader>,
}

/// A port whose machine has its own address.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
}

/// What firmware of one kind gets by TFTP.
#[derive(Debug)]
pub(super) struct Loader {
    /// Its client architecture (option 93, RFC 4578).
    pub(super) architecture: u16,
    pub(super) file: String,
}

impl<'a> Plan<'a> {
    /// What the site's configuration says.
    pub(super) fn of(site: &'a Site, nodes: &Nodes) -> Self {
        let hosts = nodes.iter().map(|node| Host { name: node.name.to_string(), mac: node.mac, ip: node.ip });
        Self {
            network: &site.config().network,
            hosts: hosts.collect(),
            loaders: vec![Loader { architecture: 0, file: "pxelinux.0".to_owned() }],
        }
    }

    /// The master, which has the boot files and the images.
    pub(super) fn master(&self) -> Ipv4Addr {
        self.network.address.address
    }

    /// How long a lease lasts, in seconds; all ones is for ever (RFC 2131, 3.3).
    pub(super) fn lease(&self) -> u32 {
        self.network.lease.to_string().parse().unwrap_or(u32::MAX)
    }

    /// The addresses for machines that no node entry names, without any that is somebody's already.
    pub(super) fn pools(&self) -> Vec<AddressRange> {
        let Some(AddressRange { first, last }) = self.network.range() else { return Vec::new() };
        let mut taken: Vec<u32> = self.hosts.iter().map(|host| host.ip).map(u32::from).collect();
        taken.extend([Some(self.master()), self.network.gateway()].into_iter().flatten().map(u32::from));
        taken.sort_unstable();
        let mut pools = Vec::new();
        let mut start = u64::from(u32::from(first));
        // Beyond the last one there may be no address.
        let end = u64::from(u32::from(last)) + 1;
        for stop in taken.into_iter().map(u64::from).filter(|ip| *ip < end).chain([end]) {
            pools.extend(pool(start, stop));
            start = start.max(stop + 1);
        }
        pools
    }
}

/// The addresses from `start` to the one before `stop`, if any.
fn pool(start: u64, stop: u64) -> Option<AddressRange> {
    let address = |number: u64| u32::try_from(number).ok().map(Ipv4Addr::from);
    let last = stop.checked_sub(1).filter(|last| *last >= start)?;
    Some(AddressRange { first: address(start)?, last: address(last)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;
    use crate::config::site::Config;

    fn pools(range: &str, taken: &[&str]) -> Vec<String> {
        let text = format!("[network]\ninterface='br0'\naddress='10.0.0.5/24'\ngateway='10.0.0.7'\nrange='{range}'\n");
        let config = Config::read(&Document::of("site.toml", text)).unwrap();
        let host = |ip: &&str| Host {
            name: "n".to_owned(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            ip: ip.parse().unwrap(),
        };
        let plan = Plan { network: &config.network, hosts: taken.iter().map(host).collect(), loaders: Vec::new() };
        plan.pools().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nobody_gets_an_address_that_is_taken() {
        assert_eq!(pools("10.0.0.20-10.0.0.29", &[]), ["10.0.0.20-10.0.0.29"]);
        let taken = ["10.0.0.29", "10.0.0.20", "10.0.0.24", "10.0.0.99"];
        assert_eq!(pools("10.0.0.20-10.0.0.29", &taken), ["10.0.0.21-10.0.0.23", "10.0.0.25-10.0.0.28"]);
        assert_eq!(pools("10.0.0.24-10.0.0.24", &taken), [""; 0]);
    }
}
