//! The namespaces that the lab runs in: network, processes and mounts of its own, so that nothing of
//! it reaches a real network and nothing of it outlives it.

use std::fmt;
use std::fs;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid};

use crate::namespace::ip;

/// This machine cannot hold the lab: no namespaces, or no tap.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Runs a command as the first process of fresh namespaces, which end with it. Where the user is not
/// root that takes a user namespace too. The calling process, which must have one thread, is in the
/// network namespace from then on.
///
/// # Errors
/// [`Missing`] where the kernel refuses the namespaces; the command cannot be started.
pub fn run_enclosed(command: &mut Command) -> Result<ExitStatus> {
    let (user, group) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if !user.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).context(Missing("this user may not make namespaces; run as root".to_owned()))?;
    if !user.is_root() {
        let maps =
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))];
        for (file, content) in maps {
            fs::write(format!("/proc/self/{file}"), content).with_context(|| format!("writing /proc/self/{file}"))?;
        }
    }
    command.status().with_context(|| format!("starting {command:?}"))
}

/// What the first process of the namespaces does before anything else.
///
/// # Errors
/// The kernel refuses one of the mounts.
pub fn settle() -> Result<()> {
    // With this process, the first one in its namespace, the kernel kills all others there.
    set_pdeathsig(Signal::SIGKILL).context("binding the lab to the process that started it")?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("making the mounts private")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).context("mounting /proc")?;
    ip("link set lo up")
}
