//! A file system image goes into the new root's tmpfs as one file, as far as its superblock says that it goes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::filesystem::{BLOCK, HEAD, Kind};
use crate::failure::{Advise as _, refuse};

const NO_ROOM: &str = "give the node more memory (or a larger rootstream.tmpfs=size=), or make the image smaller";

/// The file's place below the root.
pub(super) fn path(root: &Path, kind: Kind) -> PathBuf {
    root.join(format!("image.{}", kind.name()))
}

/// Makes the file, which only root can read: an image may hold what only root may read.
///
/// # Errors
/// It is there, or cannot be made.
pub(super) fn create(root: &Path, kind: Kind) -> anyhow::Result<File> {
    let path = path(root, kind);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o400).open(&path);
    file.with_context(|| format!("making {}", path.display()))
}

/// Stores what comes out of `input`, whose first [`HEAD`] bytes are at hand already; returns how many bytes the file
/// system has. What follows it may only be zeros, as tools pad with them, and is not kept.
///
/// # Errors
/// The file system is cut short or followed by anything else, or there is no room.
pub(super) fn store(kind: Kind, mut input: impl BufRead, root: &Path) -> anyhow::Result<u64> {
    let length = kind.length(input.fill_buf()?)?;
    let mut file = create(root, kind)?;
    let mut at = 0;
    loop {
        let bytes = input.fill_buf()?;
        let count = bytes.len();
        if count == 0 {
            break;
        }
        let kept = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX).min(count);
        let (ours, rest) = bytes.split_at(kept);
        file.write_all(ours).advise("storing the image", NO_ROOM)?;
        if rest.iter().any(|byte| *byte != 0) {
            let what = format!("bytes follow the end of the {} file system at byte {length}", kind.name());
            return Err(refuse(what, "publish the image again, without what was appended to it"));
        }
        at += count as u64;
        input.consume(count);
    }
    kind.check_whole(length, at)?;
    pad(&file, length)?;
    Ok(length)
}

/// Checks a file that was written piece by piece, and makes it fit to be mounted.
///
/// # Errors
/// It is none of this kind, or its file system is longer than it.
pub(super) fn check(kind: Kind, file: &File) -> anyhow::Result<()> {
    let mut head = vec![0; HEAD];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    head.truncate(filled);
    let length = kind.check(&head, file.metadata()?.len())?;
    Ok(pad(file, length)?)
}

/// A loop device ends at the last whole block.
fn pad(file: &File, length: u64) -> io::Result<()> {
    file.set_len(length.next_multiple_of(BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A squashfs superblock that claims this length, and bytes behind it.
    fn image(length: u64, bytes: usize) -> Vec<u8> {
        let mut image = vec![7; bytes];
        image[..48].fill(0);
        image[..4].copy_from_slice(b"hsqs");
        image[12..16].copy_from_slice(&131_072_u32.to_le_bytes());
        (image[20], image[22], image[28]) = (6, 17, 4);
        image[40..48].copy_from_slice(&length.to_le_bytes());
        image
    }

    fn stored(image: &[u8]) -> anyhow::Result<Vec<u8>> {
        let root = tempfile::tempdir().unwrap();
        let length = store(Kind::Squashfs, io::BufReader::with_capacity(HEAD, image), root.path())?;
        let file = std::fs::read(root.path().join("image.squashfs")).unwrap();
        assert_eq!(file.len() as u64, length.next_multiple_of(BLOCK));
        check(
            Kind::Squashfs,
            &File::options().read(true).write(true).open(path(root.path(), Kind::Squashfs)).unwrap(),
        )?;
        Ok(file)
    }

    // F35
    #[test]
    fn exactly_the_file_system_is_stored() {
        let whole = image(9000, 9000);
        let file = stored(&whole).unwrap();
        assert!(file[..9000] == whole && file[9000..].iter().all(|byte| *byte == 0));
        assert_eq!(stored(&[&whole[..], &[0; 70_000]].concat()).unwrap(), file);
        for (bad, why) in [
            (image(9001, 9000), "9001 bytes, but the file only 9000"),
            (image(9000, 9001), "bytes follow the end of the squashfs file system at byte 9000"),
            ([&whole[..], &[0; 70_000], b"x"].concat(), "bytes follow the end"),
            (image(u64::MAX, 9000), "claims a length"),
        ] {
            let error = format!("{:#}", stored(&bad).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_the_manifest_says_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        let file = create(root.path(), Kind::Erofs).unwrap();
        assert!(create(root.path(), Kind::Erofs).is_err());
        file.write_all_at(&image(9000, 9000), 0).unwrap();
        let error = check(Kind::Erofs, &file).unwrap_err().to_string();
        assert!(error.contains("no erofs file system"), "{error}");
        check(Kind::Squashfs, &file).unwrap();
        file.set_len(8999).unwrap();
        assert!(check(Kind::Squashfs, &file).unwrap_err().to_string().contains("it was cut"));
    }
}
