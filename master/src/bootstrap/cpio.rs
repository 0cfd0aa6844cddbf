//! The archive format of an initramfs: cpio "newc", as in the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.
//!
//! The same entries give the same bytes: sorted by path, times zero, inodes numbered from 1, all of root.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;

/// An archive in the making. Paths are relative, with `/` between parts.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

impl Archive {
    /// Adds a regular file, and the folders above it.
    pub fn file(&mut self, path: &str, permissions: u32, content: Vec<u8>) {
        self.entry(path, Entry { mode: FILE | permissions, device: (0, 0), content });
    }

    /// Adds an empty folder.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, Entry { mode: FOLDER | 0o755, device: (0, 0), content: Vec::new() });
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.entry(path, Entry { mode: CHARACTER | permissions, device: (major, minor), content: Vec::new() });
    }

    fn entry(&mut self, path: &str, entry: Entry) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && !self.entries.contains_key(parent)
        {
            self.folder(parent);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// A file of 4 GiB or more, which the format cannot hold.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut inode = 0;
        for (path, entry) in &self.entries {
            inode += 1;
            append(&mut out, inode, path, entry)?;
        }
        let end = Entry { mode: 0, device: (0, 0), content: Vec::new() };
        append(&mut out, 0, "TRAILER!!!", &end)?;
        Ok(out)
    }
}

fn append(out: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) -> Result<()> {
    let size = u32::try_from(entry.content.len());
    ensure!(size.is_ok(), "{path} is larger than an initramfs can hold");
    let links = if entry.mode & FOLDER == FOLDER { 2 } else { 1 };
    let fields = [
        inode,
        entry.mode,
        0, // user
        0, // group
        links,
        0, // time
        size.unwrap_or_default(),
        0, // device of the file system, major and minor
        0,
        entry.device.0,
        entry.device.1,
        u32::try_from(path.len() + 1).unwrap_or(u32::MAX),
        0, // checksum, of another variant
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(&entry.content);
    pad(out);
    Ok(())
}

/// Headers and contents start at multiples of 4.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::process::{Command, Stdio};

    fn sample() -> Archive {
        let mut archive = Archive::default();
        archive.file("lib/modules/6.1/kernel/x.ko", 0o644, b"module".to_vec());
        archive.file("init", 0o755, b"#!/bin/sh\n".to_vec());
        archive.character_device("dev/console", 0o600, 5, 1);
        archive.folder("proc");
        archive
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"hello".to_vec());
        let expected = "07070100000001000081ed000000000000000000000001000000000000000500000000000000000000000000000000\
                        0000000500000000init\0\0hello\0\0\0\
                        07070100000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000b\
                        00000000TRAILER!!!\0\0\0\0";
        assert_eq!(String::from_utf8(archive.bytes().unwrap()).unwrap(), expected);
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let mut other = Archive::default();
        other.folder("proc");
        other.character_device("dev/console", 0o600, 5, 1);
        other.file("init", 0o755, b"#!/bin/sh\n".to_vec());
        other.file("lib/modules/6.1/kernel/x.ko", 0o644, b"module".to_vec());
        assert_eq!(sample().bytes().unwrap(), other.bytes().unwrap());
    }

    #[test]
    fn cpio_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["-idm", "--quiet", "--no-absolute-filenames"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&sample().bytes().unwrap()).unwrap();
        assert!(cpio.wait().unwrap().success());
        let at = |path: &str| folder.path().join(path);
        assert_eq!(std::fs::read(at("lib/modules/6.1/kernel/x.ko")).unwrap(), b"module");
        let init = at("init").metadata().unwrap();
        assert_eq!((init.permissions().mode() & 0o7777, init.mtime()), (0o755, 0));
        assert!(at("proc").is_dir());
        let console = at("dev/console").metadata().unwrap();
        assert!(console.file_type().is_char_device());
        assert_eq!(console.rdev(), nix::sys::stat::makedev(5, 1));
    }
}
