//! Boot files in `tftp/`: the loaders from where the system has them, and a menu for each entry.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::failure::Advise;

use super::entry::Entry;
use crate::aside;
use crate::config::addresses::Mac;
use crate::config::site::Site;

/// A loader's file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loader {
    /// Where nodes find it, relative to the root of TFTP.
    pub(crate) name: &'static str,
    /// Where Debian's package puts it.
    pub(crate) source: &'static str,
    /// That package.
    pub(crate) package: &'static str,
}

/// Puts the loaders in place. Where nobody asks for this way of booting (`needed`), they may be missing.
///
/// # Errors
/// A loader that is needed is not installed, or the disk refuses.
pub(super) fn install(site: &Site, loaders: &[Loader], needed: bool) -> Result<()> {
    let tftp = site.folder("tftp")?;
    for Loader { name, source, package } in loaders {
        let install = format!("apt-get install {package}");
        if !needed && !Path::new(source).exists() {
            log::info!("no node can boot by {name}, which is not installed here: {install}");
            continue;
        }
        let content = fs::read(source)
            .advise(format!("reading the network boot loader {source}"), format!("install it: {install}"))?;
        let target = tftp.join(name);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        aside::write(&target, &content)?;
    }
    Ok(())
}

/// The menus by their files' names: `of_node` names those of nodes, `default` is that of machines that no node entry
/// names. A node whose port is not known yet has none.
pub(super) fn menus(
    entries: &[Entry],
    of_node: impl Fn(Mac) -> String,
    default: &str,
    text: impl Fn(&Entry) -> String,
) -> BTreeMap<String, String> {
    let name = |entry: &Entry| match &entry.node {
        None => Some(default.to_owned()),
        Some(node) => node.mac.map(&of_node),
    };
    entries.iter().filter_map(|entry| Some((name(entry)?, text(entry)))).collect()
}

/// Writes the menus into `folder` of the site; of those that are nodes' (`is_node`), all others vanish.
///
/// # Errors
/// The disk refuses.
pub(super) fn write(
    site: &Site,
    folder: &str,
    menus: &BTreeMap<String, String>,
    is_node: impl Fn(&str) -> bool,
) -> Result<()> {
    let folder = site.folder(folder)?;
    let _claim = aside::claim(&folder)?;
    for (name, text) in menus {
        aside::write(&folder.join(name), text.as_bytes())?;
    }
    for file in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if is_node(&name) && !menus.contains_key(&name) {
            fs::remove_file(file.path()).with_context(|| format!("removing {}", file.path().display()))?;
        }
    }
    Ok(())
}
