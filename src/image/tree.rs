//! The tree below the new root, as an archive's members make it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::Unpack;
use super::archive::{Archive, Kind, Member};
use super::cut::{Cuts, Part, Tail};
use super::given::Given;
use super::metadata::{Metadata, Missed};
use super::pages::write_pages;
use super::path::Name;
use super::progress::megabytes;
use super::root::Root;
use super::unpack::Unpacked;
use crate::failure::{Advise as _, refuse, refuse_here};
use crate::wording::{counted, were};

/// The most bytes of directories' and links' particulars that a thread keeps for the end: those of a hundred thousand
/// directories, but not of an archive that is all attributes.
const KEPT: usize = 64 << 20;

/// What may be relied on.
#[derive(Clone, Copy)]
pub(super) enum Rules<'a> {
    /// Nothing: members come in the archive's order, the last of a name wins, links on the way are
    /// followed inside the root.
    Plain,
    /// As [`Rules::Plain`], over a tree that is there: a link to a directory stays where the archive has a directory, or
    /// one that lists `lib/` would take /lib away from a system that has it in /usr.
    Over,
    /// The canon of published images, which is enforced: every name once, every directory a member,
    /// nothing below a link. So members may come in any order, and from several threads; files may come in
    /// parts, which meet here.
    Canon(&'a Cuts),
}

/// The tree, or the part of it that one thread makes.
pub(super) struct Tree<'a> {
    path: PathBuf,
    root: Root,
    rules: Rules<'a>,
    owners: bool,
    /// What new files have by themselves; not known where directories are there already.
    given: Option<Given>,
    /// Directories in the order they came, to be finished when nothing more goes into them.
    directories: Vec<(Name, Metadata)>,
    known: HashMap<Name, usize>,
    /// Hard links, for when every target is there.
    links: Vec<Link>,
    /// About how many bytes all that takes.
    kept: usize,
    /// Devices that were not made.
    left_out: HashSet<Name>,
    missed: Missed,
    absolute: u64,
    bytes: u64,
    entries: u64,
    /// Members of unknown type, which were passed over.
    pub(super) unknown: u64,
    /// The chunk that members come from now.
    pub(super) chunk: usize,
}

/// A hard link that waits for its target.
struct Link {
    /// The chunk that it is in.
    chunk: usize,
    name: Name,
    target: Name,
}

/// What one thread did of a tree, to be joined and finished.
pub(super) struct Piece {
    directories: Vec<(Name, Metadata)>,
    made: Vec<Vec<u8>>,
    links: Vec<Link>,
    left_out: HashSet<Name>,
    missed: Missed,
    bytes: u64,
    entries: u64,
}

impl<'a> Tree<'a> {
    /// The tree at `root`, an existing directory.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(root: &Path, options: Unpack, rules: Rules<'a>) -> anyhow::Result<Self> {
        let opened = match rules {
            Rules::Plain | Rules::Over => Root::open(root),
            Rules::Canon(_) => Root::open_canonical(root),
        };
        let opened = opened.with_context(|| format!("opening {}", root.display()))?;
        let given = match rules {
            Rules::Plain | Rules::Canon(_) => Given::below(opened.top()),
            Rules::Over => None,
        };
        Ok(Self {
            path: root.to_owned(),
            root: opened,
            rules,
            owners: options.owners,
            given,
            directories: Vec::new(),
            known: HashMap::new(),
            links: Vec::new(),
            kept: 0,
            left_out: HashSet::new(),
            missed: Missed::default(),
            absolute: 0,
            bytes: 0,
            entries: 0,
            unknown: 0,
            chunk: 0,
        })
    }

    /// Makes a member, with its data out of `archive`. `tail` is the file, if any, of which the archive
    /// holds the first part only; returns whether this was it.
    ///
    /// # Errors
    /// The member is refused, or the file system refuses.
    pub(super) fn add<R: BufRead>(
        &mut self,
        mut member: Member,
        archive: &mut Archive<R>,
        tail: Option<&Tail>,
    ) -> anyhow::Result<bool> {
        let name = self.name(&member.path)?;
        self.entries += 1;
        let metadata = Metadata::of(&mut member);
        if member.kind == Kind::Directory {
            self.add_directory(name, metadata)?;
            return Ok(false);
        }
        if name.bytes().is_empty() {
            return Err(refuse("the archive's root is not a directory", "publish the image again"));
        }
        let (parent, last) = name.split();
        let parent =
            self.root.directory_made(parent).map_err(|errno| self.failed("opening its directory", &name, 0, errno))?;
        if let (Rules::Canon(cuts), Some(tail), Kind::File) = (self.rules, tail, member.kind)
            && tail.is(&name)
        {
            self.add_first_part(&name, &member, metadata, archive, cuts, tail)?;
            return Ok(true);
        }
        let made = match member.kind {
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
        };
        made.map(|()| false)
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
                // What it leads to is not what the archive means to change, so it keeps its metadata.
                Err(Errno::EEXIST) if self.keeps_links() && self.root.directory(name.bytes()).is_ok() => return Ok(()),
                Err(Errno::EEXIST) => self.place(&name, &parent, |parent, last| mkdirat(parent, last, private))?,
                Err(errno) => return Err(self.failed("making the directory", &name, 0, errno)),
            }
        }
        let canonical = self.is_canonical();
        self.keep(&name, metadata.weight())?;
        match self.known.get(&name).and_then(|index| self.directories.get_mut(*index)) {
            Some(_) if canonical => return Err(twice(&name)),
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
        let file = self.create(name, parent, metadata.permissions())?;
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
            .set_open(&file, self.given, self.owners, &mut self.missed)
            .map_err(|(doing, errno)| self.failed(doing, name, 0, errno))
    }

    /// The first part of a file whose other parts come in other chunks, perhaps earlier.
    fn add_first_part<R: BufRead>(
        &mut self,
        name: &Name,
        member: &Member,
        metadata: Metadata,
        archive: &mut Archive<R>,
        cuts: &Cuts,
        tail: &Tail,
    ) -> anyhow::Result<()> {
        let data = archive.data()?;
        let count = data.len() as u64;
        let sound = member.map.is_none() && member.archived == tail.total && count == tail.offset;
        anyhow::ensure!(sound, "unpacking {name}: the manifest and the archive disagree about where it is cut");
        self.add_part(cuts, &Part { name, offset: 0, total: tail.total, data }, Some(metadata))?;
        archive.used(usize::try_from(count)?);
        archive.break_off();
        Ok(())
    }

    /// A part of a file that is cut over chunks.
    ///
    /// # Errors
    /// The file system refuses, or the file came twice.
    pub(super) fn add_part(&mut self, cuts: &Cuts, part: &Part<'_>, metadata: Option<Metadata>) -> anyhow::Result<()> {
        let name = part.name;
        let make = || -> anyhow::Result<File> {
            let (parent, _) = name.split();
            let parent = self
                .root
                .directory_made(parent)
                .map_err(|errno| self.failed("opening its directory", name, 0, errno))?;
            self.create(name, &parent, Mode::from_bits_truncate(0o600))
        };
        let cut = cuts.open(part, make)?;
        let (bytes, _) = write_pages(&cut.file, part.data, part.offset)
            .map_err(|error| self.failed_io("writing", name, part.total, &error))?;
        self.bytes += bytes;
        let Some(metadata) = cuts.written(&cut, part, metadata)? else { return Ok(()) };
        // What ends in zeros was not written to its end.
        cut.file.set_len(part.total).map_err(|error| self.failed_io("extending", name, part.total, &error))?;
        metadata
            .set_open(&cut.file, None, self.owners, &mut self.missed)
            .map_err(|(doing, errno)| self.failed(doing, name, 0, errno))
    }

    fn create(&mut self, name: &Name, parent: &Rc<OwnedFd>, mode: Mode) -> anyhow::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        self.place(name, parent, |parent, last| openat(parent, last, flags, mode)).map(File::from)
    }

    fn add_hard_link(&mut self, name: &Name, parent: &Rc<OwnedFd>, member: &Member) -> anyhow::Result<()> {
        let target = self.name(&member.link).with_context(|| format!("the hard link {name}"))?;
        if self.is_canonical() {
            self.keep(name, size_of::<Link>() + target.bytes().len())?;
            self.links.push(Link { chunk: self.chunk, name: name.clone(), target });
            return Ok(());
        }
        self.make_hard_link(name, parent, target)
    }

    fn make_hard_link(&mut self, name: &Name, parent: &Rc<OwnedFd>, target: Name) -> anyhow::Result<()> {
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
            .set_named(parent.as_fd(), last, symlink, self.given, self.owners, &mut self.missed)
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
            Err(Errno::EEXIST) if self.is_canonical() => return Err(twice(name)),
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

    /// Counts what is kept for the end.
    fn keep(&mut self, name: &Name, weight: usize) -> anyhow::Result<()> {
        // Each name is there twice.
        self.kept = self.kept.saturating_add(weight).saturating_add(2 * name.bytes().len());
        if self.kept > KEPT {
            let what = format!("the archive's directories and hard links carry more than {} MiB", KEPT >> 20);
            return Err(refuse(what, "publish an image with fewer extended attributes on directories, or fewer links"));
        }
        Ok(())
    }

    fn is_canonical(&self) -> bool {
        matches!(self.rules, Rules::Canon(_))
    }

    fn keeps_links(&self) -> bool {
        matches!(self.rules, Rules::Over)
    }

    /// What this thread did.
    pub(super) fn into_piece(self) -> Piece {
        Piece {
            directories: self.directories,
            made: self.root.into_made(),
            links: self.links,
            left_out: self.left_out,
            missed: self.missed,
            bytes: self.bytes,
            entries: self.entries,
        }
    }

    /// Joins what the threads did, in any order, and checks that it is the canon.
    ///
    /// # Errors
    /// A directory came twice, or has things in it and did not come.
    pub(super) fn join(&mut self, pieces: Vec<Piece>) -> anyhow::Result<()> {
        let mut made = Vec::new();
        for piece in pieces {
            self.directories.extend(piece.directories);
            self.links.extend(piece.links);
            self.left_out.extend(piece.left_out);
            self.missed.add(&piece.missed);
            self.bytes += piece.bytes;
            self.entries += piece.entries;
            made.extend(piece.made);
        }
        self.directories.sort_by(|(one, _), (other, _)| one.bytes().cmp(other.bytes()));
        let same = self.directories.windows(2).find_map(|pair| match pair {
            [(one, _), (other, _)] if one == other => Some(one),
            _ => None,
        });
        if let Some(name) = same {
            return Err(twice(name));
        }
        // As a directory that things are in; and without it two nodes' roots would not be the same.
        if !self.directories.iter().any(|(name, _)| name.bytes().is_empty()) {
            return Err(refuse("the archive does not have its root, ./", "publish the image again"));
        }
        let declared: HashSet<&[u8]> = self.directories.iter().map(|(name, _)| name.bytes()).collect();
        if let Some(missing) = made.iter().find(|path| !declared.contains(path.as_slice())) {
            let what = format!("the archive has things in {}, but not the directory", missing.escape_ascii());
            return Err(refuse(what, "publish the image again"));
        }
        // In the archive's order a link comes after its target, which may be a link itself.
        self.links.sort_by_key(|link| link.chunk);
        Ok(())
    }

    /// Ends the tree: hard links, then what directories carry; all that was left out is a sentence.
    ///
    /// # Errors
    /// A link has no target, or the file system refuses.
    pub(super) fn finish(mut self) -> anyhow::Result<Unpacked> {
        if self.entries == 0 {
            return Err(refuse("the archive holds nothing", "publish the image again"));
        }
        for Link { name, target, .. } in std::mem::take(&mut self.links) {
            let (parent, _) = name.split();
            let parent =
                self.root.directory(parent).map_err(|errno| self.failed("opening its directory", &name, 0, errno))?;
            self.make_hard_link(&name, &parent, target)?;
        }
        self.finish_directories()?;
        Ok(Unpacked { bytes: self.bytes, entries: self.entries, warnings: self.warnings() })
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
                    .set_open(&directory, None, self.owners, &mut self.missed)
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
            warnings.push(were(self.left_out.len() as u64, "device", "not made"));
        }
        if self.absolute > 0 {
            warnings.push(format!("a leading / was taken off {}", counted(self.absolute, "name")));
        }
        if self.unknown > 0 {
            warnings.push(were(self.unknown, "member", "left out: of unknown type"));
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
            Errno::ELOOP if self.is_canonical() => twice(name),
            Errno::EPERM | Errno::EACCES => {
                let todo = "unpack as root, or without owners (init rehearse --no-owners)";
                refuse_here(format!("{doing}: {}", errno.desc()), todo).context(what)
            }
            Errno::ENOMEM | Errno::EIO | Errno::EROFS | Errno::EMFILE | Errno::ENFILE => {
                let todo = "check the file system that the image is unpacked into, and this machine's memory";
                refuse_here(format!("{doing}: {}", errno.desc()), todo).context(what)
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
        refuse_here(why, "give the node more memory, a larger rootstream.tmpfs=size= or nr_inodes=, or a smaller image")
    }
}

fn twice(name: &Name) -> anyhow::Error {
    refuse(format!("the archive has {name} twice, or something below a link"), "publish the image again")
}

fn look(parent: &OwnedFd, name: &[u8]) -> nix::Result<FileStat> {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}
