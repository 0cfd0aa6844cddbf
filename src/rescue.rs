//! What happens after a boot that failed: the message, then `rootstream.onfail=`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::reboot::{RebootMode, reboot};

use crate::cmdline::{OnFail, Step};
use crate::failure::Failure;
use crate::random;
use crate::say;

/// The least pause before a reboot or another try; as much again is added at random (F64).
const PAUSE: Duration = Duration::from_secs(30);
const SHELL: &str = "/bin/sh";

/// What PID 1 does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait this long, with a line now and then, and try again.
    Retry(Duration),
    /// Wait this long, with a line now and then, and reboot.
    Reboot(Duration),
    /// Switch off now.
    Poweroff,
    /// Stop the kernel now.
    Halt,
    /// A shell, then a reboot.
    Shell,
}

/// The policy, with its pause drawn.
pub fn next(policy: OnFail, has_shell: bool) -> Next {
    let pause = PAUSE + random::up_to(PAUSE);
    match policy {
        OnFail::Retry => Next::Retry(pause),
        OnFail::Shell if has_shell => Next::Shell,
        OnFail::Reboot | OnFail::Shell => Next::Reboot(pause),
        OnFail::Poweroff => Next::Poweroff,
        OnFail::Halt => Next::Halt,
    }
}

/// Why the boot failed, and what happens now: one message.
pub fn message(failure: &Failure, next: Next) -> String {
    let now = match next {
        Next::Retry(pause) => format!("trying again in {} s", pause.as_secs()),
        Next::Reboot(pause) => format!("rebooting in {} s", pause.as_secs()),
        Next::Poweroff => "switching off".to_owned(),
        Next::Halt => "halting".to_owned(),
        Next::Shell => "starting a shell on the console; the node reboots when it ends".to_owned(),
    };
    format!("boot failed: {failure}\n  now: {now} (rootstream.onfail=)")
}

/// Whether the initramfs has a shell.
pub fn has_shell() -> bool {
    Path::new(SHELL).exists()
}

/// Whether a boot that fails leads to a shell.
pub fn ends_in_shell(policy: OnFail) -> bool {
    next(policy, has_shell()) == Next::Shell
}

/// Runs the shell on the console until it ends.
///
/// # Errors
/// There is none, or no console.
pub fn shell() -> Result<()> {
    let console = || -> Result<File> {
        OpenOptions::new().read(true).write(true).open("/dev/console").context("opening /dev/console")
    };
    let mut shell = Command::new(SHELL);
    shell.env("PS1", "rootstream# ").stdin(console()?).stdout(console()?).stderr(console()?);
    shell.status().map(|_| ()).with_context(|| format!("starting {SHELL}"))
}

/// `rootstream.break=`: a shell, or without one a line from the console, before the boot goes on. This wait
/// is the one that has no bound: somebody asked for it.
pub fn stop_before(step: Step) {
    let name = format!("{step:?}").to_lowercase();
    if has_shell() {
        say::error!("stopped before {name} (rootstream.break=); end the shell to go on");
        shell().unwrap_or_else(|error| say::error!("{error:#}"));
        return;
    }
    say::error!("stopped before {name} (rootstream.break=); press Enter to go on");
    if let Ok(console) = File::open("/dev/console") {
        let _ = BufReader::new(console).read_line(&mut String::new());
    }
}

/// Ends the machine's run in one of the kernel's ways; comes back only when the kernel refuses.
pub fn end(mode: RebootMode) {
    let Err(errno) = reboot(mode);
    say::error!("the kernel refuses {mode:?}: {}", errno.desc());
}

#[cfg(test)]
mod tests {
    use super::*;

    // F64
    #[test]
    fn a_thousand_nodes_do_not_come_back_at_once() {
        let pauses: std::collections::BTreeSet<u64> = (0..200)
            .map(|_| match next(OnFail::Reboot, false) {
                Next::Reboot(pause) => {
                    assert!((PAUSE..=PAUSE * 2).contains(&pause));
                    pause.as_secs()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }

    #[test]
    fn a_shell_needs_a_shell() {
        assert_eq!(next(OnFail::Shell, true), Next::Shell);
        assert!(matches!(next(OnFail::Shell, false), Next::Reboot(_)));
        assert_eq!(next(OnFail::Poweroff, true), Next::Poweroff);
        assert_eq!(next(OnFail::Halt, true), Next::Halt);
        assert!(matches!(next(OnFail::Retry, false), Next::Retry(_)));
    }
}
