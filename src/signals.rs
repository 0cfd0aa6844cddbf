//! The signals of PID 1.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, set_cad_enabled};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::rescue;
use crate::say;

/// The signals that PID 1 acts on (F57, F58): children are reaped, INT (ctrl-alt-del) and TERM reboot,
/// PWR switches off. The kernel keeps all others from PID 1; PIPE is ignored by Rust's runtime.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks them for this thread and takes them over.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPWR] {
            set.add(signal);
        }
        set.thread_block().context("blocking signals")?;
        // Without it ctrl-alt-del reboots at once, which is no worse.
        let _ = set_cad_enabled(false);
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("making a signal descriptor")?;
        Ok(Self { descriptor })
    }

    /// Waits until `worker`, a child, has ended, reaping orphans meanwhile; nothing where it first closed the pipe that it
    /// `told` us through.
    pub fn wait_for(&self, worker: Pid, told: Option<BorrowedFd<'_>>) -> Option<WaitStatus> {
        loop {
            let ended = self.reap().into_iter().find(|status| status.pid() == Some(worker));
            if ended.is_some() || self.next(Duration::from_secs(3600), told) {
                return ended;
            }
        }
    }

    /// Lets a pause pass, saying every 10 s how much is left.
    pub fn wait_out(&self, pause: Duration, then: &str) {
        let end = Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left < Duration::from_secs(1) {
                return;
            }
            say::info!("{then} in {} s", left.as_secs());
            let say_again = Instant::now() + left.min(Duration::from_secs(10));
            while Instant::now() < say_again {
                self.next(say_again.saturating_duration_since(Instant::now()), None);
                self.reap();
            }
        }
    }

    /// Every child that has ended.
    pub fn reap(&self) -> Vec<WaitStatus> {
        let mut ended = Vec::new();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return ended,
                Ok(status) => ended.push(status),
                Err(Errno::EINTR) => {}
                Err(_) => return ended,
            }
        }
    }

    /// Waits for a signal, at most so long, and acts on it. True when nobody writes to `pipe` any more.
    fn next(&self, limit: Duration, pipe: Option<BorrowedFd<'_>>) -> bool {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut files = vec![PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        // The end is told of in any case, and nothing else is of interest.
        files.extend(pipe.map(|pipe| PollFd::new(pipe, PollFlags::empty())));
        let _ = poll(&mut files, timeout);
        let closed = files.get(1).and_then(PollFd::any).unwrap_or_default();
        while let Ok(Some(info)) = self.descriptor.read_signal() {
            let mode = match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGINT | Signal::SIGTERM) => RebootMode::RB_AUTOBOOT,
                Some(Signal::SIGPWR) => RebootMode::RB_POWER_OFF,
                _ => continue,
            };
            say::error!("signal {}: {mode:?}", info.ssi_signo);
            std::thread::sleep(Duration::from_millis(200));
            rescue::end(mode);
        }
        closed
    }
}
