//! Which images a site has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::image::manifest::Manifest;
use serde::Serialize;

use super::store::Build;
use crate::config::addresses::Name;
use crate::config::site::{OVERLAYS, Site};

/// One image of a site, however far it has come.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// Whether there is a recipe.
    pub recipe: bool,
    /// Whether it is built.
    pub built: bool,
    /// Its newest published build.
    pub latest: Option<Manifest>,
}

/// The images of `site`, by name.
///
/// # Errors
/// A folder is unreadable. A build that is, is told in the log.
pub fn images(site: &Site) -> Result<Vec<Listed>> {
    let recipes = names(&site.root().join("images"), ".toml")?;
    let built = names(&site.built(), ".tar")?;
    let stored = names(&site.store(), "")?;
    let all: BTreeSet<&Name> = recipes.iter().chain(&built).chain(&stored).collect();
    all.into_iter()
        .filter(|name| name.as_str() != OVERLAYS)
        .map(|name| {
            let latest = Build::latest(site, name).unwrap_or_else(|error| {
                // The others are there all the same.
                log::warn!("{error:#}");
                None
            });
            Ok(Listed {
                name: name.clone(),
                recipe: recipes.contains(name),
                built: built.contains(name),
                latest: latest.map(|build| build.manifest),
            })
        })
        .collect()
}

/// What in `folder` is called NAME and then `suffix`.
fn names(folder: &Path, suffix: &str) -> Result<BTreeSet<Name>> {
    if !folder.exists() {
        return Ok(BTreeSet::new());
    }
    let listed = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    Ok(listed.flatten().filter_map(|e| e.file_name().to_str()?.strip_suffix(suffix)?.parse().ok()).collect())
}
