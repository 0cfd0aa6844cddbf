//! What the administrator says about a port: `ip=`, `rd.route=` and `nameserver=`, and what becomes of a lease by it.
//! No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Settings;
use super::choose;
use super::link::Link;
use crate::dhcp;
use crate::lease::{Lease, network};

/// What one `ip=` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// The port that it is about, by name, MAC or driver; unset: any.
    pub device: Option<String>,
    /// Where addresses come from.
    pub method: Method,
    /// The address that the port has in any case.
    pub address: Option<Address>,
    /// The node's name, whatever a server says.
    pub hostname: Option<String>,
    /// The port's MTU, whatever a server says.
    pub mtu: Option<u16>,
    /// The MAC that the port gets.
    pub mac: Option<[u8; 6]>,
    /// Name servers that are asked before a server's own.
    pub dns: Vec<IpAddr>,
}

/// Where a port's addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `none`, `off`: from the command line alone.
    None,
    /// `dhcp`, `on`, `any`: DHCP for IPv4. With an address on the command line: the rest from there (INFORM).
    Dhcp,
    /// `dhcp6`: DHCPv6.
    Dhcp6,
    /// `auto6`: router advertisements.
    Auto6,
    /// `either6`: router advertisements, and DHCPv6 where they say so.
    Either6,
    /// `link6`: nothing but the link-local address.
    Link6,
}

/// An address and what is reached through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The node's own.
    pub address: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<IpAddr>,
    /// The other end of the link, with its prefix length where one was given; or the boot server, which is what
    /// PXELINUX and the kernel write there.
    pub peer: Option<(IpAddr, Option<u8>)>,
}

/// `rd.route=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads, and the prefix length of that.
    pub to: (IpAddr, u8),
    /// The gateway; an unspecified one is on the link.
    pub gateway: IpAddr,
    /// The port that it is about; unset: the one that the boot takes.
    pub device: Option<String>,
}

impl Ip {
    /// No more than the method, for any port.
    pub fn new(method: Method) -> Self {
        Self { device: None, method, address: None, hostname: None, mtu: None, mac: None, dns: Vec::new() }
    }

    /// It is about IPv6.
    pub(crate) fn is_version_6(&self) -> bool {
        match self.method {
            Method::None => self.address.as_ref().is_some_and(|given| given.address.is_ipv6()),
            Method::Dhcp => false,
            Method::Dhcp6 | Method::Auto6 | Method::Either6 | Method::Link6 => true,
        }
    }
}

impl Address {
    /// Whether a port can have it, and the gateway be reached.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (own, prefix) = (self.address, self.prefix);
        match own {
            IpAddr::V4(own) => dhcp::check_address(own, prefix).map_err(|refusal| refusal.to_string())?,
            IpAddr::V6(own) if !is_host(own) => return Err(format!("{own} is not a host's address")),
            IpAddr::V6(own) if own.is_unicast_link_local() => {
                return Err(format!(
                    "{own} is link-local: a port gives itself such an address, and no image is behind it"
                ));
            }
            IpAddr::V6(_) => {}
        }
        let Some(gateway) = self.gateway else { return Ok(()) };
        if gateway == own {
            return Err(format!("the gateway {gateway} is the address itself"));
        }
        // On a link of two, the gateway is the other end whatever its address.
        if !self.is_near(gateway) && prefix < width(own) - 1 {
            return Err(format!("the gateway {gateway} is not on the subnet of {own}/{prefix}"));
        }
        Ok(())
    }

    /// Reached without a gateway, through the address or the peer.
    fn is_near(&self, other: IpAddr) -> bool {
        matches!(other, IpAddr::V6(other) if other.is_unicast_link_local())
            || network(self.address, self.prefix) == network(other, self.prefix)
            || self.peer_route().is_some_and(|(peer, width)| network(other, width) == peer)
    }

    /// The other end's subnet, where it is not the address's own. A peer without a prefix length beside a real netmask
    /// is the boot server, to which the usual routes lead.
    fn peer_route(&self) -> Option<(IpAddr, u8)> {
        let (peer, given) = self.peer?;
        let given = given.or_else(|| (self.prefix == width(peer)).then_some(self.prefix))?;
        Some((network(peer, given), given))
    }

    /// Routes in the order in which they can be made: destination, prefix length, gateway, as in a [`Lease`].
    pub(crate) fn routes(&self) -> Vec<(IpAddr, u8, IpAddr)> {
        let nowhere = unspecified(self.address);
        let mut routes: Vec<_> = self.peer_route().into_iter().map(|(to, width)| (to, width, nowhere)).collect();
        if let Some(gateway) = self.gateway {
            if !self.is_near(gateway) {
                routes.push((gateway, width(gateway), nowhere));
            }
            routes.push((nowhere, 0, gateway));
        }
        routes
    }
}

/// Bits of an address of this family.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether a host can have it.
fn is_host(address: Ipv6Addr) -> bool {
    let none = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !none && address.to_ipv4_mapped().is_none()
}

/// No address, of the family of this one.
pub(crate) fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}

/// What the command line says about one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) ip: Ip,
    routes: Vec<Route>,
    nameservers: Vec<IpAddr>,
}

impl Said {
    /// About this port; nothing when it is not to be tried. `made` says that it is a VLAN or bond of ours.
    pub(super) fn about(settings: &Settings, link: &Link, driver: Option<&str>, made: bool) -> Option<Self> {
        let called = |word: &String| choose::is_called(link, driver, word);
        let named = settings.ip.iter().find(|ip| ip.device.as_ref().is_some_and(called));
        let any = settings.ip.iter().find(|ip| ip.device.is_none());
        let wanted = if !settings.ports.is_empty() {
            choose::is_wanted(link, driver, &settings.ports)
        } else {
            (settings.ip.is_empty() || any.is_some()) && (made || choose::is_wanted(link, driver, &[]))
        };
        let can = link.mac.is_some() && !link.enslaved && !link.loopback;
        if !can || (named.is_none() && !wanted) {
            return None;
        }
        let ip = named.or(any).cloned().unwrap_or_else(|| Ip::new(Method::Dhcp));
        let routes = settings.routes.iter().filter(|route| route.device.as_ref().is_none_or(called)).cloned().collect();
        Some(Self { ip, routes, nameservers: settings.nameservers.clone() })
    }

    /// The address that the port has, with its prefix length, while DHCP is asked for the rest.
    pub(super) fn informed(&self) -> Option<(Ipv4Addr, u8)> {
        let given = self.ip.address.as_ref().filter(|_| self.ip.method == Method::Dhcp)?;
        match given.address {
            IpAddr::V4(address) => Some((address, given.prefix)),
            IpAddr::V6(_) => None,
        }
    }

    /// All that the port gets, where no server is asked.
    pub(super) fn lease(&self) -> Option<Lease> {
        let given = self.ip.address.as_ref().filter(|_| self.ip.method == Method::None)?;
        Some(self.amend(Lease::new(given.address, given.prefix, unspecified(given.address))))
    }

    /// A lease, with what the command line knows better.
    pub(super) fn amend(&self, mut lease: Lease) -> Lease {
        let own = self.ip.address.iter().flat_map(Address::routes);
        let more = self.routes.iter().map(|route| (route.to.0, route.to.1, route.gateway));
        let routes: Vec<_> = own.chain(more).collect();
        lease.routes.retain(|(to, width, _)| routes.iter().all(|route| (route.0, route.1) != (*to, *width)));
        lease.routes.extend(routes);
        let mut servers: Vec<IpAddr> = Vec::new();
        for server in self.ip.dns.iter().chain(&self.nameservers).copied().chain(lease.dns) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        lease.dns = servers;
        lease.hostname = self.ip.hostname.clone().or(lease.hostname);
        lease.mtu = self.ip.mtu.or(lease.mtu);
        lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Config;

    fn link(name: &str, kind: Option<&str>) -> Link {
        Link { kind: kind.map(str::to_owned), ..Link::ethernet(2, name, [0x52, 0x54, 0, 0xac, 0x10, 1]) }
    }

    fn settings(line: &str) -> Settings {
        let parsed = crate::cmdline::parse(&format!("rootstream.image=http://m/i.tar {line}"));
        assert_eq!(parsed.mistakes, Vec::<String>::new());
        let Config { net, .. } = parsed.config;
        net
    }

    fn said(line: &str, name: &str) -> Option<Said> {
        Said::about(&settings(line), &link(name, None), Some("e1000e"), false)
    }

    #[test]
    fn each_port_has_the_line_that_names_it() {
        let fixed = "ip=10.0.0.5::10.0.0.1:24:n1:eth1:none";
        assert_eq!(said("", "eth0").unwrap().ip, Ip::new(Method::Dhcp));
        assert_eq!(said("ip=dhcp", "eth0").unwrap().ip, Ip::new(Method::Dhcp));
        assert_eq!(said("ip=eth1:dhcp", "eth0"), None);
        assert_eq!(said(fixed, "eth0"), None);
        assert_eq!(said(fixed, "eth1").unwrap().ip.method, Method::None);
        assert_eq!(said(&format!("ip=dhcp {fixed}"), "eth0").unwrap().ip.method, Method::Dhcp);
        assert_eq!(said(&format!("ip=dhcp {fixed}"), "eth1").unwrap().ip.method, Method::None);
        assert_eq!(said(&format!("{fixed} rootstream.net=e1000e"), "eth0").unwrap().ip.method, Method::Dhcp);
        assert_eq!(said("ip=52-54-00-ac-10-01:dhcp:1400", "eth0").unwrap().ip.mtu, Some(1400));
        assert_eq!(said("rootstream.net=eth1", "eth0"), None);
        let vlan = link("vlan5", Some("vlan"));
        assert_eq!(Said::about(&settings(""), &vlan, Some("vlan"), false), None);
        assert!(Said::about(&settings(""), &vlan, Some("vlan"), true).is_some());
        assert!(Said::about(&settings("ip=vlan5:dhcp"), &vlan, Some("vlan"), true).is_some());
        assert_eq!(Said::about(&settings("ip=eth0:dhcp"), &vlan, Some("vlan"), true), None);
    }

    #[test]
    fn an_address_without_dhcp_is_a_lease_for_ever() {
        let line = "ip=10.0.0.5::10.0.0.1:24:n1:eth0:none:10.0.0.2 nameserver=10.0.0.3 nameserver=10.0.0.2 \
                    rd.route=10.9.0.0/16:10.0.0.7 rd.route=10.8.0.0/16:10.0.0.8:eth1";
        let lease = said(line, "eth0").unwrap().lease().unwrap();
        assert_eq!((lease.address, lease.prefix, lease.time), (Ipv4Addr::new(10, 0, 0, 5).into(), 24, None));
        assert_eq!(lease.server, Ipv4Addr::UNSPECIFIED);
        assert_eq!(lease.dns, [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)]);
        assert_eq!(lease.hostname.as_deref(), Some("n1"));
        let routes: Vec<String> = lease.routes.iter().map(|(to, width, by)| format!("{to}/{width} {by}")).collect();
        assert_eq!(routes, ["0.0.0.0/0 10.0.0.1", "10.9.0.0/16 10.0.0.7"]);
        assert_eq!(said("ip=dhcp", "eth0").unwrap().lease(), None);
    }

    #[test]
    fn the_command_line_knows_better_than_a_server() {
        let said =
            said("ip=::::mine:eth0:dhcp:1400 nameserver=10.0.0.3 rd.route=10.9.0.0/16:10.0.0.7", "eth0").unwrap();
        let (host, gateway) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 1));
        let lease = Lease {
            hostname: Some("theirs".to_owned()),
            mtu: Some(9000),
            dns: vec![gateway],
            routes: vec![(Ipv4Addr::new(10, 9, 0, 0), 16, gateway), (Ipv4Addr::UNSPECIFIED, 0, gateway)],
            ..Lease::new(host, 24, gateway)
        };
        let amended = said.amend(lease.widened());
        assert_eq!((amended.hostname.as_deref(), amended.mtu), (Some("mine"), Some(1400)));
        assert_eq!(amended.dns, [Ipv4Addr::new(10, 0, 0, 3), gateway]);
        let routes: Vec<String> = amended.routes.iter().map(|(to, width, by)| format!("{to}/{width} {by}")).collect();
        assert_eq!(routes, ["0.0.0.0/0 10.0.0.1", "10.9.0.0/16 10.0.0.7"]);
        assert_eq!(said.informed(), None);
    }
}
