//! PID 1: mounts, forks the worker that boots, watches it, and hands over or follows the failure
//! policy. It never returns and has one thread, so that forking is safe at any time.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::reboot::RebootMode;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, pipe2};
use serde::{Deserialize, Serialize};

use crate::boot::{NEW_ROOT, boot};
use crate::cmdline::{self, Config, OnFail, Step};
use crate::failure::Failure;
use crate::handover::{Ready, switch_root};
use crate::log::KernelLog;
use crate::report::Record;
use crate::rescue::{self, Next};
use crate::signals::Signals;
use crate::{mounts, sys};

/// What the worker tells PID 1 before it ends.
#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Ready(Ready),
    Failed(Failure),
}

/// Boots the node. Never returns: the process becomes the image's init, or the machine ends its run.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|info| {
        let failure = Failure {
            what: "PID 1 of stage 1 met a fault of its own".to_owned(),
            why: info.to_string(),
            todo: "report it with these lines; another version may not have it".to_owned(),
        };
        conclude(&failure, OnFail::Reboot, None);
    }));
    let Err(error) = supervise();
    conclude(&Failure::from_error(&error), OnFail::Reboot, None)
}

fn supervise() -> Result<Infallible> {
    mounts::early(Path::new("/"))?;
    let line = String::from_utf8_lossy(&fs::read("/proc/cmdline").context("reading /proc/cmdline")?).into_owned();
    let parsed = cmdline::parse(&line);
    let kernel_log = KernelLog::start(parsed.config.log)?;
    log::info!("stage 1 {}", env!("CARGO_PKG_VERSION"));
    let signals = Signals::take()?;
    let policy = parsed.config.onfail;
    for warning in &parsed.warnings {
        log::warn!("{warning}");
    }
    let config = match parsed.check() {
        Ok(config) => config,
        // Trying again would read the same parameters.
        Err(error) => {
            let policy = if policy == OnFail::Retry { OnFail::Reboot } else { policy };
            conclude(&Failure::from_error(&error), policy, Some(&signals))
        }
    };
    loop {
        let failure = match attempt(&config, &signals)? {
            Outcome::Ready(ready) => hand_over(&config, &ready, &kernel_log, &signals),
            Outcome::Failed(failure) => failure,
        };
        let next = rescue::next(policy, rescue::has_shell());
        let Next::Retry(pause) = next else { conclude(&failure, policy, Some(&signals)) };
        rescue::explain(&failure, next);
        signals.wait_out(pause, "trying again");
        // Frees what the last try unpacked.
        let _ = umount2(NEW_ROOT, MntFlags::MNT_DETACH);
    }
}

/// Becomes the image's init; comes back only with the reason why not.
fn hand_over(config: &Config, ready: &Ready, kernel_log: &KernelLog, signals: &Signals) -> Failure {
    if config.break_before == Some(Step::Switch) {
        rescue::stop_before(Step::Switch);
    }
    log::info!("switch_root: {}", ready.init().display());
    kernel_log.stop();
    signals.reap();
    let Err(error) = switch_root(ready);
    Failure::from_error(&error.context("switching to the new root"))
}

/// Runs one worker to its end.
fn attempt(config: &Config, signals: &Signals) -> Result<Outcome> {
    let (results, sender) = pipe2(OFlag::O_CLOEXEC).context("making the worker's pipe")?;
    let worker = match sys::fork_single_threaded().context("starting the worker")? {
        ForkResult::Child => {
            drop(results);
            work(config, sender);
        }
        ForkResult::Parent { child } => child,
    };
    drop(sender);
    // An outcome is far smaller than a pipe, so the worker never waits for us to read it.
    let status = signals.wait_for(worker);
    let mut message = Vec::new();
    File::from(results).read_to_end(&mut message).context("hearing from the worker")?;
    Ok(serde_json::from_slice(&message).unwrap_or_else(|_| Outcome::Failed(died(status))))
}

/// The worker's life: boot, tell, end.
fn work(config: &Config, sender: OwnedFd) -> ! {
    let _ = SigSet::empty().thread_set_mask();
    // When memory runs out it is this process that has to go: PID 1 can then say so.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    if let Ok(sender) = sender.try_clone() {
        std::panic::set_hook(Box::new(move |info| {
            let failure = Failure {
                what: "stage 1 met a fault of its own".to_owned(),
                why: info.to_string(),
                todo: "report it with these lines; another version may not have it".to_owned(),
            };
            tell(&sender, &Outcome::Failed(failure));
            std::process::abort();
        }));
    }
    let outcome = match boot(config, &mut Record::default()) {
        Ok(ready) => Outcome::Ready(ready),
        Err(error) => Outcome::Failed(Failure::from_error(&error)),
    };
    tell(&sender, &outcome);
    std::process::exit(0)
}

fn tell(sender: &OwnedFd, outcome: &Outcome) {
    if let (Ok(pipe), Ok(json)) = (sender.try_clone(), serde_json::to_vec(outcome)) {
        let _ = File::from(pipe).write_all(&json);
    }
}

/// Why a worker that said nothing ended (F56).
fn died(status: WaitStatus) -> Failure {
    let (how, todo) = match status {
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => (
            "it was killed (SIGKILL), most likely because memory ran out".to_owned(),
            "give the node more memory, or make the image smaller; the kernel log above shows what it killed",
        ),
        WaitStatus::Signaled(_, signal, _) => {
            (format!("it was killed by {signal}"), "report it with these lines; another version may not have it")
        }
        status => (format!("it ended without a word ({status:?})"), "report it with these lines"),
    };
    Failure {
        what: "the process that boots the node died".to_owned(),
        why: format!("{how}; {}", memory()),
        todo: todo.to_owned(),
    }
}

fn memory() -> String {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let fields: Vec<&str> = meminfo.lines().take(3).filter(|line| !line.starts_with("MemFree")).collect();
    fields.join(", ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Follows a policy that ends this run of the machine.
fn conclude(failure: &Failure, policy: OnFail, signals: Option<&Signals>) -> ! {
    let next = rescue::next(policy, rescue::has_shell());
    rescue::explain(failure, next);
    let mode = match next {
        Next::Retry(pause) | Next::Reboot(pause) => {
            match signals {
                Some(signals) => signals.wait_out(pause, "rebooting"),
                None => std::thread::sleep(pause),
            }
            RebootMode::RB_AUTOBOOT
        }
        Next::Poweroff => RebootMode::RB_POWER_OFF,
        Next::Halt => RebootMode::RB_HALT_SYSTEM,
        Next::Shell => {
            if let Err(error) = rescue::shell() {
                log::error!("{error:#}");
            }
            RebootMode::RB_AUTOBOOT
        }
    };
    // The log's process needs a moment to bring the message out.
    std::thread::sleep(Duration::from_secs(1));
    loop {
        rescue::end(mode);
        std::thread::sleep(Duration::from_secs(10));
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::*;

    // F56
    #[test]
    fn every_way_a_worker_can_die_has_its_reason() {
        let worker = Pid::from_raw(9);
        for (status, why, todo) in [
            (
                WaitStatus::Signaled(worker, Signal::SIGKILL, false),
                "it was killed (SIGKILL)",
                "give the node more memory",
            ),
            (WaitStatus::Signaled(worker, Signal::SIGSEGV, false), "it was killed by SIGSEGV", "report it"),
            (WaitStatus::Exited(worker, 0), "it ended without a word (Exited", "report it"),
        ] {
            let failure = died(status);
            assert_eq!(failure.what, "the process that boots the node died");
            assert!(failure.why.starts_with(why) && failure.why.contains("MemTotal: "), "{}", failure.why);
            assert!(failure.todo.starts_with(todo), "{}", failure.todo);
        }
    }
}
