//! What unpacking an archive leaves: which names there are, what is behind each, and where in the archive a
//! file's bytes are. Members are taken in as tar(1) extracts them: the last of a name wins, and a name whose
//! directory is a symlink goes where that leads, inside the image.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::errno::Errno;
use rootstream::failure::refuse;
use rootstream::image::archive::{self, Archive, Member, Name, Time};

/// As the kernel's own limit.
const MOST_LINKS: u32 = 40;
/// Longer names and paths, and longer targets of symlinks, are refused by the kernel.
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 4095;
/// Larger files are mistakes, or holes: what a manifest lists is every byte.
const LARGEST_FILE: u64 = 256 << 30;

/// A file, directory or other thing, without its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Sorted by name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Data),
    Symlink(Vec<u8>),
    Fifo,
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// A file's bytes: parts of the archive that it comes from, and zeros between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// The file's length.
    pub(crate) size: u64,
    /// Offset in the file and length of each part, in order, without overlap.
    parts: Vec<(u64, u64)>,
    /// Where the first part is in the archive; the others follow it.
    at: u64,
}

/// Some bytes of the archive that belong to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where in the file.
    pub(crate) offset: u64,
    /// Where in the archive.
    pub(crate) at: u64,
    /// How many.
    pub(crate) length: u64,
}

impl Data {
    /// The pieces of the archive that make up the file's bytes from `from` to `to`; what is between them is
    /// zeros.
    pub(crate) fn pieces(&self, from: u64, to: u64) -> impl Iterator<Item = Piece> {
        let mut at = self.at;
        self.parts.iter().filter_map(move |(offset, length)| {
            let begin = at;
            at += length;
            let (first, end) = ((*offset).max(from), (offset + length).min(to));
            (first < end).then(|| Piece { offset: first, at: begin + (first - offset), length: end - first })
        })
    }
}

/// All names, each with what is behind it. The key is the path with `\0` for `/`: so that everything in a
/// directory comes directly after it.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    names: BTreeMap<Vec<u8>, Arc<Node>>,
}

impl Tree {
    /// Takes in a whole archive.
    ///
    /// # Errors
    /// The archive is damaged or cut short, or unpacking it would fail; the member is named.
    pub(crate) fn read(input: impl BufRead) -> Result<Self> {
        let mut tree = Self::default();
        let mut archive = Archive::new(input);
        let mut newest = None;
        while let Some(member) = archive.next()? {
            newest = newest.max(Some(member.mtime));
            let at = archive.position();
            let name = member.path.escape_ascii().to_string();
            tree.add(member, at).with_context(|| format!("the archive's member \"{name}\""))?;
        }
        if archive.unmarked {
            return Err(refuse("the archive has no end mark: it was cut short", "build the image again"));
        }
        if archive.unknown > 0 {
            return Err(refuse(
                format!("{} members of the archive, named above, are of unknown types", archive.unknown),
                "take them out of the image",
            ));
        }
        let newest = newest.context("the archive holds nothing")?;
        tree.names.entry(Vec::new()).or_insert_with(|| Arc::new(implied(newest)));
        Ok(tree)
    }

    /// Every path, without a slash at its ends, with what is behind it; empty for the root. Directories come
    /// before what is in them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Vec<u8>, &Arc<Node>)> {
        self.names.iter().map(|(key, node)| (path(key), node))
    }

    fn add(&mut self, member: Member, at: u64) -> Result<()> {
        let name = Name::new(&member.path)?;
        limits(&name, &member)?;
        let (parent, last) = name.split();
        let parent = self.directory_made(parent, member.mtime).map_err(|errno| unreachable(parent, errno))?;
        let key = if name.bytes().is_empty() { Vec::new() } else { below(&parent, last) };
        if member.kind == archive::Kind::HardLink {
            return self.add_hard_link(key, &member);
        }
        let node = node(member, at)?;
        let is_directory = node.kind == Kind::Directory;
        if key.is_empty() && !is_directory {
            return Err(refuse("the archive's root is not a directory", "build the image again"));
        }
        // The root is there before all.
        let stays =
            is_directory && (key.is_empty() || self.names.get(&key).is_some_and(|old| old.kind == Kind::Directory));
        if !stays {
            self.refuse_to_lose(&key)?;
        }
        self.names.insert(key, Arc::new(node));
        Ok(())
    }

    fn add_hard_link(&mut self, key: Vec<u8>, member: &Member) -> Result<()> {
        let target = Name::new(&member.link).context("its target")?;
        let (folder, last) = target.split();
        let missing = |why: Errno| {
            let what = format!("it is a hard link to {target}: {}", why.desc());
            refuse(what, "build the image again: a hard link's target comes before the link")
        };
        let folder = self.directory(folder).map_err(missing)?;
        let from = if target.bytes().is_empty() { folder } else { below(&folder, last) };
        let there = Arc::clone(self.names.get(&from).ok_or_else(|| missing(Errno::ENOENT))?);
        if there.kind == Kind::Directory {
            return Err(missing(Errno::EISDIR));
        }
        if from != key {
            self.refuse_to_lose(&key)?;
            self.names.insert(key, there);
        }
        Ok(())
    }

    /// Refuses to replace a directory that holds something, as rmdir(2) would.
    fn refuse_to_lose(&self, key: &[u8]) -> Result<()> {
        let directory = self.names.get(key).is_some_and(|old| old.kind == Kind::Directory);
        let first = below(key, b"");
        let holds = directory && self.names.range(first.clone()..).next().is_some_and(|(k, _)| k.starts_with(&first));
        if key.is_empty() || holds {
            let what = format!("it would replace the directory /{}, which is not empty", path(key).escape_ascii());
            return Err(refuse(what, "build the image again: what lies below must go elsewhere first"));
        }
        Ok(())
    }

    /// The key of the directory at `path`, symlinks on the way and at the end followed inside the image.
    fn directory(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut here = Vec::new();
        let mut todo = components(path);
        let mut links = 0;
        while let Some(component) = todo.pop() {
            if component == b".." {
                here.truncate(here.iter().rposition(|byte| *byte == 0).unwrap_or(0));
                continue;
            }
            let next = below(&here, &component);
            match self.names.get(&next).map(|node| &node.kind) {
                None => return Err(Errno::ENOENT),
                Some(Kind::Directory) => here = next,
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    if target.first() == Some(&b'/') {
                        here.clear();
                    }
                    todo.extend(components(target));
                }
                Some(_) => return Err(Errno::ENOTDIR),
            }
        }
        Ok(here)
    }

    /// The same, making the directories that are missing.
    fn directory_made(&mut self, path: &[u8], mtime: Time) -> Result<Vec<u8>, Errno> {
        match self.directory(path) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut parent = Vec::new();
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            let key = below(&parent, path.get(start..end).unwrap_or_default());
            self.names.entry(key).or_insert_with(|| Arc::new(implied(mtime)));
            parent = self.directory(path.get(..end).unwrap_or_default())?;
            start = end + 1;
        }
        Ok(parent)
    }
}

/// The directory that tar(1) makes where none is declared; not with the time of the day, so that it is the same
/// tomorrow.
fn implied(mtime: Time) -> Node {
    Node { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
}

fn node(member: Member, at: u64) -> Result<Node> {
    let kind = match member.kind {
        archive::Kind::Directory | archive::Kind::HardLink => Kind::Directory,
        archive::Kind::File => Kind::File(match member.map {
            Some(map) => Data { size: map.size, parts: map.parts, at },
            None => Data { size: member.archived, parts: vec![(0, member.archived)], at },
        }),
        archive::Kind::Symlink => Kind::Symlink(member.link),
        archive::Kind::Fifo => Kind::Fifo,
        archive::Kind::Character { major, minor } => Kind::Character { major, minor },
        archive::Kind::Block { major, minor } => Kind::Block { major, minor },
    };
    if let Kind::File(data) = &kind
        && data.size > LARGEST_FILE
    {
        let what = format!("it is {} GiB long, {} is the most", data.size >> 30, LARGEST_FILE >> 30);
        return Err(refuse(what, "make it smaller or leave it out; where it is a sparse log, empty it"));
    }
    let mut xattrs = member.xattrs;
    xattrs.sort();
    let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { member.mode };
    Ok(Node { kind, mode, uid: member.uid, gid: member.gid, mtime: member.mtime, xattrs })
}

fn limits(name: &Name, member: &Member) -> Result<()> {
    let longest = name.bytes().split(|byte| *byte == b'/').map(<[u8]>::len).max().unwrap_or(0);
    if longest > LONGEST_NAME || name.bytes().len() > LONGEST_PATH || member.link.len() > LONGEST_PATH {
        return Err(refuse("its name, path or target is too long for Linux", "leave it out of the image"));
    }
    if member.kind == archive::Kind::Symlink && (member.link.is_empty() || member.link.contains(&0)) {
        return Err(refuse("it is a symlink that leads nowhere", "leave it out of the image"));
    }
    Ok(())
}

fn unreachable(parent: &[u8], errno: Errno) -> anyhow::Error {
    let what = format!("its directory /{}: {}", parent.escape_ascii(), errno.desc());
    refuse(what, "build the image again: what is above it is a file, or a symlink that leads to no directory")
}

fn below(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"\0", name].concat() }
}

fn path(key: &[u8]) -> Vec<u8> {
    key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect()
}

/// The components of a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let mut parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}
