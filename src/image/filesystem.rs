//! File system images: squashfs and erofs, by what their superblocks say. No I/O.
//!
//! The formats are in Linux's fs/squashfs/squashfs_fs.h and fs/erofs/erofs_fs.h.

use anyhow::ensure;

use super::manifest::Media;
use crate::failure::{Advise as _, refuse};

/// Bytes from the file's beginning that hold the superblock of any kind.
pub const HEAD: usize = 2048;
/// What a block device's length is a multiple of, so that no tail is lost.
pub(super) const BLOCK: u64 = 4096;

const SQUASHFS: &[u8] = b"hsqs";
const EROFS_AT: usize = 1024;
const EROFS: [u8; 4] = 0xe0f5_e1e2_u32.to_le_bytes();

/// A kind of file system that an image can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Squashfs,
    Erofs,
}

impl Kind {
    /// The kernel's name of it, its module and its name in records.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }

    /// The kind that a manifest says; nothing for archives.
    pub(super) fn of(media: Media) -> Option<Self> {
        match media {
            Media::Squashfs => Some(Self::Squashfs),
            Media::Erofs => Some(Self::Erofs),
            Media::TarZstd | Media::TarGzip => None,
        }
    }

    /// What the first bytes of a file are, if they are of a file system.
    pub(super) fn sniff(head: &[u8]) -> Option<Self> {
        if head.starts_with(SQUASHFS) {
            return Some(Self::Squashfs);
        }
        head.get(EROFS_AT..).is_some_and(|at| at.starts_with(&EROFS)).then_some(Self::Erofs)
    }

    /// The length of the file system in a file that begins with `head`: [`HEAD`] bytes, or all there are.
    ///
    /// # Errors
    /// Its superblock is cut short, or is of no file system that Linux mounts.
    pub(super) fn length(self, head: &[u8]) -> anyhow::Result<u64> {
        let todo = "make the image anew (mksquashfs, mkfs.erofs, or rootstream image publish --format)";
        let length = match self {
            Self::Squashfs => squashfs(head),
            Self::Erofs => erofs(head.get(EROFS_AT..).unwrap_or_default()),
        };
        length.advise(format!("the {} superblock", self.name()), todo)
    }

    /// The length of this file system in a file of `size` bytes that begins with `head`.
    ///
    /// # Errors
    /// It is none of this kind, or longer than the file.
    pub(super) fn check(self, head: &[u8], size: u64) -> anyhow::Result<u64> {
        if Self::sniff(head) != Some(self) {
            let what = format!("the file is no {} file system, as its manifest says", self.name());
            return Err(refuse(what, "publish the image again"));
        }
        let length = self.length(head)?;
        self.check_whole(length, size)?;
        Ok(length)
    }

    /// Compares a file's length with what its superblock says.
    ///
    /// # Errors
    /// It was cut short.
    pub(super) fn check_whole(self, length: u64, file: u64) -> anyhow::Result<()> {
        if file >= length {
            return Ok(());
        }
        let what = format!("the {} file system has {length} bytes, but the file only {file}: it was cut", self.name());
        Err(refuse(what, "publish the image again, from the whole file"))
    }
}

/// Whether a file of `size` bytes that begins with `head` ([`HEAD`] bytes, or all there are) holds the whole file
/// system that a manifest says.
///
/// # Errors
/// It is an archive that is said, none or another one is there, or it was cut.
pub fn check_file_system(media: Media, head: &[u8], size: u64) -> anyhow::Result<()> {
    let Some(kind) = Kind::of(media) else { anyhow::bail!("{} is no file system", media.name()) };
    kind.check(head, size).map(drop)
}

fn squashfs(head: &[u8]) -> anyhow::Result<u64> {
    let (major, minor) = (number(head, 28, 2)?, number(head, 30, 2)?);
    ensure!((major, minor) == (4, 0), "it has version {major}.{minor}; Linux mounts 4.0");
    let (block, log, bytes) = (number(head, 12, 4)?, number(head, 22, 2)?, number(head, 40, 8)?);
    ensure!((12..=20).contains(&log) && block == 1 << log, "it has blocks of {block} bytes, log {log}");
    let compression = number(head, 20, 2)?;
    // 2 is the old lzma, which no Linux release reads.
    ensure!(matches!(compression, 1 | 3..=6), "it is compressed by method {compression}, which Linux does not know");
    ensure!(bytes > 96 && bytes < 1 << 62, "it claims a length of {bytes} bytes");
    Ok(bytes)
}

fn erofs(superblock: &[u8]) -> anyhow::Result<u64> {
    let (log, blocks) = (number(superblock, 12, 1)?, number(superblock, 36, 4)?);
    ensure!((9..=16).contains(&log), "it has blocks of 2^{log} bytes");
    ensure!(blocks > 0, "it claims to have no blocks");
    Ok(blocks << log)
}

/// The little-endian number in `size` bytes from `at` on.
fn number(bytes: &[u8], at: usize, size: usize) -> anyhow::Result<u64> {
    let bytes = bytes.get(at..at + size).ok_or_else(|| anyhow::anyhow!("it is cut short"))?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squash(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[..4].copy_from_slice(SQUASHFS);
        head[12..16].copy_from_slice(&131_072_u32.to_le_bytes());
        head[20] = 6;
        head[22] = 17;
        head[28] = 4;
        head[40..48].copy_from_slice(&1_000_000_u64.to_le_bytes());
        change(&mut head);
        head
    }

    fn ero(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[EROFS_AT..EROFS_AT + 4].copy_from_slice(&EROFS);
        head[EROFS_AT + 12] = 12;
        head[EROFS_AT + 36..EROFS_AT + 40].copy_from_slice(&300_u32.to_le_bytes());
        change(&mut head[EROFS_AT..]);
        head
    }

    // F42
    #[test]
    fn the_magic_tells_the_kind_and_the_superblock_the_length() {
        for (head, kind, length) in
            [(squash(|_| {}), Kind::Squashfs, 1_000_000), (ero(|_| {}), Kind::Erofs, 300 * 4096)]
        {
            assert_eq!(Kind::sniff(&head), Some(kind));
            assert_eq!(kind.length(&head).unwrap(), length);
            kind.check_whole(length, length).unwrap();
            let error = kind.check_whole(length, length - 1).unwrap_err().to_string();
            assert!(error.contains(&format!("only {}: it was cut", length - 1)), "{error}");
        }
        assert_eq!(Kind::sniff(b""), None);
        assert_eq!(Kind::sniff(&[0; HEAD]), None);
    }

    #[test]
    fn superblocks_that_cannot_be_are_refused() {
        for (head, why) in [
            (squash(|head| head[28] = 3), "version 3.0"),
            (squash(|head| head[22] = 18), "blocks of 131072 bytes, log 18"),
            (squash(|head| head[20] = 2), "method 2"),
            (squash(|head| head[40..48].fill(0xff)), "claims a length"),
            (squash(|head| head[40..48].fill(0)), "claims a length of 0"),
            (squash(|_| {})[..47].to_vec(), "cut short"),
        ] {
            let error = format!("{:#}", Kind::Squashfs.length(&head).unwrap_err());
            assert!(error.starts_with("the squashfs superblock") && error.contains(why), "{error}");
        }
        for (head, why) in [
            (ero(|superblock| superblock[12] = 60), "2^60"),
            (ero(|superblock| superblock[36..40].fill(0)), "no blocks"),
            (ero(|_| {})[..EROFS_AT + 39].to_vec(), "cut short"),
            (vec![0; 10], "cut short"),
        ] {
            let error = format!("{:#}", Kind::Erofs.length(&head).unwrap_err());
            assert!(error.starts_with("the erofs superblock") && error.contains(why), "{error}");
        }
        assert!(erofs(&[0xff; 128]).is_err());
    }
}
