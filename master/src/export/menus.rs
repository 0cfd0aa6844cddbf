//! The loaders' menus, one for each MAC, out of what is published.

use anyhow::Result;

use super::guide::{self, MARK, comment};
use super::{Export, File};
use crate::config::nodes::Nodes;
use crate::config::site::Site;
use crate::menu;

/// PXELINUX's.
///
/// # Errors
/// What is published is unreadable.
pub(super) fn pxelinux(named: &guide::Site, site: &Site, nodes: &Nodes) -> Result<Export> {
    let folder = site.tftp();
    let guide = named.guide(
        "pxelinux",
        &folder.display().to_string(),
        "pxelinux.cfg/, beside the loader and the folders of kernels and initramfs",
        &[
            ("", "Another TFTP folder needs the images' folders of this one too.".to_owned()),
            ("again", "after each image publish, overlay publish, bootstrap or change of nodes".to_owned()),
        ],
    );
    let mark = comment(guide.get(..1).unwrap_or_default(), "#");
    let menus = menu::pxelinux(site, nodes, site.config().http.port)?;
    let files = menus
        .into_iter()
        .map(|(name, menu)| File { path: format!("pxelinux.cfg/{name}"), text: format!("{mark}{menu}") });
    debug_assert!(mark.contains(MARK), "the output would take its own files for somebody else's");
    Ok(Export { guide, files: files.collect(), loaders: menu::PXELINUX.to_vec() })
}
