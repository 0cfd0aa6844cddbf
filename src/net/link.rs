//! Ports, addresses and routes, by rtnetlink. The only place with an async runtime: each verb runs
//! it until the kernel has answered.

use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBond, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::{Handle, LinkBond, LinkMessageBuilder, LinkUnspec, LinkVlan};
use tokio::runtime::{Builder, Runtime};

use super::Bond;
use crate::mac::Hardware;

/// The kernel answers in microseconds, but for drivers that load firmware when they are brought up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the kernel calls a port for IP over InfiniBand.
pub(super) const IPOIB: &str = "ipoib";

/// A network port as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Unset for links that are neither Ethernet nor InfiniBand.
    pub(super) mac: Option<Hardware>,
    /// The address of all on an InfiniBand link, which differs from one network to the next.
    pub(super) broadcast: Option<[u8; 20]>,
    /// The kind of a virtual link, such as `veth`.
    pub(super) kind: Option<String>,
    /// Part of a bridge or bond.
    pub(super) enslaved: bool,
    pub(super) loopback: bool,
    /// Set up by an administrator: us.
    pub(super) up: bool,
    /// Up and with carrier. Not the kernel's idea of running, which is up to a second late both ways.
    pub(super) carrier: bool,
    pub(super) mtu: u32,
    pub(super) max_mtu: Option<u32>,
}

/// How far an IPv6 address is ours (RFC 4862 section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The kernel asks whether somebody has it.
    Asked,
    /// Somebody has it.
    Refused,
    /// It is ours.
    Ours,
}

#[cfg(test)]
impl Link {
    /// A port of a machine that is down.
    pub(super) fn ethernet(index: u32, name: &str, mac: [u8; 6]) -> Self {
        Self {
            index,
            name: name.to_owned(),
            mac: Some(Hardware::Ethernet(mac)),
            broadcast: None,
            kind: None,
            enslaved: false,
            loopback: false,
            up: false,
            carrier: false,
            mtu: 1500,
            max_mtu: None,
        }
    }
}

/// The kernel's ports, addresses and routes in the namespace that [`Links::open`] was called in.
pub(super) struct Links {
    runtime: Runtime,
    handle: Handle,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links")
    }
}

impl Links {
    pub(super) fn open() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = {
            let _context = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            runtime.spawn(connection);
            handle
        };
        Ok(Self { runtime, handle })
    }

    /// All links, as they are now.
    pub(super) fn list(&self) -> io::Result<Vec<Link>> {
        let messages: Vec<LinkMessage> = self.run(self.handle.link().get().execute().try_collect())?;
        Ok(messages.into_iter().map(link).collect())
    }

    pub(super) fn set_up(&self, index: u32) -> io::Result<()> {
        self.run(self.handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute())
    }

    pub(super) fn set_down(&self, index: u32) -> io::Result<()> {
        self.run(self.handle.link().set(LinkUnspec::new_with_index(index).down().build()).execute())
    }

    pub(super) fn set_name(&self, index: u32, name: &str) -> io::Result<()> {
        self.run(self.handle.link().set(LinkUnspec::new_with_index(index).name(name.to_owned()).build()).execute())
    }

    pub(super) fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.run(self.handle.link().set(LinkUnspec::new_with_index(index).mtu(mtu).build()).execute())
    }

    pub(super) fn set_mac(&self, index: u32, mac: Hardware) -> io::Result<()> {
        let bytes = match mac {
            Hardware::Ethernet(mac) => mac.to_vec(),
            Hardware::InfiniBand(address) => address.to_vec(),
        };
        self.run(self.handle.link().set(LinkUnspec::new_with_index(index).address(bytes).build()).execute())
    }

    /// Makes a VLAN on top of a link.
    pub(super) fn add_vlan(&self, name: &str, id: u16, over: u32) -> io::Result<()> {
        self.run(self.handle.link().add(LinkVlan::new(name, over, id).build()).execute())
    }

    /// Makes a bond that has no ports yet.
    pub(super) fn add_bond(&self, bond: &Bond) -> io::Result<()> {
        self.run(self.handle.link().add(bond_message(bond)).execute())
    }

    /// Makes a link, which must be down, a port of a bond.
    pub(super) fn set_controller(&self, index: u32, bond: u32) -> io::Result<()> {
        self.run(self.handle.link().set(LinkUnspec::new_with_index(index).controller(bond).build()).execute())
    }

    /// Makes a port of a bond the one that is used as long as it works.
    pub(super) fn set_primary(&self, bond: u32, port: u32) -> io::Result<()> {
        let message = LinkMessageBuilder::<LinkBond>::new_with_info_kind(InfoKind::Bond).index(bond).primary(port);
        self.run(self.handle.link().change(message.build()).execute())
    }

    pub(super) fn delete(&self, index: u32) -> io::Result<()> {
        self.run(self.handle.link().del(index).execute())
    }

    /// Adds an address, and with it the route to its subnet. False when it was there already.
    pub(super) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<bool> {
        is_new(self.run(self.handle.address().add(index, address, prefix).execute()))
    }

    pub(super) fn delete_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header =
            AddressHeader { family: family(address), prefix_len: prefix, index, ..AddressHeader::default() };
        message.attributes = vec![AddressAttribute::Local(address)];
        self.run(self.handle.address().del(message).execute())
    }

    /// The IPv6 addresses of a port, each with what the kernel knows of others that have it.
    pub(super) fn addresses_6(&self, index: u32) -> io::Result<Vec<(Ipv6Addr, Claim)>> {
        let get = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<AddressMessage> = self.run(get.execute().try_collect())?;
        Ok(messages.into_iter().filter_map(claim).collect())
    }

    /// Adds a route; an unspecified gateway means that the destination is on the link. False when it
    /// was there already.
    pub(super) fn add_route(&self, index: u32, route: (IpAddr, u8, IpAddr)) -> io::Result<bool> {
        is_new(self.run(self.handle.route().add(route_message(index, route)).execute()))
    }

    pub(super) fn delete_route(&self, index: u32, route: (IpAddr, u8, IpAddr)) -> io::Result<()> {
        self.run(self.handle.route().del(route_message(index, route)).execute())
    }

    fn run<T>(&self, request: impl Future<Output = Result<T, rtnetlink::Error>>) -> io::Result<T> {
        self.wait_for(Box::pin(request))
    }

    /// Apart from `run`, and behind a pointer: the runtime's loop is large, and would be compiled for every verb.
    #[inline(never)]
    fn wait_for<T>(&self, request: Pin<Box<dyn Future<Output = Result<T, rtnetlink::Error>> + '_>>) -> io::Result<T> {
        match self.runtime.block_on(async { tokio::time::timeout(PATIENCE, request).await }) {
            Ok(Ok(answer)) => Ok(answer),
            // The other kinds print whole messages, and the code for that is large.
            Ok(Err(rtnetlink::Error::NetlinkError(error))) => Err(error.to_io()),
            Ok(Err(_)) => Err(io::Error::other("netlink answered something unexpected")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "netlink did not answer")),
        }
    }
}

fn is_new(added: io::Result<()>) -> io::Result<bool> {
    match added {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// The message that makes a bond.
fn bond_message(bond: &Bond) -> LinkMessage {
    let options = bond.options.iter().filter_map(|option| {
        let (number, value) = option.attribute.clone()?;
        Some(InfoBond::Other(DefaultNla::new(number, value)))
    });
    let builder = LinkBond::new(&bond.name).set_info_data(InfoData::Bond(options.collect()));
    match bond.mtu {
        Some(mtu) => builder.mtu(mtu.into()).build(),
        None => builder.build(),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_message(index: u32, (destination, prefix, gateway): (IpAddr, u8, IpAddr)) -> RouteMessage {
    let mut message = RouteMessage::default();
    let on_link = gateway.is_unspecified();
    message.header = RouteHeader {
        address_family: family(destination),
        destination_prefix_length: prefix,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Dhcp,
        scope: if on_link { RouteScope::Link } else { RouteScope::Universe },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Oif(index), RouteAttribute::Destination(destination.into())];
    message.attributes.extend((!on_link).then(|| RouteAttribute::Gateway(gateway.into())));
    message
}

fn claim(message: AddressMessage) -> Option<(Ipv6Addr, Claim)> {
    let flags = message.header.flags;
    let address = message.attributes.into_iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V6(address)) => Some(address),
        _ => None,
    })?;
    let claim = if flags.contains(AddressHeaderFlags::Dadfailed) {
        Claim::Refused
    } else if flags.contains(AddressHeaderFlags::Tentative) {
        Claim::Asked
    } else {
        Claim::Ours
    };
    Some((address, claim))
}

fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        broadcast: None,
        kind: None,
        enslaved: false,
        loopback: flags.contains(LinkFlags::Loopback),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: 0,
        max_mtu: None,
    };
    let layer = message.header.link_layer_type;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => {
                link.mac = match layer {
                    LinkLayerType::Ether => bytes.try_into().ok().map(Hardware::Ethernet),
                    LinkLayerType::Infiniband => bytes.try_into().ok().map(Hardware::InfiniBand),
                    _ => None,
                }
            }
            LinkAttribute::Broadcast(bytes) => link.broadcast = bytes.try_into().ok(),
            LinkAttribute::Controller(_) => link.enslaved = true,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            // Zero says that the driver has not told.
            LinkAttribute::MaxMtu(mtu) if mtu > 0 => link.max_mtu = Some(mtu),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind),
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

/// The driver of a port, by the sysfs at `sys` (`/sys`).
pub(super) fn driver(sys: &Path, link: &Link) -> Option<String> {
    // The kernel has a word for IP over InfiniBand, below which there is a card nevertheless.
    if let Some(kind) = link.kind.as_ref().filter(|kind| *kind != IPOIB) {
        return Some(kind.clone());
    }
    let folder = sys.join("class/net").join(&link.name);
    // A sysfs mounted in another network namespace shows other ports, perhaps by the same name.
    let same = fs::read_to_string(folder.join("address"))
        .is_ok_and(|text| link.mac.is_some_and(|ours| text.trim() == ours.whole()));
    let driver = fs::read_link(folder.join("device/driver")).ok().filter(|_| same)?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_route::link::{BondLacpRate, BondMode, BondXmitHashPolicy};
    use rtnetlink::packet_core::Emitable;

    use super::super::BondOption;
    use super::*;

    fn bytes(message: &LinkMessage) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn a_bond_is_asked_for_as_the_library_would() {
        let text = "mode=802.3ad,miimon=100,xmit_hash_policy=layer3+4,lacp_rate=fast,min_links=1,primary=eth0";
        let options = BondOption::parse_all(text).unwrap();
        let bond = Bond { name: "bond0".to_owned(), ports: Vec::new(), options, mtu: Some(9000) };
        let expected = LinkBond::new("bond0")
            .mode(BondMode::Ieee8023Ad)
            .miimon(100)
            .xmit_hash_policy(BondXmitHashPolicy::Layer34)
            .append_info_data(InfoBond::AdLacpRate(BondLacpRate::Fast))
            .min_links(1)
            .mtu(9000)
            .build();
        assert_eq!(bytes(&bond_message(&bond)), bytes(&expected));
    }

    #[test]
    fn addresses_that_a_bond_asks_for_are_nested_as_the_library_would() {
        let options = BondOption::parse_all("arp_interval=100,arp_ip_target=10.0.0.1;10.0.0.2").unwrap();
        let bond = Bond { name: "bond0".to_owned(), ports: Vec::new(), options, mtu: None };
        let targets = vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let expected = LinkBond::new("bond0").arp_interval(100).arp_ip_target(targets).build();
        assert_eq!(bytes(&bond_message(&bond)), bytes(&expected));
    }
}
