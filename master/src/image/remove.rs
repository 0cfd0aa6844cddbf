//! Takes builds out of the store.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::failure::refuse;

use super::store::{self, Build};
use crate::aside;
use crate::config::addresses::Name;
use crate::config::nodes::{Node, Nodes};
use crate::config::site::Site;

/// What is the newest build after one was taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newest {
    /// The one that was it before.
    Same,
    /// An older one.
    Now(String),
    /// None is left.
    None,
}

/// Removes a build: pointer, manifest, signature, file, so that a kill in between leaves nothing that leads nowhere.
///
/// # Errors
/// There is no such build; it is the newest, or boot menus name it, and `force` is not set.
pub fn remove(site: &Site, name: &Name, id: &str, force: bool) -> Result<Newest> {
    let build = Build::find(site, name, Some(id))?;
    let folder = site.store().join(name.as_str());
    let _claim = aside::claim(&folder)?;
    let is_newest = store::latest(&folder)?.is_some_and(|latest| latest.build == id);
    let nodes = booting(site, name, id)?;
    if !force {
        let what = format!("the build {id} of {name}");
        if is_newest {
            let todo = "publish a newer one first; --force makes the one before it the newest";
            return Err(refuse(format!("{what} is the newest"), todo));
        }
        let pinned = pinned(site, name, id)?;
        if !pinned.is_empty() {
            let todo = format!("let them boot another: rootstream image use {name} latest --nodes NODES");
            return Err(refuse(format!("{what} is what nodes.toml gives to {}", pinned.join(", ")), todo));
        }
        if !nodes.is_empty() {
            let todo = "let `rootstream up` write its menus again, which takes seconds, and remove it then; --force does not wait";
            return Err(refuse(format!("{what} is in the boot menus of {}", nodes.join(", ")), todo));
        }
    }
    if !nodes.is_empty() {
        log::warn!("{} cannot boot until `rootstream up` writes its menus again", nodes.join(", "));
    }
    let newest = if is_newest { point_elsewhere(site, name, id, &folder)? } else { Newest::Same };
    for path in [build.path.clone(), store::signature_of(&build.path), build.file()] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(newest)
}

fn point_elsewhere(site: &Site, name: &Name, id: &str, folder: &Path) -> Result<Newest> {
    let Some(before) = store::builds(site, name)?.into_iter().rfind(|build| build != id) else {
        let pointer = folder.join(store::LATEST);
        fs::remove_file(&pointer).with_context(|| format!("removing {}", pointer.display()))?;
        return Ok(Newest::None);
    };
    store::point_at(folder, name, &before)?;
    Ok(Newest::Now(before))
}

/// The nodes that are to boot this build and no other.
fn pinned(site: &Site, name: &Name, id: &str) -> Result<Vec<String>> {
    let nodes = Nodes::of(site)?;
    let image = |node: &Node| node.image.as_ref().or(site.config().defaults.image.as_ref()) == Some(name);
    let pinned =
        nodes.iter().filter(|node| node.build.as_ref().is_some_and(|build| build.as_str() == id) && image(node));
    Ok(pinned.map(|node| node.name.to_string()).collect())
}

/// The nodes whose boot menus name a build, as `up` wrote them last.
fn booting(site: &Site, name: &Name, id: &str) -> Result<Vec<String>> {
    let menus = site.tftp().join("pxelinux.cfg");
    let image = format!("/images/{name}/{id}.");
    let names = |file: &str| fs::read_to_string(menus.join(file)).is_ok_and(|menu| menu.contains(&image));
    let nodes = Nodes::of(site)?;
    let booting = nodes.iter().filter(|node| node.mac.is_some_and(|mac| names(&mac.pxelinux())));
    let mut found: Vec<String> = booting.map(|node| node.name.to_string()).collect();
    if names("default") {
        found.push("machines that no node entry names".to_owned());
    }
    Ok(found)
}
