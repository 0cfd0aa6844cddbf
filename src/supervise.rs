//! PID 1: mounts, forks the worker that boots, watches it, and hands over or follows the failure
//! policy. It never returns and has one thread, so that forking is safe at any time.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sys::reboot::RebootMode;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, pipe2};
use serde::{Deserialize, Serialize};

use crate::boot::{NEW_ROOT, RUN, boot};
use crate::cmdline::{self, Config, OnFail, Step};
use crate::failure::Failure;
use crate::handover::{Ready, switch_root};
use crate::log::{Consoles, KernelLog};
use crate::report::Record;
use crate::rescue::{self, Next};
use crate::say;
use crate::signals::Signals;
use crate::{image, mounts, sys};

/// How long a slow console may take for the lines that are still to come.
const LAST_LINES: Duration = Duration::from_secs(5);
const OUR_FAULT: &str = "report it with these lines; another version may not have it";

/// What the worker tells PID 1 before it ends.
#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Ready(Ready),
    Failed(Failure),
}

/// Boots the node. Never returns: the process becomes the image's init, or the machine ends its run.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|info| {
        let bare = Supervisor { consoles: Consoles::open(), log: None, signals: None };
        bare.conclude(&panicked("PID 1 of stage 1", info), OnFail::Reboot);
    }));
    let mounted = mounts::early(Path::new("/"));
    let line = fs::read("/proc/cmdline").map(|line| String::from_utf8_lossy(&line).into_owned());
    let parsed = cmdline::parse(&line.unwrap_or_default());
    let policy = parsed.config.onfail;
    let supervisor = match Supervisor::start(parsed.config.log) {
        Ok(supervisor) => supervisor,
        Err((bare, error)) => bare.conclude(&Failure::from_error(&error), policy),
    };
    if let Err(error) = mounted {
        supervisor.conclude(&Failure::from_error(&error), policy);
    }
    say::info!("stage 1 {}", env!("CARGO_PKG_VERSION"));
    for warning in &parsed.warnings {
        say::warn!("{warning}");
    }
    match parsed.check() {
        Ok(config) => supervisor.boot(&config),
        // Trying again would read the same parameters.
        Err(error) => supervisor.conclude(&Failure::from_error(&error), without_retry(policy)),
    }
}

fn without_retry(policy: OnFail) -> OnFail {
    if policy == OnFail::Retry { OnFail::Reboot } else { policy }
}

fn panicked(who: &str, info: &PanicHookInfo<'_>) -> Failure {
    Failure::new(&format!("{who} met a fault of its own"), &info.to_string(), OUR_FAULT)
}

/// What PID 1 has at hand.
struct Supervisor {
    consoles: Consoles,
    log: Option<KernelLog>,
    signals: Option<Signals>,
}

impl Supervisor {
    /// Everything, or as much as can be had and why not more.
    fn start(level: log::LevelFilter) -> Result<Self, (Self, anyhow::Error)> {
        let mut supervisor = Self { consoles: Consoles::open(), log: None, signals: None };
        let log = match KernelLog::start(level) {
            Ok(log) => log,
            Err(error) => return Err((supervisor, error)),
        };
        supervisor.log = Some(log);
        match Signals::take() {
            Ok(signals) => supervisor.signals = Some(signals),
            Err(error) => return Err((supervisor, error)),
        }
        Ok(supervisor)
    }

    /// Tries until the image's init runs or the policy ends this run of the machine.
    fn boot(&self, config: &Config) -> ! {
        loop {
            let failure = match self.attempt(config) {
                Ok(Outcome::Ready(ready)) => {
                    let failure = self.hand_over(config, &ready);
                    // Mounts have moved and the initramfs may be gone: nothing is left to try again with.
                    self.conclude(&failure, without_retry(config.onfail))
                }
                Ok(Outcome::Failed(failure)) => failure,
                Err(error) => Failure::from_error(&error),
            };
            let next = rescue::next(config.onfail, rescue::has_shell());
            let Next::Retry(pause) = next else { self.conclude(&failure, config.onfail) };
            self.say(&rescue::message(&failure, next));
            self.wait_out(pause, "trying again");
            // Frees what the last try unpacked.
            image::unmount(Path::new(NEW_ROOT), Path::new(RUN));
        }
    }

    /// Runs one worker to its end.
    fn attempt(&self, config: &Config) -> Result<Outcome> {
        let (results, sender) = pipe2(OFlag::O_CLOEXEC).context("making the worker's pipe")?;
        let worker = match sys::fork_single_threaded().context("starting the worker")? {
            ForkResult::Child => {
                drop(results);
                work(config, sender);
            }
            ForkResult::Parent { child } => child,
        };
        drop(sender);
        let signals = self.signals.as_ref().context("no signals to wait with")?;
        // An outcome is bounded and far smaller than a pipe, so the worker never waits for us to read it.
        let stays = rescue::ends_in_shell(config.onfail);
        let ended = signals.wait_for(worker, stays.then(|| results.as_fd()));
        let mut message = Vec::new();
        File::from(results).read_to_end(&mut message).context("hearing from the worker")?;
        match (serde_json::from_slice(&message), ended) {
            // It keeps the network for the shell.
            (Ok(Outcome::Failed(failure)), None) => Ok(Outcome::Failed(failure)),
            (outcome, ended) => {
                let status = ended.or_else(|| signals.wait_for(worker, None)).context("losing the worker")?;
                Ok(outcome.unwrap_or_else(|_| Outcome::Failed(died(status))))
            }
        }
    }

    /// Becomes the image's init; comes back only with the reason why not.
    fn hand_over(&self, config: &Config, ready: &Ready) -> Failure {
        if config.break_before == Some(Step::Switch) {
            rescue::stop_before(Step::Switch);
        }
        say::info!("switch_root: {}", ready.init().display());
        if let Some(log) = &self.log {
            log.stop(LAST_LINES);
        }
        let Err(error) = switch_root(ready);
        Failure::from_error(&error.context("switching to the new root"))
    }

    /// Says why the boot failed and follows a policy that ends this run of the machine.
    fn conclude(&self, failure: &Failure, policy: OnFail) -> ! {
        let next = rescue::next(policy, rescue::has_shell());
        self.say(&rescue::message(failure, next));
        let mode = match next {
            Next::Retry(pause) | Next::Reboot(pause) => {
                self.wait_out(pause, "rebooting");
                RebootMode::RB_AUTOBOOT
            }
            Next::Poweroff => RebootMode::RB_POWER_OFF,
            Next::Halt => RebootMode::RB_HALT_SYSTEM,
            Next::Shell => {
                rescue::shell().unwrap_or_else(|error| self.say(&format!("{error:#}")));
                RebootMode::RB_AUTOBOOT
            }
        };
        loop {
            rescue::end(mode);
            std::thread::sleep(Duration::from_secs(10));
        }
    }

    /// After the lines that are on their way, `text` on every console.
    fn say(&self, text: &str) {
        if let Some(log) = &self.log {
            log.flush(LAST_LINES);
        }
        self.consoles.say(text);
    }

    fn wait_out(&self, pause: Duration, then: &str) {
        match &self.signals {
            Some(signals) => signals.wait_out(pause, then),
            None => std::thread::sleep(pause),
        }
    }
}

/// The worker's life: boot, tell, end.
fn work(config: &Config, sender: OwnedFd) -> ! {
    let _ = SigSet::empty().thread_set_mask();
    // When memory runs out it is this process that has to go: PID 1 can then say so.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    if let Ok(sender) = sender.try_clone() {
        std::panic::set_hook(Box::new(move |info| {
            tell(&sender, &Outcome::Failed(panicked("stage 1", info)));
            std::process::abort();
        }));
    }
    let outcome = match boot(config, &mut Record::default()) {
        Ok(ready) => Outcome::Ready(ready),
        Err(error) => Outcome::Failed(Failure::from_error(&error)),
    };
    tell(&sender, &outcome);
    if matches!(outcome, Outcome::Failed(_)) && rescue::ends_in_shell(config.onfail) {
        // All ends of the pipe are closed, so that PID 1 goes on; it ends with the shell, and this process with it.
        let _ = std::panic::take_hook();
        drop(sender);
        loop {
            std::thread::park();
        }
    }
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
        WaitStatus::Signaled(_, signal, _) => (format!("it was killed by {signal}"), OUR_FAULT),
        status => (format!("it ended without a word ({status:?})"), OUR_FAULT),
    };
    Failure::new("the process that boots the node died", &format!("{how}; {}", memory()), todo)
}

fn memory() -> String {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let fields: Vec<&str> = meminfo.lines().take(3).filter(|line| !line.starts_with("MemFree")).collect();
    fields.join(", ").split_whitespace().collect::<Vec<_>>().join(" ")
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
