//! Overlays: small archives that go on top of the image, the same for all nodes or one for each.
//!
//! An overlay is the folder `overlays/NAME/` of the site, with files at the paths that they have on the node. A file
//! whose name ends in `.in` is a template: `@hostname@` and the like in it are filled in, and each node gets an archive
//! of its own.

mod archive;
mod command;
mod facts;
mod index;
mod source;
mod template;

use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};
use rootstream::image::hex;
use rootstream::image::trust::SIGNATURE_SUFFIX;
use sha2::{Digest, Sha256};

pub use archive::Format;
pub(crate) use command::Command;
pub use index::{Archive, Index};

use crate::aside;
use crate::clock;
use crate::config::addresses::Name;
use crate::config::nodes::Nodes;
use crate::config::site::{OVERLAYS, Site};
use crate::keys::{self, Signer};
use archive::Made;
use source::Source;

/// What an overlay's archive for every machine is called in messages and file names.
const SHARED: &str = "all";

/// Digits of the digest in a file's name.
const DIGITS: usize = 12;

/// What publishing came to.
#[derive(Clone, Debug)]
pub struct Published {
    /// The archives.
    pub index: Index,
    /// The name of the key that signed them.
    pub signed_with: Option<String>,
}

/// The name of the node that an archive is for, in files' names and messages.
fn stem(node: Option<&Name>) -> &str {
    node.map_or(SHARED, Name::as_str)
}

/// Makes the archives of an overlay as they would be published, in `built/overlays/NAME/`, to be looked at with tar(1).
/// Returns their paths below the site.
///
/// # Errors
/// See [`publish`].
pub fn build(site: &Site, name: &Name, allow_secrets: bool) -> Result<Vec<String>> {
    let made = make(site, name, allow_secrets)?;
    let folder = site.folder(&format!("built/{OVERLAYS}/{name}"))?;
    // Held to the end.
    let _claim = aside::claim(&folder)?;
    for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "tar") {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    let mut paths = Vec::new();
    for (node, archive) in made {
        let file = format!("{}.tar", stem(node.as_ref()));
        aside::write(&folder.join(&file), &archive.bytes)?;
        paths.push(format!("built/{OVERLAYS}/{name}/{file}"));
    }
    Ok(paths)
}

/// Publishes an overlay out of its folder as it is now. What was published before stays for nodes that are fetching it.
///
/// # Errors
/// The folder is missing or holds what cannot be in an overlay; a template wants a fact that a node has not; it holds
/// secrets; there is no such key, or nobody said which of several; the disk refuses.
pub fn publish(site: &Site, name: &Name, format: Format, key: Option<&Name>, allow_secrets: bool) -> Result<Published> {
    let signer = Signer::of(site, key)?;
    let made = make(site, name, allow_secrets)?;
    let folder = site.folder(&format!("store/{OVERLAYS}/{name}"))?;
    // Held to the end.
    let _claim = aside::claim(&folder)?;
    let mut index = Index {
        format: index::FORMAT,
        name: name.clone(),
        created: clock::rfc3339(SystemTime::now()),
        shared: None,
        nodes: BTreeMap::new(),
    };
    for (node, archive) in made {
        let packed = format.pack(&archive.bytes)?;
        let sha256 = hex(&Sha256::digest(&packed));
        // Named after its content: the name is never given to other bytes, and publishing twice changes nothing.
        let file = format!("{}-{}.{}", stem(node.as_ref()), sha256.get(..DIGITS).unwrap_or_default(), format.suffix());
        if let Some(signer) = &signer {
            // The name is part of what is signed: no server can pass off one node's archive, or an older one, as another.
            let comment = format!("file:{file}\thashed");
            let signature = signer.sign(&packed, &comment)?;
            aside::write(&folder.join(format!("{file}{SIGNATURE_SUFFIX}")), &signature)?;
        }
        aside::write(&folder.join(&file), &packed)?;
        let archive = Archive { file, size: packed.len() as u64, sha256, facts: archive.facts };
        match node {
            Some(node) => drop(index.nodes.insert(node, archive)),
            None => index.shared = Some(archive),
        }
    }
    let mut text = serde_json::to_vec_pretty(&index).context("writing JSON")?;
    text.push(b'\n');
    aside::write(&folder.join(index::FILE), &text)?;
    if signer.is_none() && !keys::trusted(site)?.is_empty() {
        log::warn!(
            "overlay {name}: not signed, so nodes that trust a key refuse it: minisign -S -m FILE signs each archive"
        );
    }
    Ok(Published { index, signed_with: signer.map(|signer| signer.name) })
}

/// The archives, each with the node that it is for; one without a node is for all machines.
fn make(site: &Site, name: &Name, allow_secrets: bool) -> Result<Vec<(Option<Name>, Made)>> {
    let source = Source::read(site, name)?;
    let mut made = Vec::new();
    if source.has_templates() {
        for node in Nodes::of(site)?.iter() {
            let archive = archive::make(&source, &facts::of(site.config(), node)).advise(
                format!("making the overlay {name} for the node {}", node.name),
                "add the fact under [node.facts] of that node or [facts] of site.toml, or correct the template",
            )?;
            made.push((Some(node.name.clone()), archive));
        }
        if made.is_empty() {
            let what = format!("the overlay {name} is made for each node, and nodes.toml names none");
            return Err(refuse(what, "add the nodes first: rootstream node add NAME --mac MAC --ip IP"));
        }
    } else {
        made.push((None, archive::make(&source, &BTreeMap::new())?));
    }
    for (node, archive) in &made {
        refuse_secrets(name, node.as_ref(), archive, allow_secrets)?;
    }
    Ok(made)
}

/// As for images: whatever is served over HTTP can be read by everybody on the boot network.
fn refuse_secrets(name: &Name, node: Option<&Name>, archive: &Made, allowed: bool) -> Result<()> {
    let of = node.map(|node| format!(" for {node}")).unwrap_or_default();
    if allowed {
        archive.secrets.iter().for_each(|secret| log::warn!("overlay {name}{of}: {secret}"));
    }
    if allowed || archive.secrets.is_empty() {
        return Ok(());
    }
    Err(refuse(
        format!("the overlay {name}{of} holds secrets: {}", archive.secrets.join("; ")),
        "every machine on the boot network can fetch it: take them out, or accept it with --allow-secrets",
    ))
}
