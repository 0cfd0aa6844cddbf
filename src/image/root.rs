//! Directories inside the new root: every path is resolved as if that root were `/`, so nothing
//! in an archive reaches outside it.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, mkdirat};

/// Open directories that each thread keeps; archives list a directory's files together. With 16 threads these are half
/// of the descriptors that a process has by default.
const KEPT: usize = 32;
/// As the kernel's own limit.
const MOST_LINKS: u32 = 40;

/// The new root.
pub(super) struct Root {
    top: Rc<OwnedFd>,
    /// Cleared on kernels before 5.6.
    openat2: Cell<bool>,
    kept: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Whether no path may lead over a link, and missing directories are noted and closed to others.
    canonical: bool,
    made: Vec<Vec<u8>>,
}

fn directory_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

impl Root {
    /// Opens the directory that becomes `/`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(path: &Path) -> nix::Result<Self> {
        let top = openat(AT_FDCWD, path, directory_flags(), Mode::empty())?;
        let kept = HashMap::new();
        Ok(Self { top: Rc::new(top), openat2: Cell::new(true), kept, canonical: false, made: Vec::new() })
    }

    /// The same for an archive that has nothing below links, and declares every directory sooner or later.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open_canonical(path: &Path) -> nix::Result<Self> {
        Ok(Self { canonical: true, ..Self::open(path)? })
    }

    /// The root itself.
    pub(super) fn top(&self) -> &OwnedFd {
        &self.top
    }

    /// The directories that were made because something in them came first.
    pub(super) fn into_made(self) -> Vec<Vec<u8>> {
        self.made
    }

    /// The directory at `path`, symlinks on the way and at the end followed inside the root.
    ///
    /// # Errors
    /// The kernel's; ENOENT and ENOTDIR when it is no directory, ELOOP where links are not followed.
    pub(super) fn directory(&mut self, path: &[u8]) -> nix::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.top));
        }
        if let Some(kept) = self.kept.get(path) {
            return Ok(Rc::clone(kept));
        }
        let opened = Rc::new(self.resolve(path)?);
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        self.kept.insert(path.to_vec(), Rc::clone(&opened));
        Ok(opened)
    }

    /// The same, making the directories that are missing.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn directory_made(&mut self, path: &[u8]) -> nix::Result<Rc<OwnedFd>> {
        match self.directory(path) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut parent = Rc::clone(&self.top);
        let mut start = 0;
        // What is declared later gets its own mode then.
        let mode = Mode::from_bits_truncate(if self.canonical { 0o700 } else { 0o755 });
        for end in ends.chain([path.len()]) {
            let component = path.get(start..end).unwrap_or_default();
            match mkdirat(&*parent, component, mode) {
                // The umask may have taken bits off. The directory is new, so this follows no link.
                Ok(()) if self.canonical => self.made.push(path.get(..end).unwrap_or_default().to_vec()),
                Ok(()) => fchmodat(&*parent, component, mode, FchmodatFlags::FollowSymlink)?,
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
            parent = self.directory(path.get(..end).unwrap_or_default())?;
            start = end + 1;
        }
        Ok(parent)
    }

    /// Forgets open directories, because a name may lead elsewhere now.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    fn resolve(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        if self.openat2.get() {
            let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
            let straight = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            let how = OpenHow::new().flags(directory_flags()).resolve(if self.canonical { straight } else { inside });
            match openat2(&*self.top, path, how) {
                // Also refused by sandboxes that do not know the call.
                Err(Errno::ENOSYS | Errno::EPERM) => self.openat2.set(false),
                other => return other,
            }
        }
        self.walk(path)
    }

    /// What openat2 does, one component at a time.
    fn walk(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut todo: Vec<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(component) = todo.pop() {
            if component == b".." {
                stack.pop();
                continue;
            }
            let here = stack.last().unwrap_or(&self.top).as_fd();
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let found = openat(here, component.as_slice(), flags, Mode::empty())?;
            let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT;
            if kind == SFlag::S_IFDIR {
                stack.push(found);
            } else if kind == SFlag::S_IFLNK {
                links += 1;
                if self.canonical || links > MOST_LINKS {
                    return Err(Errno::ELOOP);
                }
                let target = readlinkat(&found, c"")?;
                if target.as_bytes().first() == Some(&b'/') {
                    stack.clear();
                }
                todo.extend(components(target.as_bytes()));
            } else {
                return Err(Errno::ENOTDIR);
            }
        }
        match stack.pop() {
            Some(found) => Ok(found),
            None => openat(&*self.top, c".", directory_flags(), Mode::empty()),
        }
    }
}

/// The components of a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    // F43
    #[test]
    fn both_ways_of_resolving_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        let top = outside.path().join("root");
        for directory in ["a/b", "etc", "outside"] {
            std::fs::create_dir_all(top.join(directory)).unwrap();
        }
        std::fs::write(top.join("file"), "").unwrap();
        for (link, target) in [
            ("up", "../../../../etc"),
            ("absolute", "/a/b"),
            ("a/sideways", "../etc"),
            ("deep", "a/sideways/../a/b"),
            ("loop", "loop"),
            ("dangling", "nowhere"),
            ("host", outside.path().to_str().unwrap()),
        ] {
            symlink(target, top.join(link)).unwrap();
        }
        for openat2 in [true, false] {
            let mut root = Root::open(&top).unwrap();
            root.openat2.set(openat2);
            let mut inode = |path: &str| root.directory(path.as_bytes()).map(|fd| fstat(&*fd).unwrap().st_ino);
            let real = |path: &str| Ok(std::fs::metadata(top.join(path)).unwrap().ino());
            assert_eq!(inode("up"), real("etc"));
            assert_eq!(inode("absolute"), real("a/b"));
            assert_eq!(inode("a/sideways"), real("etc"));
            assert_eq!(inode("deep"), real("a/b"));
            assert_eq!(inode("loop"), Err(Errno::ELOOP));
            assert_eq!(inode("dangling"), Err(Errno::ENOENT));
            assert_eq!(inode("host"), Err(Errno::ENOENT));
            assert_eq!(inode("file"), Err(Errno::ENOTDIR));
            assert_eq!(inode("a/b"), real("a/b"));
        }
    }

    #[test]
    fn a_canonical_path_leads_over_no_link() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("usr/lib")).unwrap();
        symlink("usr/lib", top.path().join("lib")).unwrap();
        for openat2 in [true, false] {
            let mut root = Root::open_canonical(top.path()).unwrap();
            root.openat2.set(openat2);
            assert_eq!(root.directory(b"lib").map(drop), Err(Errno::ELOOP));
            assert_eq!(root.directory_made(b"lib/x").map(drop), Err(Errno::ELOOP));
            let new = if openat2 { "new" } else { "newer" };
            root.directory_made(format!("usr/lib/{new}/x").as_bytes()).unwrap();
            let made: Vec<String> = root.into_made().into_iter().map(|path| String::from_utf8(path).unwrap()).collect();
            assert_eq!(made, [format!("usr/lib/{new}"), format!("usr/lib/{new}/x")]);
        }
    }

    #[test]
    fn missing_directories_are_made() {
        let top = tempfile::tempdir().unwrap();
        let mut root = Root::open(top.path()).unwrap();
        root.directory_made(b"x/y/z").unwrap();
        assert!(top.path().join("x/y/z").is_dir());
    }
}
