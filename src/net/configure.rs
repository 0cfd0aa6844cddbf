//! Puts a lease on a port, and takes it back.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::link::{Claim, Links};
use super::neighbour;
use super::packet::Socket;
use super::port::Port;
use super::switches::{self, Switches};
use crate::failure::refuse;
use crate::lease::Lease;
use crate::mac::Hardware;
use crate::say;

/// How long a port may be without carrier after its MTU was changed; some drivers reset it.
const RESET: Duration = Duration::from_secs(10);
/// The kernel asks for about two seconds whether somebody has an IPv6 address.
const CHECK: Duration = Duration::from_secs(10);

/// What was changed on a port.
#[derive(Debug, Default)]
pub(super) struct Changes {
    address: Option<(IpAddr, u8)>,
    routes: Vec<(IpAddr, u8, IpAddr)>,
    /// What the kernel would do about IPv6 of itself.
    switches: Option<Switches>,
    /// The MTU before.
    mtu: Option<u32>,
}

/// Gives the port the lease's MTU, address and routes. What was done before a failure is taken back.
pub(super) fn apply(links: &Links, port: &Port, lease: &Lease) -> anyhow::Result<Changes> {
    let mut changes = Changes::default();
    let done = try_apply(links, port, lease, &mut changes);
    if done.is_err()
        && let Err(error) = take_back(links, port, &changes)
    {
        say::warn!("net: {} is not as it was found: {error:#}", port.name());
    }
    done.with_context(|| format!("configuring {}", port.title())).map(|()| changes)
}

fn try_apply(links: &Links, port: &Port, lease: &Lease, changes: &mut Changes) -> anyhow::Result<()> {
    let index = port.index();
    if let Some(mtu) = lease.mtu.map(u32::from).filter(|mtu| *mtu != port.mtu()) {
        // What a VLAN or a bond says that it can do is not always what the port below can.
        match links.set_mtu(index, mtu) {
            Ok(()) => {
                changes.mtu = Some(port.mtu());
                wait_for_carrier(links, port)?;
            }
            Err(error) => say::warn!("net: {}: MTU {mtu} is not set, it stays {}: {error}", port.name(), port.mtu()),
        }
    }
    let (address, prefix) = (lease.address, lease.prefix);
    let listener = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => {
            changes.switches = Some(Switches::set(Path::new(switches::FOLDER), port.name()));
            Some(Listener::open(port, address))
        }
    };
    if links.add_address(index, address, prefix).with_context(|| format!("adding address {address}/{prefix}"))? {
        changes.address = Some((address, prefix));
    }
    if let Some(listener) = listener {
        listener.wait_until_ours(links)?;
    }
    add_routes(links, port, &lease.routes, changes);
    Ok(())
}

/// Gives the port these routes. One that the kernel refuses is left out, and said.
pub(super) fn add_routes(links: &Links, port: &Port, routes: &[(IpAddr, u8, IpAddr)], changes: &mut Changes) {
    for route in routes {
        let (to, width, gateway) = *route;
        match links.add_route(port.index(), *route) {
            Ok(true) => {
                say::info!("net: {}: route to {to}/{width} through {gateway}", port.name());
                changes.routes.push(*route);
            }
            Ok(false) => say::info!("net: {}: a route to {to}/{width} exists already", port.name()),
            Err(error) => {
                say::warn!("net: {}: no route to {to}/{width} through {gateway}: {error}", port.name());
            }
        }
    }
}

fn wait_for_carrier(links: &Links, port: &Port) -> anyhow::Result<()> {
    let started = Instant::now();
    while !links.list()?.iter().any(|link| link.index == port.index() && link.carrier) {
        if started.elapsed() >= RESET {
            bail!("no carrier {} s after the MTU was changed", RESET.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let took = started.elapsed();
    if took > Duration::from_millis(200) {
        say::info!("net: {}: carrier again {:.1} s after the change of MTU", port.name(), took.as_secs_f32());
    }
    Ok(())
}

/// Listens for who has the IPv6 address that the port is given.
struct Listener<'a> {
    port: &'a Port,
    address: Ipv6Addr,
    socket: Option<Socket>,
}

impl<'a> Listener<'a> {
    fn open(port: &'a Port, address: Ipv6Addr) -> Self {
        let socket = Socket::neighbours(port.link());
        let socket = socket.inspect_err(|error| say::debug!("net: {}: no raw socket: {error}", port.name())).ok();
        Self { port, address, socket }
    }

    /// Until the kernel knows that nobody else has the address, it cannot be used.
    fn wait_until_ours(self, links: &Links) -> anyhow::Result<()> {
        let (started, address) = (Instant::now(), self.address);
        let (mut taken, mut told) = (None, false);
        loop {
            taken = taken.or_else(|| self.taken_by());
            let known = links.addresses_6(self.port.index()).context("asking for the port's addresses")?;
            match known.into_iter().find(|(known, _)| *known == address) {
                Some((_, Claim::Ours)) => return Ok(()),
                Some((_, Claim::Asked)) if started.elapsed() < CHECK => {
                    if !told {
                        say::info!("net: {}: asking whether somebody has {address}", self.port.name());
                    }
                    told = true;
                    thread::sleep(Duration::from_millis(20));
                }
                Some((_, Claim::Asked)) => {
                    bail!("the kernel does not know after {} s whether {address} is in use", CHECK.as_secs())
                }
                // What made the kernel refuse it may have come since the look before.
                Some((_, Claim::Refused)) => return Err(in_use(address, self.port, taken.or_else(|| self.taken_by()))),
                None => bail!("the kernel has taken {address} away again"),
            }
        }
    }

    fn taken_by(&self) -> Option<Hardware> {
        let mut buffer = [0; 256];
        while let Ok(Some(frame)) = self.socket.as_ref()?.receive(&mut buffer) {
            let bytes = buffer.get(..frame.length.min(buffer.len())).filter(|_| !frame.vlan).unwrap_or_default();
            let claim = neighbour::claim(bytes).map(|(address, mac)| (address, Hardware::Ethernet(mac)));
            if let Some((_, mac)) = claim.filter(|(address, mac)| *address == self.address && *mac != self.port.mac()) {
                return Some(mac);
            }
        }
        None
    }
}

fn in_use(address: Ipv6Addr, port: &Port, by: Option<Hardware>) -> anyhow::Error {
    let whose = by.map_or("another machine".to_owned(), |mac| format!("the machine {mac}"));
    refuse(
        format!("{address} is in use by {whose} on the link of {}", port.name()),
        "give this node another address in ip=, or find that machine by its MAC in the switch",
    )
}

/// Undoes `changes`, each whatever becomes of the others.
pub(super) fn take_back(links: &Links, port: &Port, changes: &Changes) -> anyhow::Result<()> {
    let index = port.index();
    let mut outcome = Ok(());
    for route in changes.routes.iter().rev() {
        let (to, width, _) = route;
        let deleted = links.delete_route(index, *route);
        outcome = outcome.and(deleted.with_context(|| format!("deleting the route to {to}/{width}")));
    }
    if let Some((address, prefix)) = changes.address {
        let deleted = links.delete_address(index, address, prefix);
        outcome = outcome.and(deleted.with_context(|| format!("deleting address {address}")));
    }
    changes.switches.iter().for_each(Switches::put_back);
    if let Some(mtu) = changes.mtu {
        outcome = outcome.and(links.set_mtu(index, mtu).with_context(|| format!("setting MTU {mtu}")));
    }
    outcome
}
