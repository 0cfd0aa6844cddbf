//! Decoding a chunk of a published image, which is whole in memory.

use anyhow::{Context as _, ensure};
use libdeflater::Decompressor as Inflater;
use zstd::bulk::Decompressor as Unzstd;

use super::manifest::Media;

/// A decoder with its state, which is worth keeping.
pub(super) enum Decoder {
    Gzip(Inflater),
    Zstd(Unzstd<'static>),
}

impl Decoder {
    /// The decoder for archives of this kind.
    ///
    /// # Errors
    /// There is no memory, or chunks of this kind need no decoder.
    pub(super) fn new(media: Media) -> anyhow::Result<Self> {
        match media {
            Media::TarGzip => Ok(Self::Gzip(Inflater::new())),
            Media::TarZstd => Ok(Self::Zstd(Unzstd::new().context("making a zstd decoder")?)),
            Media::Squashfs | Media::Erofs => anyhow::bail!("{} is no archive", media.name()),
        }
    }

    /// Decodes all of `packed`, which must fill `unpacked`.
    ///
    /// # Errors
    /// It is damaged, or decodes to another length.
    pub(super) fn decode(&mut self, packed: &[u8], unpacked: &mut [u8]) -> anyhow::Result<()> {
        let count = match self {
            Self::Gzip(decoder) => decoder.gzip_decompress(packed, unpacked).context("decoding gzip")?,
            Self::Zstd(decoder) => decoder.decompress_to_buffer(packed, unpacked).context("decoding zstd")?,
        };
        ensure!(count == unpacked.len(), "it decodes to {count} bytes, not {}", unpacked.len());
        Ok(())
    }
}
