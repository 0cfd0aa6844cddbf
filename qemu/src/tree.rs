//! Two file trees, compared entry by entry.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::Context as _;

/// All that matters about one entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `f`, `d`, `l`, `c`, `b`, `p` or `s`, as find(1) has it.
    pub kind: char,
    /// Permission bits with setuid, setgid and sticky; 0 for symlinks.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Device number, 0 unless a device.
    pub device: u64,
    /// Length of a file.
    pub size: u64,
    /// Number of names of anything but a directory.
    pub links: u64,
    /// The first name of the same file in path order.
    pub same_as: Option<String>,
    /// Where a symlink leads.
    pub target: Option<String>,
    /// Hash of a file's bytes.
    pub content: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, String>,
}

/// The entries of the tree at `root` by path relative to it; `""` is the root itself. Symlinks
/// are not followed; bytes that are not ASCII are escaped.
///
/// # Errors
/// Something cannot be read.
pub fn walk(root: &Path) -> anyhow::Result<BTreeMap<String, Entry>> {
    let mut paths = vec![root.to_owned()];
    let mut found = BTreeMap::new();
    while let Some(path) = paths.pop() {
        let entry = look(&path).with_context(|| format!("looking at {}", path.display()))?;
        if entry.0.kind == 'd' {
            for child in std::fs::read_dir(&path)? {
                paths.push(child?.path());
            }
        }
        let relative = path.strip_prefix(root)?.as_os_str().as_bytes().escape_ascii().to_string();
        found.insert(relative, entry);
    }
    let mut first = HashMap::new();
    let mut entries = BTreeMap::new();
    for (path, (mut entry, inode)) in found {
        if entry.kind != 'd' && entry.links > 1 {
            entry.same_as = Some(first.entry(inode).or_insert_with(|| path.clone()).clone());
        }
        entries.insert(path, entry);
    }
    Ok(entries)
}

/// What differs between two trees, a line for each entry and field; empty when they are equal.
///
/// # Errors
/// A tree cannot be read.
pub fn compare_trees(a: &Path, b: &Path) -> anyhow::Result<Vec<String>> {
    let (ours, mut theirs) = (walk(a)?, walk(b)?);
    let mut differences = Vec::new();
    for (path, entry) in ours {
        match theirs.remove(&path) {
            None => differences.push(format!("\"{path}\": only in {}", a.display())),
            Some(other) if other != entry => differences.push(format!("\"{path}\":\n  {entry:?}\n  {other:?}")),
            Some(_) => {}
        }
    }
    differences.extend(theirs.keys().map(|path| format!("\"{path}\": only in {}", b.display())));
    Ok(differences)
}

fn look(path: &Path) -> anyhow::Result<(Entry, (u64, u64))> {
    let metadata = path.symlink_metadata()?;
    let kind = kind(&metadata);
    let mut xattrs = BTreeMap::new();
    for name in xattr::list(path)? {
        let value = xattr::get(path, &name)?.unwrap_or_default();
        xattrs.insert(name.as_bytes().escape_ascii().to_string(), value.escape_ascii().to_string());
    }
    let target = match kind {
        'l' => Some(std::fs::read_link(path)?.as_os_str().as_bytes().escape_ascii().to_string()),
        _ => None,
    };
    let entry = Entry {
        kind,
        mode: if kind == 'l' { 0 } else { metadata.mode() & 0o7777 },
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        device: if matches!(kind, 'c' | 'b') { metadata.rdev() } else { 0 },
        size: if kind == 'f' { metadata.size() } else { 0 },
        links: if kind == 'd' { 0 } else { metadata.nlink() },
        same_as: None,
        target,
        content: if kind == 'f' { hash(path)? } else { 0 },
        xattrs,
    };
    Ok((entry, (metadata.dev(), metadata.ino())))
}

fn kind(metadata: &Metadata) -> char {
    let kind = metadata.file_type();
    [
        (kind.is_dir(), 'd'),
        (kind.is_symlink(), 'l'),
        (kind.is_char_device(), 'c'),
        (kind.is_block_device(), 'b'),
        (kind.is_fifo(), 'p'),
        (kind.is_socket(), 's'),
    ]
    .into_iter()
    .find_map(|(is, letter)| is.then_some(letter))
    .unwrap_or('f')
}

fn hash(path: &Path) -> anyhow::Result<u64> {
    let mut file = File::open(path)?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.write(buffer.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_told() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let time = std::time::SystemTime::UNIX_EPOCH;
        for (top, content) in [(&a, "one"), (&b, "two")] {
            std::fs::write(top.path().join("same"), "same").unwrap();
            std::fs::write(top.path().join("differs"), content).unwrap();
            for name in ["same", "differs", "."] {
                File::open(top.path().join(name)).unwrap().set_modified(time).unwrap();
            }
        }
        let told = compare_trees(a.path(), b.path()).unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("\"differs\""), "{told:?}");
        std::fs::hard_link(a.path().join("same"), a.path().join("also")).unwrap();
        assert_eq!(compare_trees(a.path(), b.path()).unwrap().len(), 4);
    }
}
