//! The signals of PID 1.

use std::os::fd::AsFd;
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

    /// Waits until `worker`, a child, has ended, reaping orphans meanwhile.
    pub fn wait_for(&self, worker: Pid) -> WaitStatus {
        loop {
            if let Some(status) = self.reap().into_iter().find(|status| status.pid() == Some(worker)) {
                return status;
            }
            self.next(Duration::from_secs(3600));
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
            log::info!("{then} in {} s", left.as_secs());
            let say_again = Instant::now() + left.min(Duration::from_secs(10));
            while Instant::now() < say_again {
                self.next(say_again.saturating_duration_since(Instant::now()));
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

    /// Waits for a signal, at most so long, and acts on it.
    fn next(&self, limit: Duration) {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)], timeout);
        while let Ok(Some(info)) = self.descriptor.read_signal() {
            let mode = match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGINT | Signal::SIGTERM) => RebootMode::RB_AUTOBOOT,
                Some(Signal::SIGPWR) => RebootMode::RB_POWER_OFF,
                _ => continue,
            };
            log::error!("signal {}: {mode:?}", info.ssi_signo);
            std::thread::sleep(Duration::from_millis(200));
            rescue::end(mode);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::path::PathBuf;
    use std::process::{Command, ExitStatus};
    use std::{env, fs};

    use nix::sys::signal::raise;

    use super::*;

    /// What the second run of a test is to be sent, and the PID namespace that it must not be in.
    const TOLD: &str = "ROOTSTREAM_TEST_SIGNAL";
    const OUTER: &str = "ROOTSTREAM_TEST_OUTER";

    fn pid_namespace() -> PathBuf {
        fs::read_link("/proc/self/ns/pid").unwrap()
    }

    /// Runs `test` of this module again, as PID 1 of a PID namespace of its own: there the kernel ends that
    /// process instead of the machine, by HUP for a reboot and by INT for a power-off (reboot(2)).
    fn as_pid_1(test: &str, told: &str) -> ExitStatus {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]);
        // In all threads, as if this one were the only one.
        command.args(["env", "--block-signal=CHLD"]).arg(env::current_exe().unwrap());
        command.args(["--exact", &format!("signals::tests::{test}"), "--test-threads=1"]);
        let output = command.env(TOLD, told).env(OUTER, pid_namespace()).output().unwrap();
        println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        output.status
    }

    /// In that second run, what it is told.
    fn told() -> Option<String> {
        let told = env::var(TOLD).ok()?;
        let outer = PathBuf::from(env::var_os(OUTER).unwrap());
        assert!(std::process::id() == 1 && pid_namespace() != outer, "a reboot here would be a real one");
        Some(told)
    }

    // F57-58
    #[test]
    fn orphans_are_reaped_while_the_worker_runs() {
        if told().is_none() {
            assert!(as_pid_1("orphans_are_reaped_while_the_worker_runs", "").success());
            return;
        }
        let signals = Signals::take().unwrap();
        let script = "for i in 1 2 3; do (sleep 0.05 & exit 3) & done; sleep 0.4; exit 7";
        #[expect(clippy::zombie_processes, reason = "waiting for it is what is tested")]
        let worker = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let worker = Pid::from_raw(worker.id().try_into().unwrap());
        assert_eq!(signals.wait_for(worker), WaitStatus::Exited(worker, 7));
        assert_eq!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD), "nobody is left");
    }

    // F57-58
    #[test]
    fn term_and_int_reboot_and_pwr_switches_off() {
        let Some(told) = told() else {
            for (sent, ended_by) in
                [(Signal::SIGTERM, Signal::SIGHUP), (Signal::SIGINT, Signal::SIGHUP), (Signal::SIGPWR, Signal::SIGINT)]
            {
                let status = as_pid_1("term_and_int_reboot_and_pwr_switches_off", sent.as_str());
                assert_eq!(status.signal(), Some(ended_by as i32), "{sent}: {status}");
            }
            return;
        };
        let signals = Signals::take().unwrap();
        raise(told.parse::<Signal>().unwrap()).unwrap();
        signals.wait_out(Duration::from_secs(20), "nothing");
    }
}
