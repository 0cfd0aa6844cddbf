//! What goes on top of the image: plain archives, streamed onto the tree that the image made.

use std::path::Path;

use anyhow::Context as _;

use super::mirrors::Mirrors;
use super::small::Presence;
use super::stream::{self, Layer, Pass};
use super::{Facts, Settings, Sources, Tally, Unpack};
use crate::facts::{Fact, NodeFacts, Template};
use crate::failure::{Advise as _, refuse};
use crate::say;

/// An archive that is unpacked over the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Where it is, with what differs from node to node.
    pub url: Template,
    /// Whether a node may be without it.
    pub optional: bool,
}

/// Unpacks the settings' overlays over the tree at `root`, in order; `build` is the image's. What it costs is added to
/// `tally`.
///
/// # Errors
/// One is not there and must be, cannot be fetched, is not signed where that is asked for, is damaged or does not fit.
pub(super) fn apply(
    sources: Sources<'_>,
    build: Option<&str>,
    unpack: Unpack,
    root: &Path,
    tally: &mut Tally,
) -> anyhow::Result<Vec<Facts>> {
    let mut node = sources.node.clone();
    node.set(Fact::Build, build.unwrap_or_default());
    let mut applied = Vec::new();
    for overlay in &sources.settings.overlays {
        applied.extend(apply_one(sources, overlay, &node, unpack, root, tally)?);
    }
    Ok(applied)
}

/// One of them; nothing when this node is without it.
fn apply_one(
    sources: Sources<'_>,
    overlay: &Overlay,
    node: &NodeFacts,
    unpack: Unpack,
    root: &Path,
    tally: &mut Tally,
) -> anyhow::Result<Option<Facts>> {
    let url = match overlay.url.expand(node) {
        Ok(url) => url,
        Err(unknown) if overlay.optional => {
            say::info!("overlay: {}: left out, {unknown}", overlay.url);
            return Ok(None);
        }
        Err(unknown) => {
            let todo = "name it otherwise, write ? before the URL if nodes may be without it, or rehearse with --fact";
            return Err(refuse(unknown.to_string(), todo)).advise(format!("the overlay {}", overlay.url), todo);
        }
    };
    let settings = Settings { urls: vec![url.clone()], sha256: None, overlays: Vec::new(), ..sources.settings.clone() };
    let sources = Sources { settings: &settings, ..sources };
    let mirrors = Mirrors::new(sources)?;
    let passed = one_pass(sources, overlay.optional, unpack, root, &mirrors);
    tally.add(mirrors.tally());
    match passed? {
        None => {
            say::info!("overlay: {url}: left out, this node has none");
            Ok(None)
        }
        Some(Pass::Complete(facts, _)) => Ok(Some(*facts)),
        Some(Pass::Damaged(error)) => Err(error),
        Some(Pass::Restart(why)) => {
            // What is there of the one cannot be told from the image any more.
            let todo = "boot again; and serve each version under a name of its own, so that it never changes";
            Err(refuse(why, todo).context(format!("the overlay {url} changed while it was fetched")))
        }
    }
}

fn one_pass(
    sources: Sources<'_>,
    optional: bool,
    unpack: Unpack,
    root: &Path,
    mirrors: &Mirrors<'_>,
) -> anyhow::Result<Option<Pass>> {
    let urls = &sources.settings.urls;
    if optional {
        let installing = || format!("installing the overlay {}", urls.join(" "));
        if mirrors.presence(urls).with_context(installing)? == Presence::Missing {
            return Ok(None);
        }
    }
    stream::pass(sources, Layer::Overlay, unpack, root, mirrors).map(Some)
}
