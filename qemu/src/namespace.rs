//! Network namespaces of our own.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// Moves the calling thread, and what it starts from now on, into a fresh network namespace with
/// only loopback, up.
///
/// Threads and processes started earlier stay where they were.
///
/// # Errors
/// The kernel refuses (neither root nor user namespaces allowed), or `ip` is missing.
pub fn enter_private_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (it needs root)")?;
    ip("link set lo up")
}

/// Runs `ip` with these words, in the calling thread's namespace.
///
/// # Errors
/// `ip` is missing or fails; its message is part of the error.
pub fn ip(words: &str) -> Result<()> {
    let output =
        Command::new("ip").args(words.split_whitespace()).output().context("starting ip (package iproute2)")?;
    ensure!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
