//! What the site's DHCP says, whatever server says it.

use std::net::Ipv4Addr;

use crate::config::addresses::Mac;
use crate::config::nodes::{Bmc, Nodes};
use crate::config::site::{Network, Site};

/// What stage 1 says of itself in option 60, and is told in the same option: so it knows the site's own server, and
/// need not wait for other offers.
pub(super) const STAGE_1: &str = "rootstream";

/// What a DHCP server tells whom.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) network: &'a Network,
    pub(super) hosts: Vec<Host>,
    /// Of all nodes and BMCs, for DNS.
    pub(super) names: Vec<(String, Ipv4Addr)>,
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
        let (mut hosts, mut names) = (Vec::new(), Vec::new());
        let mut add = |name: String, mac: Option<Mac>, ip: Ipv4Addr| {
            names.push((name.clone(), ip));
            // A port that is not known yet gets nothing, its name is known all the same.
            hosts.extend(mac.map(|mac| Host { name, mac, ip }));
        };
        for node in nodes.iter() {
            add(node.name.to_string(), node.mac, node.ip);
            if let Some(bmc) = &node.bmc {
                add(Bmc::name_of(&node.name), bmc.mac, bmc.ip);
            }
        }
        Self {
            network: &site.config().network,
            hosts,
            names,
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
}
