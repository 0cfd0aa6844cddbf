//! Waiting for frames.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Sleeps until one of them can be read or was closed, at most `time`.
pub(super) fn readable<'a>(files: impl Iterator<Item = BorrowedFd<'a>>, time: Duration) -> anyhow::Result<()> {
    let mut polled: Vec<PollFd<'_>> = files.map(|file| PollFd::new(file, PollFlags::POLLIN)).collect();
    // Rounded up, not to wake just before the time and find nothing to do.
    let milliseconds = time.as_millis().saturating_add(1);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("waiting for DHCP frames"),
    }
}

/// Whether the other end of a pipe, into which nothing is ever written, was closed.
pub(super) fn is_closed(pipe: impl AsFd) -> bool {
    let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
