//! One archive of an overlay: the same files and facts always make the same bytes.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use libdeflater::{CompressionLvl, Compressor};
use tar::{Builder, EntryType, Header};

use super::source::{Item, Source};
use super::template;
use crate::image::secrets;

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

    /// Packs an archive. The bytes do not depend on the machine.
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
                let mut gzip = Compressor::new(CompressionLvl::best());
                let mut bytes = vec![0; gzip.gzip_compress_bound(archive.len())];
                let size = gzip.gzip_compress(archive, &mut bytes).context(packing)?;
                bytes.truncate(size);
                Ok(bytes)
            }
        }
    }
}

/// An archive for one node, or for all.
#[derive(Debug)]
pub(super) struct Made {
    /// Not packed yet.
    pub(super) bytes: Vec<u8>,
    /// The facts that templates used.
    pub(super) facts: BTreeMap<String, String>,
    /// What makes it unfit for a network that everybody reads, one sentence each.
    pub(super) secrets: Vec<String>,
}

/// The archive for a node of which these facts are known.
///
/// Everything belongs to root. Folders with something in them are not in the archive: where the image has them they stay
/// as they are, and elsewhere the agent makes them, 0755. So no umask on the master can lock a node's /etc.
///
/// # Errors
/// A template wants a fact that the node has not.
pub(super) fn make(source: &Source, known: &BTreeMap<String, String>) -> Result<Made> {
    let mut tar = Builder::new(Vec::new());
    let (mut facts, mut secrets) = (BTreeMap::new(), Vec::new());
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
                let filled = template::fill(text, known, &mut facts).with_context(|| path.display().to_string())?;
                (EntryType::Regular, *mode, filled)
            }
        };
        if kind == EntryType::Regular && secrets::worth_reading(name, content.len() as u64).is_some() {
            secrets.extend(secrets::found(name, &content));
        }
        let mut header = header(kind, mode);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_slice()).with_context(packing)?;
    }
    Ok(Made { bytes: tar.into_inner().context("ending the archive")?, facts, secrets })
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
