//! Writes an archive's members into the new root, exactly as the archive says they are.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::Unpack;
use super::archive::{Archive, Kind, Member};
use super::metadata::{Metadata, Missed};
use super::path::Name;
use super::progress::megabytes;
use super::root::Root;
use crate::failure::{Advise as _, refuse};

/// Holes are made of whole pages of this size.
const PAGE: usize = 4096;

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
pub(super) fn unpack(input: impl BufRead, root: &Path, options: Unpack) -> anyhow::Result<Unpacked> {
    let opened = Root::open(root).with_context(|| format!("opening {}", root.display()))?;
    let mut tree = Tree {
        path: root.to_owned(),
        root: opened,
        owners: options.owners,
        directories: Vec::new(),
        known: HashMap::new(),
        left_out: HashSet::new(),
        missed: Missed::default(),
        absolute: 0,
        bytes: 0,
        entries: 0,
    };
    let mut archive = Archive::new(input);
    while let Some(member) = archive.next()? {
        tree.add(member, &mut archive)?;
    }
    if tree.entries == 0 {
        return Err(refuse("the archive holds nothing", "publish the image again"));
    }
    tree.finish_directories()?;
    let mut warnings = tree.warnings();
    if archive.unknown > 0 {
        warnings.push(format!("{} members of unknown type were left out", archive.unknown));
    }
    if archive.unmarked {
        warnings.push("the archive has no end mark; it may have been cut short when it was made".to_owned());
    }
    Ok(Unpacked { bytes: tree.bytes, entries: tree.entries, warnings })
}

struct Tree {
    path: PathBuf,
    root: Root,
    owners: bool,
    /// Directories in the order they came, to be finished when nothing more goes into them.
    directories: Vec<(Name, Metadata)>,
    known: HashMap<Name, usize>,
    /// Devices that were not made.
    left_out: HashSet<Name>,
    missed: Missed,
    absolute: u64,
    bytes: u64,
    entries: u64,
}

impl Tree {
    fn add<R: BufRead>(&mut self, mut member: Member, archive: &mut Archive<R>) -> anyhow::Result<()> {
        let name = self.name(&member.path)?;
        self.entries += 1;
        let metadata = Metadata::of(&mut member);
        if member.kind == Kind::Directory {
            return self.add_directory(name, metadata);
        }
        if name.bytes().is_empty() {
            return Err(refuse("the archive's root is not a directory", "publish the image again"));
        }
        let (parent, last) = name.split();
        let parent =
            self.root.directory_made(parent).map_err(|errno| self.failed("opening its directory", &name, 0, errno))?;
        match member.kind {
            Kind::Directory => Ok(()),
            Kind::File => self.add_file(&name, &parent, &member, &metadata, archive),
            Kind::HardLink => self.add_hard_link(&name, &parent, &member),
            Kind::Symlink => {
                let target = member.link.as_slice();
                self.place(&name, &parent, |parent, last| symlinkat(target, parent, last))?;
                self.finish_named(&name, &parent, last, true, &metadata)
            }
            Kind::Fifo => self.add_node(&name, &parent, SFlag::S_IFIFO, 0, &metadata),
            Kind::Character { .. } | Kind::Block { .. } if !self.owners => {
                self.left_out.insert(name);
                Ok(())
            }
            Kind::Character { major, minor } => {
                self.add_node(&name, &parent, SFlag::S_IFCHR, makedev(major.into(), minor.into()), &metadata)
            }
            Kind::Block { major, minor } => {
                self.add_node(&name, &parent, SFlag::S_IFBLK, makedev(major.into(), minor.into()), &metadata)
            }
        }
    }

    fn name(&mut self, raw: &[u8]) -> anyhow::Result<Name> {
        let name = Name::new(raw).advise("reading the archive", "publish the image again, without such names")?;
        if name.absolute {
            self.absolute += 1;
        }
        Ok(name)
    }

    fn add_directory(&mut self, name: Name, metadata: Metadata) -> anyhow::Result<()> {
        if !name.bytes().is_empty() {
            let (parent, last) = name.split();
            let parent = self
                .root
                .directory_made(parent)
                .map_err(|errno| self.failed("opening its directory", &name, 0, errno))?;
            // Not readable by others before it is complete.
            let private = Mode::from_bits_truncate(0o700);
            match mkdirat(&*parent, last, private) {
                Ok(()) => {}
                Err(Errno::EEXIST) if look(&parent, last).is_ok_and(|stat| is_directory(&stat)) => {}
                Err(Errno::EEXIST) => self.place(&name, &parent, |parent, last| mkdirat(parent, last, private))?,
                Err(errno) => return Err(self.failed("making the directory", &name, 0, errno)),
            }
        }
        match self.known.get(&name).and_then(|index| self.directories.get_mut(*index)) {
            Some(entry) => entry.1 = metadata,
            None => {
                self.known.insert(name.clone(), self.directories.len());
                self.directories.push((name, metadata));
            }
        }
        Ok(())
    }

    fn add_file<R: BufRead>(
        &mut self,
        name: &Name,
        parent: &Rc<OwnedFd>,
        member: &Member,
        metadata: &Metadata,
        archive: &mut Archive<R>,
    ) -> anyhow::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(
            self.place(name, parent, |parent, last| openat(parent, last, flags, Mode::from_bits_truncate(0o600)))?,
        );
        let whole = [(0, member.archived)];
        let (size, parts) = match &member.map {
            Some(map) => (map.size, map.parts.as_slice()),
            None => (member.archived, whole.as_slice()),
        };
        let mut end = 0;
        for (offset, length) in parts {
            let (mut at, mut left) = (*offset, *length);
            while left > 0 {
                let data = archive.data().with_context(|| format!("unpacking {name}"))?;
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
                let data = data.get(..most).unwrap_or_default();
                anyhow::ensure!(!data.is_empty(), "unpacking {name}: its data ends early");
                let written = write_pages(&file, data, at);
                let count = data.len();
                let (bytes, reached) = written.map_err(|error| self.failed_io("writing", name, size, &error))?;
                self.bytes += bytes;
                end = reached.unwrap_or(end);
                archive.used(count);
                at += count as u64;
                left -= count as u64;
            }
        }
        if end < size {
            file.set_len(size).map_err(|error| self.failed_io("extending", name, size, &error))?;
        }
        metadata
            .set_open(&file, self.owners, &mut self.missed)
            .map_err(|(doing, errno)| self.failed(doing, name, 0, errno))
    }

    fn add_hard_link(&mut self, name: &Name, parent: &Rc<OwnedFd>, member: &Member) -> anyhow::Result<()> {
        let target = self.name(&member.link).with_context(|| format!("the hard link {name}"))?;
        if self.left_out.contains(&target) {
            self.left_out.insert(name.clone());
            return Ok(());
        }
        let (from, last) = target.split();
        let missing = |errno: Errno| {
            let what = format!("the hard link {name} leads to {target}: {}", errno.desc());
            refuse(what, "publish the image again: a hard link's target comes before the link")
        };
        let from = self.root.directory(from).map_err(missing)?;
        let there = look(&from, last).map_err(missing)?;
        let (_, own) = name.split();
        if look(parent, own).is_ok_and(|here| (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)) {
            return Ok(());
        }
        self.place(name, parent, |parent, own| linkat(&*from, last, parent, own, AtFlags::empty()))
    }

    fn add_node(
        &mut self,
        name: &Name,
        parent: &Rc<OwnedFd>,
        kind: SFlag,
        device: u64,
        metadata: &Metadata,
    ) -> anyhow::Result<()> {
        let private = Mode::from_bits_truncate(0o600);
        self.place(name, parent, |parent, last| mknodat(parent, last, kind, private, device))?;
        let (_, last) = name.split();
        self.finish_named(name, parent, last, false, metadata)
    }

    fn finish_named(
        &mut self,
        name: &Name,
        parent: &Rc<OwnedFd>,
        last: &[u8],
        symlink: bool,
        metadata: &Metadata,
    ) -> anyhow::Result<()> {
        metadata
            .set_named(parent.as_fd(), last, symlink, self.owners, &mut self.missed)
            .map_err(|(doing, errno)| self.failed(doing, name, 0, errno))
    }

    /// Makes something, in the place of what has that name already.
    fn place<T>(
        &mut self,
        name: &Name,
        parent: &Rc<OwnedFd>,
        make: impl Fn(&OwnedFd, &[u8]) -> nix::Result<T>,
    ) -> anyhow::Result<T> {
        let (_, last) = name.split();
        let made = match make(parent, last) {
            Err(Errno::EEXIST) => {
                let flag = match look(parent, last) {
                    Ok(stat) if is_directory(&stat) => UnlinkatFlags::RemoveDir,
                    _ => UnlinkatFlags::NoRemoveDir,
                };
                unlinkat(&**parent, last, flag)
                    .map_err(|errno| self.failed("replacing what has the same name", name, 0, errno))?;
                self.root.forget();
                make(parent, last)
            }
            other => other,
        };
        made.map_err(|errno| self.failed("making", name, 0, errno))
    }

    /// Directories get their metadata last: unpacking into them changes their time, and their
    /// mode may forbid it. Children before parents, for the same reason.
    fn finish_directories(&mut self) -> anyhow::Result<()> {
        self.root.forget();
        for (name, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            let (parent, last) = name.split();
            let last = if last.is_empty() { b"." } else { last };
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = self.root.directory(parent).and_then(|parent| openat(&*parent, last, flags, Mode::empty()));
            match opened {
                Ok(directory) => metadata
                    .set_open(&directory, self.owners, &mut self.missed)
                    .map_err(|(doing, errno)| self.failed(doing, &name, 0, errno))?,
                // A later member of the same name took its place.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(errno) => return Err(self.failed("opening the directory", &name, 0, errno)),
            }
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.missed.sentences();
        if !self.left_out.is_empty() {
            warnings.push(format!("{} devices were not made", self.left_out.len()));
        }
        if self.absolute > 0 {
            warnings.push(format!("a leading / was taken off {} names", self.absolute));
        }
        warnings
    }

    fn failed_io(&self, doing: &str, name: &Name, size: u64, error: &io::Error) -> anyhow::Error {
        self.failed(doing, name, size, Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    }

    fn failed(&self, doing: &str, name: &Name, size: u64, errno: Errno) -> anyhow::Error {
        let what = format!("unpacking {name}");
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => self.full(name, size).context(what),
            Errno::EPERM | Errno::EACCES => {
                let todo = "unpack as root, or without owners (init rehearse --no-owners)";
                refuse(format!("{doing}: {}", errno.desc()), todo).context(what)
            }
            _ => {
                let todo = "check the image's archive and the file system that it is unpacked into";
                refuse(format!("{doing}: {}", errno.desc()), todo).context(what)
            }
        }
    }

    fn full(&self, name: &Name, size: u64) -> anyhow::Error {
        let root = self.path.display();
        let mut why = format!("the image does not fit into {root}: {} MB are unpacked", megabytes(self.bytes));
        if size > 0 {
            why += &format!(", {name} is {} MB long", megabytes(size));
        }
        if let Ok(stat) = nix::sys::statfs::statfs(&self.path) {
            let block = u64::try_from(stat.block_size()).unwrap_or(0);
            let (all, free) = (stat.blocks() * block, stat.blocks_available() * block);
            why += &format!("; it holds {} MB, {} MB are free", megabytes(all), megabytes(free));
            why += &format!(", {} of {} inodes are free", stat.files_free(), stat.files());
        }
        refuse(why, "give the node more memory, a larger rootstream.tmpfs=size= or nr_inodes=, or a smaller image")
    }
}

fn look(parent: &OwnedFd, name: &[u8]) -> nix::Result<FileStat> {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

/// Writes bytes at an offset of a new file, but for pages of zeros, which need no memory as a
/// hole. Returns how many bytes were written, and where the last of them ended.
fn write_pages(file: &File, bytes: &[u8], offset: u64) -> io::Result<(u64, Option<u64>)> {
    let (mut written, mut reached) = (0, None);
    let mut write = |from: usize, to: usize| -> io::Result<()> {
        if from < to {
            file.write_all_at(bytes.get(from..to).unwrap_or_default(), offset + from as u64)?;
            written += (to - from) as u64;
            reached = Some(offset + to as u64);
        }
        Ok(())
    };
    let (mut pending, mut at) = (0, 0);
    while at < bytes.len() {
        let into_page = ((offset + at as u64) % PAGE as u64) as usize;
        let end = bytes.len().min(at + PAGE - into_page);
        if is_zero(bytes.get(at..end).unwrap_or_default()) {
            write(pending, at)?;
            pending = end;
        }
        at = end;
    }
    write(pending, at)?;
    Ok((written, reached))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}
