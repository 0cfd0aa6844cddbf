//! A node's mainboard as its BMC sees it: something that can be switched on and off.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the simulators run to switch it.
const CHASSIS: &str = include_str!("chassis.sh");

/// A program that runs while there is power. Dropping it cuts the power.
#[derive(Debug)]
pub struct Board {
    folder: PathBuf,
}

impl Board {
    /// A board without power, whose files are in `folder`; with power, `program` runs with these arguments.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(folder: &Path, program: &str, arguments: &[String]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let board = Self { folder: folder.to_owned() };
        let words: Vec<String> = [program].into_iter().map(str::to_owned).chain(arguments.iter().cloned()).collect();
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        for (name, text) in [("chassis", CHASSIS), ("start", &format!("#!/bin/sh\nexec {}\n", words.join(" ")))] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        Ok(board)
    }

    /// The program that simulators run to switch it.
    pub fn chassis(&self) -> PathBuf {
        self.folder.join("chassis")
    }

    /// Switches it as a BMC called `bmc` does.
    ///
    /// # Errors
    /// The chassis program fails.
    pub fn switch(&self, bmc: &str, on: bool) -> Result<()> {
        let mut chassis = Command::new(self.chassis());
        chassis.args(["board", "set", "power", if on { "1" } else { "0" }]).env(SWITCHED_BY, bmc);
        let status = chassis.stdin(Stdio::null()).status().context("switching a board")?;
        ensure!(status.success(), "the chassis program ended with {status}");
        Ok(())
    }

    /// The process that runs while there is power.
    pub fn pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    /// From which device it was last told to boot.
    pub fn boot_device(&self) -> Option<String> {
        Some(fs::read_to_string(self.folder.join("boot")).ok()?.trim().to_owned())
    }

    /// What its BMC did with it, a line each.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Makes its BMC slow: half a minute for each question.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn make_slow(&self) -> Result<()> {
        fs::write(self.folder.join("slow"), "").context("making a board slow")
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The variable in which a simulator leaves its name with whatever it switches on.
const SWITCHED_BY: &str = "ROOTSTREAM_LAB_BMC";

/// Tells a program whose children switch boards what to call itself.
pub(super) fn name(command: &mut Command, bmc: &str) {
    command.env(SWITCHED_BY, bmc);
}

/// Which simulator a process was switched on by, from the environment that it has from there.
///
/// # Errors
/// There is no such process.
pub fn switched_by(process: u32) -> Result<Option<String>> {
    let environment =
        fs::read(format!("/proc/{process}/environ")).with_context(|| format!("looking at process {process}"))?;
    let mut variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    Ok(variables.find_map(|variable| variable.strip_prefix(SWITCHED_BY)?.strip_prefix('=')).map(str::to_owned))
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_goes_on_and_off() {
        let folder = tempfile::tempdir().unwrap();
        let board =
            Board::new(folder.path(), "sh", &["-c".into(), "echo 'it'\\''s on'; exec sleep 600".into()]).unwrap();
        assert_eq!(board.pid(), None);
        board.switch("test", true).unwrap();
        let pid = board.pid().unwrap();
        assert_eq!(switched_by(pid).unwrap().as_deref(), Some("test"));
        assert_eq!(switched_by(std::process::id()).unwrap(), None);
        board.switch("test", false).unwrap();
        assert_eq!(board.pid(), None);
        assert_eq!(board.log().lines().count(), 2);
    }
}
