//! `store/overlays/NAME/latest.json`: which archive of an overlay is for whom.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rootstream::image::trust::{Keys, SIGNATURE_SUFFIX, SignatureFile};
use serde::{Deserialize, Serialize};

use super::facts;
use crate::config::addresses::Name;
use crate::config::nodes::Node;
use crate::config::site::Site;

/// The version of this format.
pub(super) const FORMAT: u32 = 1;
/// Its name in the overlay's folder.
pub(super) const FILE: &str = "latest.json";

/// An archive in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Its name, next to the index; never given to other bytes.
    pub file: String,
    /// Its bytes.
    pub size: u64,
    /// Its digest, in hex.
    pub sha256: String,
    /// The facts that are filled in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// What was published last of an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The version of this format.
    pub format: u32,
    /// The overlay's name.
    pub name: Name,
    /// When, RFC 3339 in UTC.
    pub created: String,
    /// The archive for every machine, where nothing differs from node to node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Archive>,
    /// The archive of each node, where something does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<Name, Archive>,
}

impl Index {
    /// What was published last of the overlay `name`; nothing when it never was.
    ///
    /// # Errors
    /// The index is unreadable or of another version.
    pub(crate) fn of(site: &Site, name: &Name) -> Result<Option<Self>> {
        let path = site.overlay_store().join(name.as_str()).join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let read = || -> Result<Self> {
            let index: Self = serde_json::from_slice(&fs::read(&path)?)?;
            ensure!(index.format == FORMAT, "it has format {}, not {FORMAT}", index.format);
            Ok(index)
        };
        read().map(Some).with_context(|| format!("reading {}", path.display()))
    }

    /// All archives.
    pub fn archives(&self) -> impl Iterator<Item = &Archive> {
        self.shared.iter().chain(self.nodes.values())
    }

    /// Checks that an archive of this overlay is signed with one of these keys, as a node will.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    pub(crate) fn check_signature(&self, site: &Site, archive: &Archive, keys: &Keys) -> Result<()> {
        let path = site.overlay_store().join(self.name.as_str()).join(&archive.file);
        let signature = path.with_file_name(format!("{}{SIGNATURE_SUFFIX}", archive.file));
        ensure!(signature.exists(), "it has no signature");
        let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        keys.verify(&read(&path)?, &SignatureFile::parse(&read(&signature)?)?)
    }

    /// The archive for `node`, or for a machine that no node entry names; nothing when there is none for such a machine.
    ///
    /// # Errors
    /// The node, or a fact of it, is newer than what was published; says so in a sentence.
    pub(crate) fn archive(&self, site: &Site, node: Option<&Node>) -> Result<Option<&Archive>, String> {
        let (Some(node), None) = (node, &self.shared) else { return Ok(self.shared.as_ref()) };
        let overlay = &self.name;
        let again = format!("run: rootstream overlay publish {overlay}");
        let Some(archive) = self.nodes.get(&node.name) else {
            return Err(format!("the overlay {overlay} was published without it; {again}"));
        };
        let now = facts::of(site.config(), node);
        match archive.facts.iter().find(|(name, text)| now.get(*name) != Some(text)) {
            Some((name, text)) => {
                Err(format!("the overlay {overlay} was published when its {name} was {text}; {again}"))
            }
            None => Ok(Some(archive)),
        }
    }
}
