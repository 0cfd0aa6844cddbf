//! Owner, mode, extended attributes and time of what was unpacked, in the order that keeps them:
//! chown drops setuid, chmod rewrites an ACL's mask, and all but chmod and xattrs leave the time.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::archive::Member;
use super::given::Given;
use super::pax::Time;
use crate::sys;
use crate::wording::were;

/// What a member carries besides its name and data.
#[derive(Debug)]
pub(super) struct Metadata {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What could not be set, counted.
#[derive(Debug, Default)]
pub(super) struct Missed {
    pub(super) owners: u64,
    pub(super) setuid: u64,
    pub(super) privileged_xattrs: u64,
    pub(super) user_xattrs: u64,
}

/// Which call failed, and how.
pub(super) type Failed = (&'static str, Errno);

impl Metadata {
    pub(super) fn of(member: &mut Member) -> Self {
        Self {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            xattrs: std::mem::take(&mut member.xattrs),
        }
    }

    /// About how many bytes it takes to keep.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    fn ids(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    fn times(&self) -> (TimeSpec, TimeSpec) {
        (TimeSpec::UTIME_OMIT, TimeSpec::new(self.mtime.seconds, i64::from(self.mtime.nanoseconds)))
    }

    /// The mode to set. Setuid without its owner would lend out the rights of whoever unpacks.
    fn mode(&self, owners: bool, missed: &mut Missed) -> Mode {
        let mut mode = self.mode;
        if !owners && mode & 0o6000 != 0 {
            missed.setuid += 1;
            mode &= !0o6000;
        }
        Mode::from_bits_truncate(mode)
    }

    /// The permissions to make a new file with.
    pub(super) fn permissions(&self) -> Mode {
        Mode::from_bits_truncate(self.mode & 0o777)
    }

    /// Whether new files have the owners as they are to be.
    fn owned(&self, given: Option<Given>) -> bool {
        given.is_some_and(|given| given.owners(self.uid, self.gid))
    }

    /// Sets all of it on an open file or directory; but what is `given` if it was made just now with
    /// [`Metadata::permissions`].
    ///
    /// # Errors
    /// The first call that failed.
    pub(super) fn set_open(
        &self,
        file: impl AsFd,
        given: Option<Given>,
        owners: bool,
        missed: &mut Missed,
    ) -> Result<(), Failed> {
        let file = file.as_fd();
        if !owners {
            missed.owners += 1;
        } else if !self.owned(given) {
            let (uid, gid) = self.ids();
            fchown(file, uid, gid).map_err(|errno| ("setting its owner", errno))?;
        }
        let mode = self.mode(owners, missed);
        if !given.is_some_and(|given| given.mode(mode.bits())) {
            fchmod(file, mode).map_err(|errno| ("setting its mode", errno))?;
        }
        self.xattrs(owners, missed, |name, value| sys::fsetxattr(file, name, value))?;
        let (atime, mtime) = self.times();
        futimens(file, &atime, &mtime).map_err(|errno| ("setting its time", errno))
    }

    /// Sets all of it on what cannot be opened for that: a symlink (which has no mode of its
    /// own), a device or a FIFO; it was made just now, so that its owners may be `given`.
    ///
    /// # Errors
    /// The first call that failed.
    pub(super) fn set_named(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        symlink: bool,
        given: Option<Given>,
        owners: bool,
        missed: &mut Missed,
    ) -> Result<(), Failed> {
        if !owners {
            missed.owners += 1;
        } else if !self.owned(given) {
            let (uid, gid) = self.ids();
            fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(|errno| ("setting its owner", errno))?;
        }
        if !symlink {
            // The node was made just now by us, so there is no link to follow.
            fchmodat(parent, name, self.mode(owners, missed), FchmodatFlags::FollowSymlink)
                .map_err(|errno| ("setting its mode", errno))?;
        }
        if !self.xattrs.is_empty() {
            let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            let path = CString::new(path).map_err(|_| ("naming it", Errno::EINVAL))?;
            self.xattrs(owners, missed, |name, value| sys::lsetxattr(&path, name, value))?;
        }
        let (atime, mtime) = self.times();
        utimensat(parent, OsStr::from_bytes(name), &atime, &mtime, UtimensatFlags::NoFollowSymlink)
            .map_err(|errno| ("setting its time", errno))
    }

    fn xattrs(
        &self,
        owners: bool,
        missed: &mut Missed,
        set: impl Fn(&std::ffi::CStr, &[u8]) -> nix::Result<()>,
    ) -> Result<(), Failed> {
        for (name, value) in &self.xattrs {
            let user = name.starts_with(b"user.");
            let privileged = name.starts_with(b"security.") || name.starts_with(b"trusted.");
            if !owners && privileged {
                missed.privileged_xattrs += 1;
                continue;
            }
            let name = CString::new(name.as_slice()).map_err(|_| ("setting an extended attribute", Errno::EINVAL))?;
            match set(&name, value) {
                Ok(()) => {}
                // A tmpfs before Linux 6.6 has none of these, and symlinks and devices never do.
                Err(Errno::EOPNOTSUPP | Errno::EPERM) if user => missed.user_xattrs += 1,
                Err(Errno::EOPNOTSUPP | Errno::EPERM) if !owners => missed.privileged_xattrs += 1,
                Err(errno) => return Err(("setting an extended attribute", errno)),
            }
        }
        Ok(())
    }
}

impl Missed {
    /// Counts what another thread counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.owners += other.owners;
        self.setuid += other.setuid;
        self.privileged_xattrs += other.privileged_xattrs;
        self.user_xattrs += other.user_xattrs;
    }

    /// One sentence for each kind, with its count.
    pub(super) fn sentences(&self) -> Vec<String> {
        [
            (self.owners, "owner", "not set"),
            (self.setuid, "setuid and setgid mode", "not set"),
            (self.privileged_xattrs, "privileged extended attribute", "not set"),
            (self.user_xattrs, "user extended attribute", "not set: this file system holds none"),
        ]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, noun, what)| were(count, noun, what))
        .collect()
    }
}
