//! A shell in a built image, by bubblewrap: what it changes is in the next build that is published.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};

use super::build::digest;
use super::built::{Built, Made};
use super::unpacked::{needs_root, pack, unpack};
use crate::aside;
use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::progress::Progress;
use crate::say;

/// Shells that are looked for in the image.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Runs `command`, or a shell, in what was built last of `name`. If that ends with exit code 0 the image is as it was left;
/// otherwise nothing is changed.
///
/// # Errors
/// Nothing was built, the command failed, or the changed image holds secrets.
pub fn shell(site: &Site, name: &Name, command: &[String], allow_secrets: bool) -> Result<()> {
    needs_root("a shell in an image")?;
    let folder = site.folder("built")?;
    // Held to the end.
    let _claim = aside::claim(&folder)?;
    let built = Built::of(site, name)?;
    let scratch = tempfile::Builder::new().prefix(aside::PREFIX).tempdir_in(&folder);
    let scratch = scratch.with_context(|| format!("making a folder in {}", folder.display()))?;
    say::note(format_args!("image {name}: unpacking"));
    unpack(built.archive()?.get_ref(), scratch.path())?;
    let root = Directory { path: scratch.path(), had_resolv_conf: scratch.path().join("etc/resolv.conf").exists() };
    if command.is_empty() {
        say::note(format_args!("image {name}: `exit` keeps what you change, `exit 1` does not"));
    }
    let status = root.run(command)?;
    if !status.success() {
        let todo = "what was built before stays as it was; end with exit code 0 to keep changes";
        return Err(refuse(format!("the shell in {name} ended with {status}"), todo));
    }
    root.tidy()?;
    let progress = Progress::spinner(format!("image {name}"));
    let archive = pack(scratch.path(), &[], &folder)?;
    // The next `image build` starts from the recipe, as these are not its inputs.
    let made = Made { archive, inputs: digest(&[b"changed by hand"]), arch: built.arch().to_owned() };
    made.take_its_place(site, name, allow_secrets, progress)
}

/// An unpacked image.
struct Directory<'a> {
    path: &'a Path,
    had_resolv_conf: bool,
}

impl Directory<'_> {
    fn run(&self, command: &[String]) -> Result<ExitStatus> {
        let mut bwrap = Command::new("bwrap");
        bwrap.arg("--bind").arg(self.path).arg("/");
        bwrap.args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--tmpfs", "/tmp", "--chdir", "/"]);
        // Package scripts change owners and make devices; processes that they leave behind end with the shell.
        bwrap.args(["--cap-add", "ALL", "--unshare-pid", "--die-with-parent", "--setenv", "HOME", "/root"]);
        if !self.path.join("etc/resolv.conf").is_symlink() {
            bwrap.args(["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]);
        }
        match command {
            [] => bwrap.args([self.shell()?, "-l"]),
            words => bwrap.args(words),
        };
        bwrap.status().advise("starting bwrap", "install it: apt-get install bubblewrap")
    }

    fn shell(&self) -> Result<&'static str> {
        let there = |shell: &&&str| fs::symlink_metadata(self.path.join(shell.trim_start_matches('/'))).is_ok();
        let shell = SHELLS.iter().find(there).copied();
        shell.ok_or_else(|| refuse("the image holds no shell", format!("put one in, as {}", SHELLS.join(" or "))))
    }

    /// Takes away what the shell's surroundings left: an empty file where the master's resolv.conf was shown.
    fn tidy(&self) -> Result<()> {
        let file = self.path.join("etc/resolv.conf");
        let left =
            !self.had_resolv_conf && fs::symlink_metadata(&file).is_ok_and(|data| data.is_file() && data.len() == 0);
        if left {
            fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
        Ok(())
    }
}
