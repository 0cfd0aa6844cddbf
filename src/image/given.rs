//! What a new file has by itself where the root is: whoever makes it owns it, and the mode asked for loses some bits.
//! Found out instead of assumed, because the umask, ACLs and mount options all have a say. Setting what is there
//! already would be a third of the system calls for a small file.

use std::os::fd::AsFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

/// The permission bits that may be asked for when a file is made; setuid and the like come after its data.
const ASKED: u32 = 0o777;

/// Owner and mode of new files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    uid: u32,
    gid: u32,
    kept: u32,
}

impl Given {
    /// Tries it out with a file without a name; none where the file system has no such files.
    pub(super) fn below(root: impl AsFd) -> Option<Self> {
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(root, ".", flags, Mode::from_bits_truncate(ASKED)).ok()?;
        let stat = fstat(&file).ok()?;
        Some(Self { uid: stat.st_uid, gid: stat.st_gid, kept: stat.st_mode & ASKED })
    }

    /// Whether a new file belongs to these.
    pub(super) fn owners(self, uid: u32, gid: u32) -> bool {
        (self.uid, self.gid) == (uid, gid)
    }

    /// Whether a new file has this mode if it is asked for.
    pub(super) fn mode(self, mode: u32) -> bool {
        mode & !self.kept == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions, Permissions};
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn what_is_given_is_what_a_new_file_has() {
        let root = tempfile::tempdir().unwrap();
        let check = |expected_gid: Option<u32>| {
            let given = Given::below(File::open(root.path()).unwrap()).unwrap();
            for mode in [0o777, 0o755, 0o664, 0o600, 0o004] {
                let path = root.path().join("new");
                OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).unwrap();
                let made = fs::metadata(&path).unwrap();
                assert!(given.owners(made.uid(), made.gid()));
                assert!(!given.owners(made.uid(), made.gid() + 1) && !given.owners(made.uid() + 1, made.gid()));
                assert_eq!(given.mode(mode), made.mode() & 0o7777 == mode, "{mode:o}");
                assert!(!given.mode(mode | 0o4000));
                assert!(expected_gid.is_none_or(|gid| gid == made.gid()));
                fs::remove_file(&path).unwrap();
            }
        };
        check(None);
        // New files take the group of such a folder.
        if nix::unistd::geteuid().is_root() {
            chown(root.path(), None, Some(50)).unwrap();
            fs::set_permissions(root.path(), Permissions::from_mode(0o2775)).unwrap();
            check(Some(50));
        }
    }
}
