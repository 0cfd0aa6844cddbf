//! Puts a lease on a port, and takes it back.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::link::Links;
use super::port::Port;
use crate::lease::Lease;
use crate::say;

/// How long a port may be without carrier after its MTU was changed; some drivers reset it.
const RESET: Duration = Duration::from_secs(10);

/// What was changed on a port.
#[derive(Debug, Default)]
pub(super) struct Changes {
    address: Option<(IpAddr, u8)>,
    routes: Vec<(IpAddr, u8, IpAddr)>,
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
        links.set_mtu(index, mtu).with_context(|| format!("setting MTU {mtu}"))?;
        changes.mtu = Some(port.mtu());
        wait_for_carrier(links, port)?;
    }
    let (address, prefix) = (lease.address, lease.prefix);
    if links.add_address(index, address, prefix).with_context(|| format!("adding address {address}/{prefix}"))? {
        changes.address = Some((address, prefix));
    }
    for route in &lease.routes {
        let (to, width, gateway) = *route;
        let adding = || format!("adding route {to}/{width} through {gateway}");
        if links.add_route(index, *route).with_context(adding)? {
            say::info!("net: {}: route to {to}/{width} through {gateway}", port.name());
            changes.routes.push(*route);
        } else {
            say::info!("net: {}: a route to {to}/{width} exists already", port.name());
        }
    }
    Ok(())
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

/// Undoes `changes`.
pub(super) fn take_back(links: &Links, port: &Port, changes: &Changes) -> anyhow::Result<()> {
    let index = port.index();
    for route in changes.routes.iter().rev() {
        let (to, width, _) = route;
        links.delete_route(index, *route).with_context(|| format!("deleting the route to {to}/{width}"))?;
    }
    if let Some((address, prefix)) = changes.address {
        links.delete_address(index, address, prefix).with_context(|| format!("deleting address {address}"))?;
    }
    if let Some(mtu) = changes.mtu {
        links.set_mtu(index, mtu).with_context(|| format!("setting MTU {mtu}"))?;
    }
    Ok(())
}
