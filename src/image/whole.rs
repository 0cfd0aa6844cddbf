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
            Self::Gzip(decoder) => {
                // The decoder does not look behind the member's end, which is its length. A reader of the whole file
                // would not see what the next chunks hold.
                let length = u32::try_from(unpacked.len())?.to_le_bytes();
                ensure!(packed.ends_with(&length), "bytes follow the end of the gzip data");
                decoder.gzip_decompress(packed, unpacked).context("decoding gzip")?
            }
            Self::Zstd(decoder) => decoder.decompress_to_buffer(packed, unpacked).context("decoding zstd")?,
        };
        ensure!(count == unpacked.len(), "it decodes to {count} bytes, not {}", unpacked.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    // F38, F39, F40
    #[test]
    fn a_chunk_is_one_whole_and_nothing_else() {
        let bytes = b"some bytes, some more bytes";
        let zstd = zstd::bulk::compress(bytes, 3).unwrap();
        for (media, packed) in [(Media::TarGzip, gzip(bytes)), (Media::TarZstd, zstd)] {
            let decode = |packed: &[u8], length: usize| {
                let mut place = vec![0; length];
                Decoder::new(media).unwrap().decode(packed, &mut place).map(|()| place)
            };
            assert_eq!(decode(&packed, bytes.len()).unwrap(), bytes);
            for length in [0, bytes.len() - 1, bytes.len() + 1] {
                assert!(decode(&packed, length).is_err(), "{media:?}: {length}");
            }
            for end in 0..packed.len() {
                assert!(decode(&packed[..end], bytes.len()).is_err(), "{media:?}: cut at {end}");
            }
            for behind in [&b"\0"[..], b"junk", &gzip(b"another member")] {
                assert!(decode(&[&packed, behind].concat(), bytes.len()).is_err(), "{media:?}: {behind:?}");
            }
        }
        assert!(Decoder::new(Media::Squashfs).is_err());
    }
}
