//! Programs that end with the thread that started them.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program; dropping it kills it, and so does the end of the thread that started it.
#[derive(Debug)]
pub struct Bound {
    name: String,
    child: Child,
}

impl Bound {
    /// Starts `program`, after `prepare` has added its arguments and files.
    ///
    /// # Errors
    /// The program or setpriv cannot be started.
    pub fn start(program: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) -> Result<Self> {
        // Drop does not run in a process that is killed; the kernel's parent-death signal works then too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]);
        let child = prepare(&mut command).spawn().with_context(|| format!("starting {program} through setpriv"))?;
        Ok(Self { name: program.to_owned(), child })
    }

    /// The program's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the program ended, or `None` while it runs.
    ///
    /// # Errors
    /// The kernel cannot say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// The program's process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Asks the program to end and waits at most `grace` before it is killed.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn terminate(mut self, grace: Duration) -> Result<ExitStatus> {
        let pid = i32::try_from(self.id()).context("a process id beyond i32")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("ending {}", self.name))?;
        let start = Instant::now();
        while start.elapsed() < grace {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("{} still runs {} s after SIGTERM", self.name, grace.as_secs())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::Bound;

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let started = std::thread::spawn(|| {
            let sleep = Bound::start("sleep", |c| c.arg("600")).unwrap();
            let id = sleep.id();
            while std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap() != "sleep\n" {}
            // As when the process is killed: nothing is dropped.
            std::mem::forget(sleep);
            id
        });
        let stat = format!("/proc/{}/stat", started.join().unwrap());
        let gone = || !Path::new(&stat).exists() || std::fs::read_to_string(&stat).unwrap_or_default().contains(") Z ");
        let late = (0..500).all(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !gone()
        });
        assert!(!late, "sleep outlived its thread");
    }

    #[test]
    fn a_program_that_ignores_sigterm_is_reported() {
        let deaf = |c: &mut std::process::Command| {
            c.args(["-c", "trap '' TERM; echo; while :; do sleep 0.1; done"]).stdout(std::process::Stdio::piped());
        };
        let mut child = Bound::start("sh", |c| {
            deaf(c);
            c
        })
        .unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(child.child().stdout.as_mut().unwrap(), &mut ready).unwrap();
        let error = child.terminate(Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().starts_with("sh still runs"), "{error}");
    }
}
