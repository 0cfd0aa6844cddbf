//! Boot menus: what each node boots ([`entry`]), and how its loader is told, one file for each loader.

mod entry;
mod folder;
pub(crate) mod grub;
pub(crate) mod ipxe;
mod overlays;
pub(crate) mod pxelinux;
pub(crate) mod syslinux;

use anyhow::Result;

use crate::config::nodes::{BootPath, Nodes};
use crate::config::site::Site;
pub(crate) use entry::{entries, origin};
pub(crate) use folder::Loader;

/// Puts the loaders and all menus into `tftp/`; menus of nodes that are gone vanish. `port` is that of HTTP.
///
/// A node whose image is not ready gets a menu that says so and goes on to the next boot device. Every loader has a menu
/// for every node: which one a node gets is the firmware's choice too.
///
/// # Errors
/// A loader is not installed, or the disk refuses.
pub(crate) fn write(site: &Site, nodes: &Nodes, port: u16) -> Result<()> {
    let entries = entry::entries(site, nodes, port)?;
    let named = |paths: &[BootPath]| {
        let everybody = nodes.iter().map(Some).chain([None]);
        everybody.filter_map(|node| site.boot_path(node)).any(|path| paths.contains(&path))
    };
    pxelinux::write(site, &entries)?;
    syslinux::write(site, named(&[BootPath::Syslinux]))?;
    grub::write(site, &entries, named(&[BootPath::Grub]))?;
    let boot = format!("{}/boot", origin(site, port));
    ipxe::write(site, &entries, &boot, named(&[BootPath::Ipxe, BootPath::Http]))
}
