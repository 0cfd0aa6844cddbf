//! The few system calls that no crate wraps.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::libc;

/// fsetxattr(2): sets an extended attribute of an open file.
///
/// # Errors
/// The kernel's.
pub(crate) fn fsetxattr(file: impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: `name` ends in NUL, `value` is readable for its length, and both outlive the call.
    let result = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// lsetxattr(2): sets an extended attribute of what `path` names, not of what a link leads to.
///
/// # Errors
/// The kernel's.
pub(crate) fn lsetxattr(path: &CStr, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: `path` and `name` end in NUL, `value` is readable for its length, and all outlive
    // the call.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}
