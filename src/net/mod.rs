//! The network: from bare ports to one port with a lease.
//!
//! - `link`: ports, addresses and routes, by rtnetlink.
//! - `packet`: raw sockets that see DHCP replies.
//! - `arp`, `neighbour`: whether somebody has an address already.
//! - `firmware`: what servers are told of the machine.
//! - `statics`: what the administrator says about a port.
//! - `rename`: what ports are called.
//! - `vlan`, `bond`: what is to be made on top of ports; `stack` makes it.
//! - `lldp`: what the switch says about a port.
//! - `port`: one port in the race, with the `engine` that gets it a lease.
//! - `four`: DHCP for IPv4.
//! - `fixed`: an IPv4 address of the command line.
//! - `six`: IPv6, from `routers` and servers; `addresses` has the kernel's verdict on addresses, `switches` keep it from
//!   configuring the port itself.
//! - `wait`: waiting for frames.
//! - `choose`: which ports to try, and which lease to keep.
//! - `destination`: whether a lease leads to the image.
//! - `race`: carrier and DHCP on all ports at once, until one has a lease.
//! - `verdict`: why none has.
//! - `conflict`: whether an address of the command line is somebody else's.
//! - `configure`: the lease's address, routes and MTU.
//! - `keep`: renewal of the lease while the image comes.
//! - `resolve`: host names, by the lease's servers.
//! - [`namespace`]: whether this is the machine's own network.

mod addresses;
mod arp;
mod bond;
mod choose;
mod configure;
mod conflict;
mod defence;
mod destination;
mod engine;
mod firmware;
mod fixed;
mod four;
#[cfg(test)]
mod infiniband_tests;
mod keep;
mod link;
mod lldp;
pub mod namespace;
mod neighbour;
mod packet;
mod port;
mod race;
mod rename;
mod resolve;
mod routers;
mod six;
mod stack;
mod statics;
mod switches;
mod verdict;
mod vlan;
mod wait;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::failure::Advise;
use crate::image::Resolve;
use crate::lease::Lease;
use crate::lldp::Neighbour;
use crate::mac::Hardware;
use crate::say;
pub use bond::{Bond, BondOption};
pub use destination::Destination;
use keep::{Keeper, Kept};
use link::Links;
use port::Port;
pub use rename::Rename;
use stack::Stack;
pub use stack::{Device, Kind, Lower};
pub(crate) use statics::unspecified;
pub use statics::{Address, Ip, Method, Route};
pub use vlan::Vlan;

/// How long a sent frame may need to leave the port before the port is taken down.
const LINGER: Duration = Duration::from_millis(20);

/// How the network is brought up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `rootstream.net=`: ports to try, by name, MAC or driver; empty means all, or those that `ip=` names.
    pub ports: Vec<String>,
    /// `BOOTIF=`: the MAC of the port that the firmware booted from, as [`Hardware::mac`] has it.
    pub bootif: Option<[u8; 6]>,
    /// `rootstream.clientid=`: what option 61 carries.
    pub client_id: ClientId,
    /// `rootstream.carrier=`: how long to wait for any port to have carrier.
    pub carrier: Duration,
    /// `rootstream.dhcp=`: how long to wait for a lease after the first carrier.
    pub dhcp: Duration,
    /// `nameserver=`: used before the lease's servers.
    pub nameservers: Vec<IpAddr>,
    /// `ip=`, each line for its port; none means DHCP on every port.
    pub ip: Vec<Ip>,
    /// `rd.route=`: routes beside those of the lease.
    pub routes: Vec<Route>,
    /// `bond=`: bonds to make.
    pub bonds: Vec<Bond>,
    /// `ifname=`: what ports are to be called.
    pub names: Vec<Rename>,
    /// `vlan=`: VLANs to make, on ports or on those bonds.
    pub vlans: Vec<Vlan>,
    /// Where the image is: a port with a way to it is preferred for a moment.
    pub destination: Destination,
}

/// What DHCP option 61 carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientId {
    /// 01 and the port's MAC, as PXE ROMs and stage 2 can be told to use too. Over InfiniBand what the ROMs of its most
    /// common cards send, which is as RFC 4390 wants it: ff, an IAID of 0, and a DUID-EN of Mellanox with the port's GUID.
    Mac,
    /// No option 61; servers key on `chaddr`. Over InfiniBand as `Mac`: there is no `chaddr`.
    None,
    /// RFC 4361: ff, an IAID and a DUID-LL made of the MAC or the GUID.
    Duid,
    /// These bytes.
    Bytes(Vec<u8>),
}

impl ClientId {
    /// The option's value for the port with this hardware address.
    pub(crate) fn option(&self, mac: Hardware) -> Option<Vec<u8>> {
        let [_, _, iaid @ ..] = mac.mac();
        // Type 255, the IAID, DUID type 3 (link-layer address), and the kind of link.
        let duid = |kind, address: &[u8]| [&[255], &iaid[..], &[0, 3, 0, kind], address].concat();
        match (self, mac) {
            (Self::Bytes(bytes), _) => Some(bytes.clone()),
            (Self::Mac, Hardware::Ethernet(mac)) => Some([&[1], &mac[..]].concat()),
            (Self::None, Hardware::Ethernet(_)) => None,
            (Self::Duid, Hardware::Ethernet(mac)) => Some(duid(1, &mac)),
            (Self::Duid, Hardware::InfiniBand(_)) => Some(duid(32, &mac.guid())),
            // There must be one. Type 255, IAID 0, DUID type 2 (by a manufacturer) of Mellanox.
            (Self::Mac | Self::None, Hardware::InfiniBand(_)) => {
                Some([&[255, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0][..], &mac.guid()].concat())
            }
        }
    }

    /// The machine and the port with this MAC as DHCPv6 names them: DUID and IAID. What IPv4 is told as RFC 4361 has it is
    /// told here too; otherwise they are made of the MAC, which is what a site knows of its nodes. The UUID that firmware
    /// may use instead comes in two byte orders, and with IAIDs of many kinds.
    pub(crate) fn duid(&self, mac: [u8; 6]) -> (Vec<u8>, u32) {
        let [_, _, iaid @ ..] = mac;
        let own = u32::from_be_bytes(iaid);
        match self {
            Self::Bytes(bytes) => match bytes.as_slice() {
                [255, a, b, c, d, duid @ ..] if !duid.is_empty() => {
                    (duid.to_vec(), u32::from_be_bytes([*a, *b, *c, *d]))
                }
                duid => (duid.to_vec(), own),
            },
            Self::Mac | Self::None | Self::Duid => ([&[0, 3, 0, 1], &mac[..]].concat(), own),
        }
    }
}

/// A port that is up and configured with a lease, which is renewed in the background.
#[derive(Debug)]
pub struct Network {
    /// Kernel name of the port.
    pub port: String,
    /// Its MAC, or what InfiniBand has in its place.
    pub mac: Hardware,
    /// What the server granted; [`Network::settle`] brings it up to date.
    pub lease: Lease,
    /// Whether the address is that of the command line.
    pub fixed: bool,
    /// The VLANs and bonds that the port is made of, itself first.
    pub devices: Vec<Device>,
    /// What the switch says about the port, or about a port below it.
    pub switch: Option<Neighbour>,
    /// The port's number in the kernel.
    index: u32,
    loopback: Loopback,
    stack: Stack,
    keeper: Keeper,
    settled: Option<Kept>,
}

impl Network {
    /// A resolver that asks `nameserver=` and the lease's servers, in-process.
    pub fn resolver(&self) -> Arc<dyn Resolve> {
        // Those of the command line are part of the lease.
        let search = self.lease.search_list().into_iter().map(str::to_owned).collect();
        Arc::new(resolve::Dns::new(&self.lease.dns, self.index, search, self.lease.address.is_ipv6()))
    }

    /// Ends the renewals: the lease is as it will be handed over.
    ///
    /// # Errors
    /// The lease's keeper met a fault of its own.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        if self.settled.is_none() {
            let kept = self.keeper.stop()?;
            self.lease = kept.lease().clone();
            self.switch = kept.port.switch();
            self.settled = Some(kept);
        }
        Ok(())
    }

    /// Leaves the network as it is, with its lease renewed, until the process ends.
    pub fn keep(self) {
        // What would end the renewals and close what the lease depends on is never run.
        std::mem::forget(self);
    }

    /// Gives the lease back (RELEASE) and leaves the ports as they were found.
    ///
    /// # Errors
    /// netlink refuses.
    pub fn leave(mut self) -> anyhow::Result<()> {
        let leaving = || format!("leaving {} ({}) as it was found", self.port, self.mac);
        let kept = match self.settled.take() {
            Some(kept) => kept,
            None => self.keeper.stop().with_context(leaving)?,
        };
        // Each is tried, whatever becomes of the others.
        let (links, port, taken_back) = kept.take_back();
        let ports = put_back(&links, vec![port]).and(self.stack.put_back(&links));
        let loopback = self.loopback.put_back(&links);
        taken_back.and(ports).and(loopback).with_context(leaving)
    }
}

/// Brings up the ports, waits for carrier, and takes the first usable lease; its address, routes
/// and MTU are applied to the port. From then on the lease is renewed in the background.
///
/// # Errors
/// No port, no carrier in time, or no usable lease in time; the message names ports and MACs. The
/// ports are left as they were found.
pub fn bring_up(settings: &Settings) -> anyhow::Result<Network> {
    let started = Instant::now();
    destination::check(settings)?;
    if settings.ip.iter().any(Ip::is_version_6) {
        switches::check(Path::new(switches::FOLDER))?;
    }
    let links = Links::open().advise("opening rtnetlink", "build the kernel with CONFIG_NET")?;
    let loopback = Loopback::bring_up(&links)?;
    let mut stack = Stack::new(settings);
    match win(links, settings, started, &mut stack) {
        Ok(kept) => {
            let (fixed, switch) = (kept.port.is_fixed(), kept.port.switch());
            let (port, mac) = (kept.port.name().to_owned(), kept.port.mac());
            say::info!("net: {} is ready after {:.1} s", kept.port.title(), started.elapsed().as_secs_f32());
            let lease = kept.lease().clone();
            let (index, devices) = (kept.port.index(), kept.port.devices(&stack));
            Ok(Network {
                port,
                mac,
                lease,
                fixed,
                devices,
                switch,
                index,
                loopback,
                stack,
                keeper: Keeper::start(kept),
                settled: None,
            })
        }
        Err(failed) => {
            let (links, error) = *failed;
            complain(stack.put_back(&links));
            complain(loopback.put_back(&links));
            Err(error)
        }
    }
}

/// Runs the race, puts the losers back, and configures the winner.
fn win(
    links: Links,
    settings: &Settings,
    started: Instant,
    stack: &mut Stack,
) -> Result<Kept, Box<(Links, anyhow::Error)>> {
    let mut ports = Vec::new();
    let (number, lease) = match race::run(&links, settings, started, stack, &mut ports) {
        Ok(won) => won,
        Err(error) => {
            complain(put_back(&links, ports));
            return Err(Box::new((links, error)));
        }
    };
    let winner = ports.remove(number);
    complain(put_back(&links, ports));
    Kept::new(links, winner, lease, started).map_err(|failed| {
        let (links, winner, error) = *failed;
        complain(put_back(&links, vec![winner]));
        Box::new((links, error))
    })
}

/// Gives leases back and takes down the ports that were found down.
fn put_back(links: &Links, mut ports: Vec<Port>) -> anyhow::Result<()> {
    let released = ports.iter_mut().filter_map(|port| port.release(links).then_some(())).count();
    if released > 0 {
        thread::sleep(LINGER);
    }
    // One port that is gone keeps none of the others up.
    let put_back = |port: &Port| port.put_back(links).with_context(|| format!("taking down {}", port.title()));
    ports.iter().map(put_back).fold(Ok(()), Result::and)
}

fn complain(put_back: anyhow::Result<()>) {
    if let Err(error) = put_back {
        say::warn!("net: ports are not as they were found: {error:#}");
    }
}

/// The loopback port, if it was found down.
#[derive(Debug)]
struct Loopback(Option<u32>);

impl Loopback {
    fn bring_up(links: &Links) -> anyhow::Result<Self> {
        let list = links.list().context("listing network ports")?;
        let found_down = list.iter().find(|link| link.loopback && !link.up).map(|link| link.index);
        if let Some(index) = found_down {
            links.set_up(index).context("bringing up loopback")?;
        }
        Ok(Self(found_down))
    }

    fn put_back(&self, links: &Links) -> anyhow::Result<()> {
        self.0.map_or(Ok(()), |index| links.set_down(index)).context("taking down loopback")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F17
    #[test]
    fn the_client_id_is_what_firmware_sends_unless_told_otherwise() {
        let mac = Hardware::Ethernet([0x52, 0x54, 0, 0xac, 0x10, 1]);
        assert_eq!(ClientId::Mac.option(mac).unwrap(), [1, 0x52, 0x54, 0, 0xac, 0x10, 1]);
        assert_eq!(ClientId::None.option(mac), None);
        let duid = [255, 0, 0xac, 0x10, 1, 0, 3, 0, 1, 0x52, 0x54, 0, 0xac, 0x10, 1];
        assert_eq!(ClientId::Duid.option(mac).unwrap(), duid);
        assert_eq!(ClientId::Bytes(vec![0, 7]).option(mac).unwrap(), [0, 7]);

        let own = (vec![0, 3, 0, 1, 0x52, 0x54, 0, 0xac, 0x10, 1], 0x00ac_1001);
        for id in [ClientId::Mac, ClientId::None, ClientId::Duid, ClientId::Bytes(duid.to_vec())] {
            assert_eq!(id.duid(mac.mac()), own, "{id:?}");
        }
        assert_eq!(ClientId::Bytes(vec![0, 7]).duid(mac.mac()), (vec![0, 7], 0x00ac_1001));
    }

    // F17
    #[test]
    fn over_infiniband_there_is_always_a_client_id() {
        let mut address = [0x80; 20];
        address[12..].copy_from_slice(&[0xe4, 0x1d, 0x2d, 3, 0, 0x12, 0x34, 0x56]);
        let port = Hardware::InfiniBand(address);
        let firmware = [255, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0, 0xe4, 0x1d, 0x2d, 3, 0, 0x12, 0x34, 0x56];
        assert_eq!(ClientId::Mac.option(port).unwrap(), firmware);
        assert_eq!(ClientId::None.option(port).unwrap(), firmware);
        let duid = [255, 0x2d, 0x12, 0x34, 0x56, 0, 3, 0, 32, 0xe4, 0x1d, 0x2d, 3, 0, 0x12, 0x34, 0x56];
        assert_eq!(ClientId::Duid.option(port).unwrap(), duid);
    }
}
