//! The loaders' menus, one for each MAC, out of what is published.

use std::collections::BTreeMap;

use anyhow::Result;

use super::guide::{self, comment};
use super::{Export, File};
use crate::config::nodes::Nodes;
use crate::config::site::Site;
use crate::menu::{Loader, entries, grub, ipxe, origin, pxelinux, syslinux};

/// PXELINUX's, which SYSLINUX for UEFI reads too.
///
/// # Errors
/// What is published is unreadable.
pub(super) fn of_pxelinux(named: &guide::Site, site: &Site, nodes: &Nodes) -> Result<Export> {
    let menus = pxelinux::menus(&entries(site, nodes, site.config().http.port)?);
    Ok(export(named, site, "pxelinux", "pxelinux.cfg", menus, [pxelinux::LOADERS, syslinux::LOADERS].concat()))
}

/// GRUB's.
///
/// # Errors
/// What is published is unreadable.
pub(super) fn of_grub(named: &guide::Site, site: &Site, nodes: &Nodes) -> Result<Export> {
    let menus = grub::configurations(&entries(site, nodes, site.config().http.port)?);
    Ok(export(named, site, "grub", "grub", menus, grub::LOADERS.to_vec()))
}

/// iPXE's.
///
/// # Errors
/// What is published is unreadable.
pub(super) fn of_ipxe(named: &guide::Site, site: &Site, nodes: &Nodes) -> Result<Export> {
    let port = site.config().http.port;
    let boot = format!("{}/boot", origin(site, port));
    let menus = ipxe::scripts(&entries(site, nodes, port)?, &boot);
    Ok(export(named, site, "ipxe", "ipxe", menus, ipxe::LOADERS.to_vec()))
}

fn export(
    named: &guide::Site,
    site: &Site,
    server: &str,
    folder: &str,
    menus: BTreeMap<String, String>,
    loaders: Vec<Loader>,
) -> Export {
    let guide = named.guide(
        server,
        &site.tftp().display().to_string(),
        &format!("{folder}/, beside the folders of kernels and initramfs"),
        &[
            ("", "With --output the loader is copied there too, from where its package has it.".to_owned()),
            ("", "Another TFTP folder needs the images' folders of this one as well.".to_owned()),
            ("again", "after each image publish, overlay publish, bootstrap or change of nodes".to_owned()),
        ],
    );
    let mark = comment(guide.get(..1).unwrap_or_default(), "#");
    let file = |(name, menu): (String, String)| {
        // The line that makes it a script must stay the first.
        let text = match menu.strip_prefix("#!ipxe\n") {
            Some(script) => format!("#!ipxe\n{mark}{script}"),
            None => format!("{mark}{menu}"),
        };
        File { path: format!("{folder}/{name}"), text }
    };
    Export { guide, files: menus.into_iter().map(file).collect(), loaders }
}
