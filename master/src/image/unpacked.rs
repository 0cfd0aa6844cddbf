//! A tree of files on the master's disk, out of an archive and back into one, by GNU tar.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::Uid;
use rootstream::failure::{Advise, refuse};
use tempfile::NamedTempFile;

use crate::aside;

/// What both ways keep: numbers for owners, and all extended attributes.
const KEPT: [&str; 4] = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls"];

/// Refuses to go on where files could not get their owners.
///
/// # Errors
/// The user is not root.
pub(super) fn needs_root(what: &str) -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    Err(refuse(format!("{what} needs root: files have owners"), "run it as root, with sudo for example"))
}

/// Packs the tree below `folder`, without other file systems that are mounted there, into a file aside in `built`.
/// What `exclude` names, by paths in the tree, is left out.
///
/// # Errors
/// tar fails; what it said is part of the error. That files changed meanwhile is only said.
pub(super) fn pack(folder: &Path, exclude: &[String], built: &Path) -> Result<NamedTempFile> {
    let fresh = aside::begin(&built.join("archive"))?;
    let mut tar = Command::new("tar");
    // Times of access and of change would make each archive another one.
    tar.args(["--create", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--sort=name", "--sparse"]);
    tar.args(KEPT).args(["--one-file-system", "--anchored", "--no-wildcards"]);
    tar.args(exclude.iter().map(|path| format!("--exclude=./{}", path.trim_matches('/'))));
    tar.arg("--directory").arg(folder).arg(".");
    let out = fresh.as_file().try_clone().context("writing the archive")?;
    let output = tar.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped()).output();
    let output = output.advise("starting tar", "install it: apt-get install tar")?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {}
        // "Some files differ": they changed while they were read.
        Some(1) => said.lines().for_each(|line| log::warn!("{line}")),
        _ => return Err(failed(&format!("packing {}", folder.display()), output.status, &said)),
    }
    said.lines().filter(|_| output.status.success()).for_each(|line| log::info!("{line}"));
    Ok(fresh)
}

/// Unpacks a plain archive into the empty `folder`.
///
/// # Errors
/// tar fails; what it said is part of the error.
pub(super) fn unpack(archive: &File, folder: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--preserve-permissions", "--same-owner"]).args(KEPT).arg("--directory").arg(folder);
    let input = archive.try_clone().context("reading the archive")?;
    let output = tar.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.advise("starting tar", "install it: apt-get install tar")?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed("unpacking the archive", output.status, &String::from_utf8_lossy(&output.stderr)))
}

/// What became of another program's work, by the last of what it said.
pub(super) fn failed(what: &str, status: std::process::ExitStatus, said: &str) -> anyhow::Error {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines.get(lines.len().saturating_sub(4)..).unwrap_or_default().join(" | ");
    let why = match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => said,
    };
    anyhow::anyhow!("{why}").context(format!("{what} ({status})"))
}
