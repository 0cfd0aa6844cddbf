//! One port in the race for a lease: the link, what gets it a lease, and what both saw.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::choose::Runner;
use super::engine::{Engine, Lack, Outcome};
use super::firmware::Firmware;
use super::fixed::Fixed;
use super::four::Four;
use super::link::{Link, Links};
use super::lldp::Ear;
use super::six::Six;
use super::stack::Stack;
use super::statics::Said;
use super::{ClientId, Device, Method, Settings};
use crate::dhcp::client::Identity;
use crate::ipv6::client::{self as ipv6, Mode};
use crate::lease::Lease;
use crate::lldp::Neighbour;
use crate::mac::Hardware;
use crate::report::since_kernel_start;
use crate::say;

/// A port that takes part.
#[derive(Debug)]
pub(super) struct Port {
    link: Link,
    mac: Hardware,
    driver: Option<String>,
    /// What the command line says about it.
    said: Said,
    /// The ports that it is on, if it is a VLAN or a bond.
    below: Vec<Link>,
    /// Where the switch is listened to: on the port, or on those below it.
    ears: Vec<Ear>,
    /// What gets it a lease; nothing where the command line is all, or where the port is broken.
    engine: Option<Box<dyn Engine>>,
    /// Why the port cannot take part.
    broken: Option<io::Error>,
    carrier: bool,
    first_carrier: Option<Duration>,
    /// Since when the lease is ours without a doubt.
    bound: Option<Duration>,
    /// When it was granted, from the kernel's start.
    granted: Duration,
}

impl Port {
    /// Brings the port up and listens on it. A port that cannot be brought up takes part without
    /// ever having carrier.
    pub(super) fn open(
        links: &Links,
        link: Link,
        driver: Option<String>,
        mac: Hardware,
        said: Said,
        below: Vec<Link>,
        who: (&ClientId, Firmware),
    ) -> Self {
        let (engine, broken) = match start(links, &link, mac, &said, who) {
            Ok(engine) => (engine, None),
            Err(error) => (None, Some(error)),
        };
        let ears = match below.as_slice() {
            // LLDP is Ethernet's.
            [] if mac.is_infiniband() => Vec::new(),
            [] => vec![Ear::open(&link)],
            below => below.iter().map(Ear::open).collect(),
        };
        let port = Self {
            link,
            mac,
            driver,
            said,
            below,
            ears,
            engine,
            broken,
            carrier: false,
            first_carrier: None,
            bound: None,
            granted: Duration::ZERO,
        };
        match &port.broken {
            None => say::info!("net: {} is up", port.full_title()),
            Some(why) => say::warn!("net: {} cannot be brought up: {why}", port.full_title()),
        }
        port
    }

    /// The port as it was found.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn index(&self) -> u32 {
        self.link.index
    }

    pub(super) fn name(&self) -> &str {
        &self.link.name
    }

    pub(super) fn mac(&self) -> Hardware {
        self.mac
    }

    /// The MTU that the port was found with.
    pub(super) fn mtu(&self) -> u32 {
        self.link.mtu
    }

    /// What it is made of.
    pub(super) fn devices(&self, stack: &Stack) -> Vec<Device> {
        stack.devices(&self.link)
    }

    /// We may not bring it up, or not listen on it.
    pub(super) fn is_forbidden(&self) -> bool {
        self.broken.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Name and MAC, as messages call the port.
    pub(super) fn title(&self) -> String {
        format!("{} ({})", self.link.name, self.mac)
    }

    fn full_title(&self) -> String {
        format!("{} ({}, {})", self.link.name, self.mac, self.driver.as_deref().unwrap_or("unknown driver"))
    }

    pub(super) fn has_carrier(&self) -> bool {
        self.carrier
    }

    /// When it had carrier for the first time.
    pub(super) fn first_carrier(&self) -> Option<Duration> {
        self.first_carrier
    }

    pub(super) fn runner(&self, settings: &Settings) -> Runner {
        let resolves = !settings.nameservers.is_empty();
        let found =
            |bootif| self.below.iter().chain([&self.link]).filter_map(|link| link.mac).any(|mac| mac.mac() == bootif);
        Runner {
            boot: settings.bootif.is_some_and(|bootif| bootif == self.mac.mac() || found(bootif)),
            bound: self.bound,
            reaches: self.lease().is_some_and(|lease| settings.destination.is_reached_by(&lease, resolves)),
        }
    }

    /// The lease that is ours now.
    pub(super) fn lease(&self) -> Option<Lease> {
        let lease = match self.said.lease() {
            Some(lease) => self.first_carrier.map(|_| lease),
            None => self.engine.as_ref()?.lease().map(|lease| self.said.amend(lease)),
        };
        lease.map(|lease| Lease { granted: Some(self.granted), ..lease })
    }

    /// Whether its address is that of the command line.
    pub(super) fn is_fixed(&self) -> bool {
        self.said.ip.address.is_some()
    }

    /// What the switch says about the port, or about the first of those below it.
    pub(super) fn switch(&self) -> Option<Neighbour> {
        self.ears.iter().find_map(Ear::heard).cloned()
    }

    /// What was waited for in vain; unset when something was answered.
    pub(super) fn lack(&self) -> Option<Lack> {
        self.engine.as_ref()?.lack()
    }

    /// An address of the command line that somebody else has, and who.
    pub(super) fn conflict(&self) -> Option<(Ipv4Addr, Hardware)> {
        self.engine.as_ref()?.conflict()
    }

    /// When [`Port::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.engine.as_ref()?.deadline()
    }

    /// What to poll, while the port can receive.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let own = self.engine.iter().flat_map(|engine| engine.sockets());
        own.chain(self.ears.iter().filter_map(Ear::socket)).filter(|_| self.carrier)
    }

    /// Takes in ports below it that came later, such as those of a bond.
    pub(super) fn join(&mut self, below: Vec<Link>) {
        for link in below {
            if self.below.iter().all(|known| known.index != link.index) {
                self.ears.push(Ear::open(&link));
                self.below.push(link);
            }
        }
    }

    /// Takes notice of the link's state.
    pub(super) fn carrier(&mut self, links: &Links, carrier: bool, now: Duration) {
        let carrier = carrier && self.broken.is_none();
        if carrier == self.carrier {
            return;
        }
        self.carrier = carrier;
        if carrier {
            self.first_carrier.get_or_insert(now);
            say::info!("net: {}: carrier after {:.1} s", self.title(), now.as_secs_f32());
            // One of IPv6 the kernel checks itself, when it is put on the port.
            if let Some(lease) = self.said.lease().filter(|_| self.engine.is_none()) {
                say::info!("net: {}: address {}/{} of ip=", self.title(), lease.address, lease.prefix);
                self.bind(now);
            }
        } else {
            say::warn!("net: {}: carrier lost", self.title());
            self.bound = None;
        }
        self.engine(now, |engine| engine.carrier(links, carrier, now));
    }

    /// Lets the client do what its time has come for.
    pub(super) fn tick(&mut self, links: &Links, now: Duration) {
        self.engine(now, |engine| engine.tick(links, now));
    }

    /// Takes what waits in the sockets. `own` has the hardware addresses of this machine.
    pub(super) fn receive(&mut self, links: &Links, now: Duration, own: &[Hardware]) {
        self.ears.iter_mut().for_each(Ear::listen);
        self.engine(now, |engine| engine.receive(links, now, own));
    }

    /// Gives the lease back, if there is one. True when a message was sent.
    pub(super) fn release(&mut self, links: &Links) -> bool {
        self.bound = None;
        self.engine.as_mut().is_some_and(|engine| engine.release(links).gave_back)
    }

    fn engine(&mut self, now: Duration, work: impl FnOnce(&mut dyn Engine) -> Outcome) {
        match self.engine.as_deref_mut().and_then(|engine| work(engine).bound) {
            Some(true) => self.bind(now),
            Some(false) => self.bound = None,
            None => {}
        }
    }

    fn bind(&mut self, now: Duration) {
        self.bound.get_or_insert(now);
        self.granted = since_kernel_start();
    }

    /// Takes the port down if it was found down, and gives it back its own MAC.
    pub(super) fn put_back(&self, links: &Links) -> io::Result<()> {
        let index = self.link.index;
        let engine = self.engine.as_ref().map_or(Ok(()), |engine| engine.put_back(links));
        let own = self.link.mac.filter(|own| *own != self.mac);
        if self.link.up && own.is_none() {
            return engine;
        }
        say::info!("net: {} is taken down again", self.title());
        let down = links.set_down(index);
        let own = own.map_or(Ok(()), |mac| links.set_mac(index, mac));
        let up = if self.link.up { links.set_up(index) } else { Ok(()) };
        engine.and(down).and(own).and(up)
    }

    /// What the port did and saw, in one line.
    pub(super) fn story(&self) -> String {
        let mut story = format!("{}: ", self.full_title());
        match (&self.broken, self.first_carrier) {
            (Some(why), _) => return format!("{story}cannot be brought up: {why}"),
            (None, None) => return format!("{story}never had carrier"),
            (None, Some(at)) => story += &format!("carrier after {:.1} s", at.as_secs_f32()),
        }
        let told = self.engine.iter().map(|engine| engine.story()).chain(self.ears.iter().filter_map(Ear::story));
        told.fold(story, |story, told| format!("{story}, {told}"))
    }
}

/// Brings a port up with what gets it a lease.
fn start(
    links: &Links,
    link: &Link,
    mac: Hardware,
    said: &Said,
    (client_id, firmware): (&ClientId, Firmware),
) -> io::Result<Option<Box<dyn Engine>>> {
    let max_mtu = u16::try_from(link.max_mtu.unwrap_or(link.mtu)).unwrap_or(u16::MAX);
    let six = |mode| -> io::Result<Option<Box<dyn Engine>>> {
        let Hardware::Ethernet(own) = mac else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this version brings up IPv4 only over InfiniBand"));
        };
        let (duid, iaid) = client_id.duid(own);
        let six = Six::open(link, own, ipv6::Identity { duid, iaid, max_mtu, arch: firmware.arch, mode })?;
        // What it switched is put back by whoever takes it off.
        bring_up(links, link, mac).or_else(|error| six.put_back(links).and(Err(error)))?;
        Ok(Some(Box::new(six)))
    };
    match said.ip.method {
        Method::None => {
            bring_up(links, link, mac)?;
            let address = said.lease().map(|lease| lease.address);
            Ok(match address {
                Some(IpAddr::V4(address)) => Some(Box::new(Fixed::new(link, mac, address))),
                _ => None,
            })
        }
        Method::Dhcp => {
            bring_up(links, link, mac)?;
            let client_id = client_id.option(mac);
            let Firmware { arch, uuid } = firmware;
            let identity = Identity { mac, client_id, max_mtu, arch, uuid, fixed: said.informed() };
            Ok(Some(Box::new(Four::open(links, link, identity)?)))
        }
        Method::Auto6 => six(Mode::Auto),
        Method::Dhcp6 => six(Mode::Dhcp),
        Method::Either6 => six(Mode::Either),
        Method::Link6 => six(Mode::LinkLocal),
    }
}

/// Brings a port up with this MAC, which most drivers change only while it is down.
fn bring_up(links: &Links, link: &Link, mac: Hardware) -> io::Result<()> {
    let other = link.mac != Some(mac);
    if link.up && other {
        links.set_down(link.index)?;
    }
    if other {
        links.set_mac(link.index, mac)?;
    }
    if link.up && !other { Ok(()) } else { links.set_up(link.index) }
}
