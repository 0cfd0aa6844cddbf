//! Which build nodes boot: the newest of their image, or one that nodes.toml gives them.

use std::str::FromStr;

use anyhow::{Context, Result};
use rootstream::failure::refuse;

use super::store::{self, Build};
use crate::aside;
use crate::config::addresses::{Name, Wrong};
use crate::config::nodes::{BuildId, Node, Nodes, Setting};
use crate::config::site::Site;
use crate::node::names::Names;

/// What `image use` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// `latest`: the newest, also those to come.
    Newest,
    /// This one.
    Build(BuildId),
}

impl FromStr for Choice {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == "latest" { Ok(Self::Newest) } else { text.parse().map(Self::Build) }
    }
}

/// Lets nodes boot this build of `name`; returns a sentence for each. They do with their next boot.
///
/// # Errors
/// There is no such build or node.
pub(crate) fn choose(site: &Site, name: &Name, choice: &Choice, nodes: &Names) -> Result<Vec<String>> {
    if let Choice::Build(build) = choice {
        Build::find(site, name, Some(build.as_str()))?;
    }
    give(site, nodes, |_| Ok((name.clone(), choice.clone())))
}

/// Lets nodes boot the build before the one that they boot now; returns a sentence for each.
///
/// # Errors
/// There is none before, or no such node.
pub(crate) fn back(site: &Site, name: &Name, nodes: &Names) -> Result<Vec<String>> {
    give(site, nodes, |node| {
        let image = node.image.as_ref().or(site.config().defaults.image.as_ref());
        if image != Some(name) {
            let todo = format!("rootstream image use {name} BUILD --nodes {} gives it one", node.name);
            return Err(refuse(format!("{} does not boot {name}", node.name), todo));
        }
        let now = match &node.build {
            Some(build) => build.to_string(),
            None => newest(site, name)?,
        };
        Ok((name.clone(), Choice::Build(before(site, name, &now)?.parse().map_err(anyhow::Error::msg)?)))
    })
}

/// Makes the build before the newest one the newest; returns both.
///
/// # Errors
/// There is none before, or the disk refuses.
pub(crate) fn roll_back(site: &Site, name: &Name) -> Result<(String, String)> {
    let folder = site.store().join(name.as_str());
    Build::find(site, name, None)?;
    let _claim = aside::claim(&folder)?;
    let now = newest(site, name)?;
    let before = before(site, name, &now)?;
    store::point_at(&folder, name, &before)?;
    Ok((now, before))
}

fn newest(site: &Site, name: &Name) -> Result<String> {
    let latest = store::latest(&site.store().join(name.as_str()))?;
    latest.map(|latest| latest.build).with_context(|| format!("the image {name} is not published"))
}

fn before(site: &Site, name: &Name, now: &str) -> Result<String> {
    let builds = store::builds(site, name)?;
    builds.into_iter().rfind(|build| build.as_str() < now).ok_or_else(|| {
        let todo = format!("`rootstream image list {name}` shows its builds; older ones may have been removed");
        refuse(format!("{name} has no build before {now}"), todo)
    })
}

/// Writes image and build of the nodes into nodes.toml: all or none.
fn give(site: &Site, nodes: &Names, choice: impl Fn(&Node) -> Result<(Name, Choice)>) -> Result<Vec<String>> {
    let _claim = aside::claim(site.root())?;
    let known = Nodes::of(site)?;
    let mut edit = known.edit()?;
    let mut said = Vec::new();
    for node in nodes.select(&known)? {
        let (image, choice) = choice(node)?;
        let build = match &choice {
            Choice::Newest => "",
            Choice::Build(build) => build.as_str(),
        };
        let settings = [("image", image.as_str()), ("build", build)];
        // The site's or a group's image may change; a build belongs to one image for good.
        for (key, value) in settings {
            edit.set(&node.name, &Setting::new(key, value).map_err(anyhow::Error::msg)?)?;
        }
        let build = if build.is_empty() { "its newest build" } else { build };
        said.push(format!("{}: boots {image}, {build}", node.name));
    }
    known.write(&edit, site, false)?;
    Ok(said)
}
