//! What the site's DHCP says, whatever server says it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::config::addresses::Mac;
use crate::config::nodes::{Bmc, BootPath, Nodes};
use crate::config::site::{Network, Site};
use crate::menu::{grub, ipxe, origin, pxelinux, syslinux};

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
    /// The way of machines that no node entry names.
    pub(super) way: Way,
    /// The URL of the boot files.
    boot: String,
}

/// A port whose machine has its own address.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
    pub(super) way: Way,
}

/// The ways from a firmware to its kernel that DHCP makes differences between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// BIOS by PXELINUX, UEFI by iPXE.
    Usual,
    Ipxe,
    Grub,
    Syslinux,
}

/// A file for who sends this client architecture (option 93, RFC 4578; 16 is that of UEFI HTTP boot).
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) architecture: u16,
    /// Only where it is iPXE that asks.
    pub(super) ipxe: bool,
    pub(super) file: String,
}

impl Rule {
    /// Whether firmware takes no other answer than one that says that it is about HTTP.
    pub(super) fn is_http(&self) -> bool {
        self.architecture == 16
    }
}

/// What an answer about HTTP has in option 60.
pub(super) const HTTP: &str = "HTTPClient";

impl Way {
    fn of(path: Option<BootPath>) -> Self {
        match path {
            Some(BootPath::Ipxe) => Self::Ipxe,
            Some(BootPath::Grub) => Self::Grub,
            Some(BootPath::Syslinux) => Self::Syslinux,
            Some(BootPath::Pxelinux | BootPath::Http) | None => Self::Usual,
        }
    }

    /// A word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Ipxe => "ipxe",
            Self::Grub => "grub",
            Self::Syslinux => "syslinux",
        }
    }
}

impl<'a> Plan<'a> {
    /// What the site's configuration says.
    pub(super) fn of(site: &'a Site, nodes: &Nodes) -> Self {
        let (mut hosts, mut names) = (Vec::new(), Vec::new());
        let mut add = |name: String, mac: Option<Mac>, ip: Ipv4Addr, path: Option<BootPath>| {
            names.push((name.clone(), ip));
            // A port that is not known yet gets nothing, its name is known all the same.
            hosts.extend(mac.map(|mac| Host { name, mac, ip, way: Way::of(path) }));
        };
        for node in nodes.iter() {
            add(node.name.to_string(), node.mac, node.ip, site.boot_path(Some(node)));
            if let Some(bmc) = &node.bmc {
                add(Bmc::name_of(&node.name), bmc.mac, bmc.ip, site.boot_path(None));
            }
        }
        let boot = format!("{}/boot", origin(site, site.config().http.port));
        Self { network: &site.config().network, hosts, names, way: Way::of(site.boot_path(None)), boot }
    }

    /// The master, which has the boot files and the images.
    pub(super) fn master(&self) -> Ipv4Addr {
        self.network.address.address
    }

    /// How long a lease lasts, in seconds; all ones is for ever (RFC 2131, 3.3).
    pub(super) fn lease(&self) -> u32 {
        self.network.lease.to_string().parse().unwrap_or(u32::MAX)
    }

    /// The ways of nodes that are not the one of other machines.
    pub(super) fn other_ways(&self) -> BTreeSet<Way> {
        self.hosts.iter().map(|host| host.way).filter(|way| *way != self.way).collect()
    }

    /// What firmware gets on this way; the first rule that holds counts. Where a firmware cannot go that way, it goes the
    /// usual one. Network cards with an iPXE ROM say that they are iPXE from the start, so that alone decides nothing.
    pub(super) fn rules(&self, way: Way) -> Vec<Rule> {
        let rule = |architecture: u16, ipxe: bool, file: &str| Rule { architecture, ipxe, file: file.to_owned() };
        let [pxelinux, _] = pxelinux::LOADERS.map(|loader| loader.name);
        let [syslinux, _] = syslinux::LOADERS.map(|loader| loader.name);
        let [grub] = grub::LOADERS.map(|loader| loader.name);
        let [snponly, undionly] = ipxe::LOADERS.map(|loader| loader.name);
        let script = format!("{}/{}", self.boot, ipxe::FIRST);
        let through_ipxe = |architecture: u16, loader: &str| {
            vec![rule(architecture, true, &script), rule(architecture, false, loader)]
        };
        let bios = if way == Way::Ipxe { through_ipxe(0, undionly) } else { vec![rule(0, false, pxelinux)] };
        let uefi = [7, 9].into_iter().flat_map(|architecture| match way {
            Way::Grub => vec![rule(architecture, false, grub)],
            Way::Syslinux => vec![rule(architecture, false, syslinux)],
            Way::Usual | Way::Ipxe => through_ipxe(architecture, snponly),
        });
        let http = Rule { architecture: 16, ipxe: false, file: format!("{}/{snponly}", self.boot) };
        bios.into_iter().chain(uefi).chain([http]).collect()
    }
}
