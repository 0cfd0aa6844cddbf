//! The kernel's own requests for modules: a PHY's driver, a checksum, a kind of link.
//!
//! The kernel starts a program for each (`/proc/sys/kernel/modprobe`, `/sbin/modprobe` by default). In the initramfs
//! that is a link to /init, which sees by its arguments what it is asked for. The link goes with the initramfs, so that
//! the image's own modprobe takes over.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::loader::Loader;
use crate::cmdline;

/// Puts the link where the kernel looks, below `root` (`/`); what is there already stays.
///
/// # Errors
/// It cannot be made.
pub fn install(root: &Path) -> Result<()> {
    // A kernel without it asks for nothing.
    let Ok(path) = fs::read_to_string(root.join("proc/sys/kernel/modprobe")) else { return Ok(()) };
    let Some(path) = path.trim().strip_prefix('/') else { return Ok(()) };
    let path = root.join(path);
    if fs::symlink_metadata(&path).is_ok() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(root);
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    symlink("/init", &path).with_context(|| format!("linking {}", path.display()))
}

/// What the kernel asks for, when these are the arguments that it gives its helper (after the program's name).
pub fn asked_for(args: &[OsString]) -> Option<&str> {
    match args {
        [quiet, end, name] if quiet == "-q" && end == "--" => name.to_str(),
        _ => None,
    }
}

/// Loads what the kernel asks for.
pub fn run(name: &str) -> ExitCode {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let config = cmdline::parse(&line).config;
    // Nobody but the kernel reads the outcome, and it says itself what it has to do without.
    let loaded = Loader::of_initramfs(&config).is_ok_and(|(mut loader, list)| list.auto && loader.load(name));
    if loaded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_way_of_asking_is_known() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(asked_for(&words(&["-q", "--", "crypto-crc32c"])), Some("crypto-crc32c"));
        for other in [&["rehearse", "--", "x"][..], &["-q", "--"], &[], &["-q", "--", "x", "y"]] {
            assert_eq!(asked_for(&words(other)), None, "{other:?}");
        }
    }

    #[test]
    fn the_link_is_put_where_the_kernel_looks() {
        let root = tempfile::tempdir().unwrap();
        install(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "this kernel asks for nothing");
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        fs::write(root.path().join("proc/sys/kernel/modprobe"), "/sbin/modprobe\n").unwrap();
        for _ in 0..2 {
            install(root.path()).unwrap();
            assert_eq!(fs::read_link(root.path().join("sbin/modprobe")).unwrap(), Path::new("/init"));
        }
    }
}
