//! Running a command in a node.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::patience::Patience;

/// What ssh exits with when it could not connect; any other status is the command's.
const NO_CONNECTION: i32 = 255;

/// Makes a key pair at `key` and `key`.pub, once.
///
/// # Errors
/// ssh-keygen fails.
pub fn make_key_pair(key: &Path) -> Result<()> {
    if key.with_extension("pub").exists() {
        return Ok(());
    }
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "rootstream-lab", "-f"]).arg(key);
    let output = keygen.output().context("starting ssh-keygen (package openssh-client)")?;
    ensure!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The arguments with which ssh logs in to a node whose host key changes with every boot.
pub fn arguments(key: &Path, address: &str) -> Vec<String> {
    let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"];
    let mut all: Vec<String> = options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]).collect();
    all.extend(["-o".into(), "ConnectTimeout=10".into(), "-i".into(), key.display().to_string()]);
    all.push(format!("root@{address}"));
    all
}

/// Runs a shell command in a node as root and returns what it prints; tries until ssh answers.
///
/// # Errors
/// Nothing answered in time, or the command failed.
pub fn run(key: &Path, address: &str, command: &str, patience: Patience) -> Result<String> {
    let start = Instant::now();
    loop {
        let mut ssh = Command::new("ssh");
        ssh.args(arguments(key, address)).arg(command);
        let output = ssh.output().context("starting ssh (package openssh-client)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        ensure!(output.status.code() == Some(NO_CONNECTION), "{command:?} in {address}: {}", said.trim());
        if let Some(reason) = patience.exhausted(start.elapsed(), start.elapsed()) {
            anyhow::bail!("ssh to {address}: {reason}: {}", said.trim());
        }
        // sshd makes its host keys at first boot and starts after them.
        std::thread::sleep(Duration::from_millis(500));
    }
}
