//! Unpacks an archive that comes as one stream.

use std::io::BufRead;
use std::path::Path;

use super::Unpack;
use super::archive::Archive;
use super::tree::{Rules, Tree};

/// What became of an archive.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Bytes of file data written.
    pub(super) bytes: u64,
    /// Members written.
    pub(super) entries: u64,
    /// What was left out, one sentence each.
    pub(super) warnings: Vec<String>,
}

/// Unpacks everything that `input` holds, to its very end, into the directory `root`.
///
/// # Errors
/// The archive is damaged or refused, or the file system does.
pub(super) fn unpack(input: impl BufRead, root: &Path, options: Unpack, rules: Rules<'_>) -> anyhow::Result<Unpacked> {
    let mut tree = Tree::open(root, options, rules)?;
    let mut archive = Archive::new(input);
    while let Some(member) = archive.next()? {
        tree.add(member, &mut archive, None)?;
    }
    tree.unknown = archive.unknown;
    let mut unpacked = tree.finish()?;
    if archive.unmarked {
        unpacked.warnings.push("the archive has no end mark; it may have been cut short when it was made".to_owned());
    }
    Ok(unpacked)
}
