//! One archive of an overlay: the same files and facts always make the same bytes.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::source::{Item, Source};
use super::template;

/// How overlays are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Small and quick to unpack.
    #[value(name = "tar.zst")]
    TarZst,
    /// For tools that know nothing newer.
    #[value(name = "tar.gz")]
    TarGz,
}

impl Format {
    /// The suffix of such a file's name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::TarZst => "tar.zst",
            Self::TarGz => "tar.gz",
        }
    }

    /// Packs an archive.
    pub(super) fn pack(self, archive: &[u8]) -> Result<Vec<u8>> {
        let packing = "packing the overlay";
        match self {
            Self::TarZst => {
                let mut encoder = zstd::Encoder::new(Vec::new(), 9).context(packing)?;
                encoder.include_checksum(true).context(packing)?;
                encoder.set_pledged_src_size(Some(archive.len() as u64)).context(packing)?;
                encoder.write_all(archive).context(packing)?;
                encoder.finish().context(packing)
            }
            Self::TarGz => {
                let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
                encoder.write_all(archive).context(packing)?;
                encoder.finish().context(packing)
            }
        }
    }
}

/// The archive for a node with these facts; those that templates use are noted in `used`.
///
/// Everything belongs to root. Folders with something in them are not in the archive: where the image has them they stay
/// as they are, and elsewhere the agent makes them, 0755. So no umask on the master can lock a node's /etc.
///
/// # Errors
/// A template wants a fact that the node has not.
pub(super) fn make(
    source: &Source,
    facts: &BTreeMap<String, String>,
    used: &mut BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (name, item) in &source.items {
        let packing = || format!("packing /{}", name.display());
        let (kind, mode, content) = match item {
            Item::Empty(mode) => (EntryType::Directory, *mode, Vec::new()),
            Item::Link(target) => {
                let mut header = header(EntryType::Symlink, 0o777);
                tar.append_link(&mut header, name, target).with_context(packing)?;
                continue;
            }
            Item::File(content, mode) => (EntryType::Regular, *mode, content.clone()),
            Item::Template(text, mode, path) => {
                let filled = template::fill(text, facts, used).with_context(|| path.display().to_string())?;
                (EntryType::Regular, *mode, filled)
            }
        };
        let mut header = header(kind, mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_slice()).with_context(packing)?;
    }
    tar.into_inner().context("ending the archive")
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}
