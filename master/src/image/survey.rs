//! One look at an image: how big it is, which kernels and init it has, what must not be in it.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rootstream::failure::refuse;

use super::canon::tree::Data;
use super::canon::{Kind, Tree};
use super::secrets;
use crate::config::addresses::Name;

/// What an image holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Bytes of all files.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of the largest file.
    pub largest: u64,
    /// Kernel releases that have modules in it.
    pub kernels: BTreeSet<String>,
    /// The path of its init.
    pub init: Option<String>,
    /// What makes it unfit for sharing, one sentence each.
    pub secrets: Vec<String>,
}

/// Looks at a tree whose files' bytes are in `source`.
///
/// # Errors
/// That cannot be read.
pub(super) fn survey(tree: &Tree, source: &File) -> Result<Survey> {
    let mut survey = Survey::default();
    let mut seen = HashSet::new();
    for (path, node) in tree.iter() {
        survey.note_path(&path);
        let first = seen.insert(Arc::as_ptr(node));
        survey.inodes += u64::from(first);
        let Kind::File(data) = &node.kind else { continue };
        if first {
            survey.bytes += data.size;
            survey.largest = survey.largest.max(data.size);
        }
        let name = Path::new(OsStr::from_bytes(&path));
        if let Some(limit) = secrets::worth_reading(name, data.size) {
            let content = read(data, limit, source).with_context(|| format!("reading /{}", name.display()))?;
            survey.secrets.extend(secrets::found(name, &content));
        }
    }
    Ok(survey)
}

fn read(data: &Data, limit: u64, source: &File) -> Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(limit.min(data.size))?];
    for piece in data.pieces(0, content.len() as u64) {
        let at = usize::try_from(piece.offset)?;
        let into = content.get_mut(at..at + usize::try_from(piece.length)?).context("a piece outside its file")?;
        source.read_exact_at(into, piece.at)?;
    }
    Ok(content)
}

impl Survey {
    /// Refuses an image with secrets in it.
    ///
    /// # Errors
    /// It has some, and they are not allowed.
    pub(super) fn refuse_secrets(&self, name: &Name, allowed: bool) -> Result<()> {
        if self.secrets.is_empty() {
            return Ok(());
        }
        if allowed {
            for secret in &self.secrets {
                log::warn!("image {name}: {secret}");
            }
            return Ok(());
        }
        Err(refuse(
            format!("the image {name} holds secrets: {}", self.secrets.join("; ")),
            "every machine on the boot network can fetch it: take them out of the recipe, or accept it with --allow-secrets",
        ))
    }

    /// Takes note of a name in the image.
    pub(super) fn note_path(&mut self, path: &[u8]) {
        // Debian links /lib and /sbin into /usr; other systems, and older ones, have them apart.
        let unified = path.strip_prefix(b"usr/").unwrap_or(path);
        if let Some(inside) = unified.strip_prefix(b"lib/modules/")
            && let Some(release) = inside.split(|byte| *byte == b'/').next()
        {
            self.kernels.insert(String::from_utf8_lossy(release).into_owned());
        }
        if unified == b"sbin/init" {
            self.init = Some("/sbin/init".to_owned());
        }
    }
}

/// An entry's name without a leading `./` or `/`.
pub(crate) fn plain(name: &Path) -> PathBuf {
    name.components().filter(|c| matches!(c, std::path::Component::Normal(_))).collect()
}
