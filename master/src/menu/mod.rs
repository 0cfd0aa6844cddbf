//! Boot menus: what each node boots ([`entry`]), and how its loader is told.

mod entry;
mod overlays;
mod pxelinux;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::config::nodes::Nodes;
use crate::config::site::Site;

/// Puts the loaders and all menus into `tftp/`; menus of nodes that are gone vanish. `port` is that of HTTP.
///
/// A node whose image is not ready gets a menu that says so and goes on to the next boot device.
///
/// # Errors
/// A loader is not installed, or the disk refuses.
pub(crate) fn write(site: &Site, nodes: &Nodes, port: u16) -> Result<()> {
    pxelinux::write(site, &entry::entries(site, nodes, port)?)
}

/// PXELINUX's programs: where Debian's packages put each, and its name beside the menus.
pub(crate) use pxelinux::LOADER as PXELINUX;

/// PXELINUX's menus by their file's name, in pxelinux.cfg/. `port` is that of HTTP.
///
/// # Errors
/// The store or the boot files cannot be read.
pub(crate) fn pxelinux(site: &Site, nodes: &Nodes, port: u16) -> Result<BTreeMap<String, String>> {
    Ok(pxelinux::menus(&entry::entries(site, nodes, port)?))
}
