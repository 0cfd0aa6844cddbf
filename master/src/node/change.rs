//! Changes of nodes.toml: all of a command, or nothing of it.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use rootstream::failure::refuse;

use super::macs;
use super::names::Names;
use crate::config::addresses::{Mac, Name};
use crate::config::nodes::{Newcomer, Nodes, Setting};
use crate::config::site::Site;
use crate::{aside, say};

/// What `node add` was told.
#[derive(Debug)]
pub(super) struct Add<'a> {
    pub(super) names: Vec<Name>,
    pub(super) mac: Option<Mac>,
    pub(super) macs: Option<&'a Path>,
    pub(super) ip: Ipv4Addr,
    pub(super) bmc_mac: Option<Mac>,
    pub(super) bmc_ip: Option<Ipv4Addr>,
    pub(super) settings: &'a [Setting],
}

/// Adds nodes.
///
/// # Errors
/// One of them cannot be as told; then none is added.
pub(super) fn add(site: &Site, told: &Add<'_>, dry_run: bool) -> Result<()> {
    let newcomers = newcomers(told)?;
    let _claim = claim(site, dry_run)?;
    let nodes = Nodes::of(site)?;
    let mut edit = nodes.edit()?;
    for new in &newcomers {
        nodes.refuse_taken(new)?;
        edit.add(new, told.settings)?;
    }
    let after = nodes.write(&edit, site, dry_run)?;
    for Newcomer { name, mac, ip, .. } in &newcomers {
        match mac {
            Some(mac) => say::result(format_args!("{name}: added, {mac} {ip}")),
            None => say::result(format_args!("{name}: added, {ip}, without a MAC: it boots once it has one")),
        }
    }
    finish(&after, site, dry_run);
    Ok(())
}

fn newcomers(told: &Add<'_>) -> Result<Vec<Newcomer>> {
    let count = told.names.len();
    for (option, is_given) in [("--mac", told.mac.is_some()), ("--bmc-mac", told.bmc_mac.is_some())] {
        if is_given && count > 1 {
            return Err(refuse(
                format!("{option} is of one node, and {count} are named"),
                "write the MACs to a file: --macs FILE",
            ));
        }
    }
    if let Some(setting) =
        told.settings.iter().find(|setting| ["name", "mac", "ip", "bmc.mac", "bmc.ip"].contains(&setting.key()))
    {
        let what = format!("`{}` is no setting of a new node", setting.key());
        return Err(refuse(what, "say NODES, and --mac, --ip, --bmc-mac, --bmc-ip"));
    }
    let ports = match told.macs {
        Some(file) => macs::read(file, &told.names)?,
        None => vec![macs::Ports { mac: told.mac, bmc: told.bmc_mac }; count],
    };
    let one = |(at, (name, ports)): (usize, (&Name, macs::Ports))| {
        let bmc = told.bmc_ip.map(|first| counted(first, at)).transpose()?;
        if bmc.is_none() && ports.bmc.is_some() {
            return Err(refuse(format!("the BMC of {name} has a MAC and no address"), "say --bmc-ip ADDRESS"));
        }
        let bmc = bmc.map(|ip| (ip, ports.bmc));
        Ok(Newcomer { name: name.clone(), mac: ports.mac, ip: counted(told.ip, at)?, bmc })
    };
    told.names.iter().zip(ports).enumerate().map(one).collect()
}

/// The address of the node at place `at` of those named, where the first one's is `first`.
pub(super) fn counted(first: Ipv4Addr, at: usize) -> Result<Ipv4Addr> {
    let address = u32::try_from(at).ok().and_then(|at| first.to_bits().checked_add(at));
    match address {
        Some(address) => Ok(Ipv4Addr::from_bits(address)),
        None => Err(refuse(format!("there are no {at} addresses after {first}"), "begin with a lower address")),
    }
}

/// Changes what is said of nodes.
///
/// # Errors
/// There is no such node, or what it would be is wrong; then nothing changes.
pub(super) fn set(site: &Site, names: &Names, settings: &[Setting], dry_run: bool) -> Result<()> {
    let _claim = claim(site, dry_run)?;
    let nodes = Nodes::of(site)?;
    let chosen = names.select(&nodes)?;
    if let Some(setting) = settings.iter().find(|setting| setting.is_of_one())
        && chosen.len() > 1
    {
        let what = format!("`{}` is of one node, and {names} are {}", setting.key(), chosen.len());
        return Err(refuse(what, "name one node"));
    }
    let mut edit = nodes.edit()?;
    let mut done = Vec::new();
    for (at, node) in chosen.iter().enumerate() {
        // A new name last, for the others are found by the old one.
        let (renaming, others): (Vec<&Setting>, Vec<&Setting>) = settings.iter().partition(|s| s.key() == "name");
        for setting in others.into_iter().chain(renaming) {
            let setting = match setting.address() {
                Some(first) => {
                    &Setting::new(setting.key(), &counted(first, at)?.to_string()).map_err(anyhow::Error::msg)?
                }
                None => setting,
            };
            edit.set(&node.name, setting)?;
            done.push(format!("{}: {setting}", node.name));
        }
    }
    let after = nodes.write(&edit, site, dry_run)?;
    done.iter().for_each(say::result);
    finish(&after, site, dry_run);
    Ok(())
}

/// Takes nodes out.
///
/// # Errors
/// There is no such node.
pub(super) fn remove(site: &Site, names: &Names, dry_run: bool) -> Result<()> {
    let _claim = claim(site, dry_run)?;
    let nodes = Nodes::of(site)?;
    let chosen = names.select(&nodes)?;
    let mut edit = nodes.edit()?;
    for node in &chosen {
        edit.remove(&node.name)?;
    }
    let after = nodes.write(&edit, site, dry_run)?;
    for node in chosen {
        say::result(format_args!("{}: removed", node.name));
    }
    finish(&after, site, dry_run);
    Ok(())
}

/// Read and written by one at a time: two changes at once must both be there after.
pub(super) fn claim(site: &Site, dry_run: bool) -> Result<Option<aside::Claim>> {
    if dry_run { Ok(None) } else { aside::claim(site.root()).map(Some) }
}

fn finish(after: &Nodes, site: &Site, dry_run: bool) {
    for warning in after.unknown_images(site) {
        say::note(warning);
    }
    if dry_run {
        say::note("nothing was written (--dry-run)");
    }
}
