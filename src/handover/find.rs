//! Finding the image's init, and what runs it, before anything is deleted.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::Elf;
use crate::failure::Advise;
use crate::inside::resolve;

/// As many interpreters of interpreters as the kernel starts.
const MAX_SCRIPTS: usize = 5;

/// Checks that `init`, a path in the image at `root`, can be run: a program or script with execute
/// permission whose interpreter is in the image too. `image` names the image in the message. Returns the
/// architecture that it is made for, as uname(2) calls it.
///
/// # Errors
/// It cannot (F61); image and path are named.
pub fn check_init(root: &Path, init: &Path, image: &str) -> Result<&'static str> {
    check(root, init, 0).advise(
        format!("the image {image} has no usable init at {}", init.display()),
        "put an init into the image (package systemd-sysv, say), or name another with init=",
    )
}

fn check(root: &Path, program: &Path, depth: usize) -> Result<&'static str> {
    ensure!(depth <= MAX_SCRIPTS, "{} is interpreted by scripts without end", program.display());
    let path = resolve(root, program)?;
    let metadata = fs::metadata(&path).with_context(|| format!("{} is not there", program.display()))?;
    ensure!(metadata.is_file(), "{} is not a file", program.display());
    ensure!(metadata.permissions().mode() & 0o111 != 0, "{} is not executable", program.display());
    let mut file = File::open(&path).with_context(|| format!("opening {}", program.display()))?;
    let mut head = Vec::new();
    file.by_ref().take(256).read_to_end(&mut head).with_context(|| format!("reading {}", program.display()))?;
    let run_by = |interpreter: &Path| {
        check(root, interpreter, depth + 1)
            .with_context(|| format!("{} needs {} to run", program.display(), interpreter.display()))
    };
    if head.starts_with(b"\x7fELF") {
        let elf = Elf::read(&file).with_context(|| format!("{} cannot be run", program.display()))?;
        if let Some(interpreter) = elf.interpreter {
            run_by(&interpreter)?;
        }
        Ok(elf.arch)
    } else if let Some(rest) = head.strip_prefix(b"#!") {
        run_by(&script_interpreter(rest).with_context(|| format!("{} names no interpreter", program.display()))?)
    } else {
        bail!("{} is neither a program nor a script", program.display());
    }
}

/// The interpreter of a script, from what follows `#!` (execve(2)).
fn script_interpreter(rest: &[u8]) -> Option<PathBuf> {
    let line = rest.split(|byte| *byte == b'\n').next()?;
    let name = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(name.to_vec())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused(root: &Path) -> String {
        let error = check_init(root, Path::new("/sbin/init"), "http://m/i.tar").unwrap_err();
        format!("{error:#}")
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["sbin", "bin", "lib64"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        root
    }

    fn put(root: &Path, path: &str, content: &[u8], mode: u32) {
        fs::write(root.join(path), content).unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    // F61
    #[test]
    fn what_cannot_run_is_named() {
        let root = tree();
        assert!(refused(root.path()).contains("/sbin/init is not there"));
        put(root.path(), "sbin/init", b"#!/bin/sh\n", 0o644);
        assert!(refused(root.path()).contains("is not executable"));
        put(root.path(), "sbin/init", b"#! /bin/sh -e\n", 0o755);
        assert!(refused(root.path()).contains("/sbin/init needs /bin/sh to run: /bin/sh is not there"));
        put(root.path(), "sbin/init", b"hello", 0o755);
        assert!(refused(root.path()).contains("neither a program nor a script"));
        put(root.path(), "sbin/init", b"\x7fELF\x01\x01", 0o755);
        assert!(refused(root.path()).contains("64-bit"));
        put(root.path(), "sbin/init", b"#!/sbin/init", 0o755);
        assert!(refused(root.path()).contains("without end"));
        fs::remove_file(root.path().join("sbin/init")).unwrap();
        symlink("/sbin/init", root.path().join("sbin/init")).unwrap();
        assert!(refused(root.path()).contains("loop of links"));
    }

    // F61
    #[test]
    fn a_real_program_needs_its_loader_in_the_image() {
        let root = tree();
        let own = fs::read("/bin/true").unwrap();
        put(root.path(), "bin/systemd", &own, 0o755);
        symlink("../../../bin/systemd", root.path().join("sbin/init")).unwrap();
        let message = refused(root.path());
        assert!(message.contains("needs /lib64/ld-linux-x86-64.so.2"), "{message}");
        let loader = fs::canonicalize("/lib64/ld-linux-x86-64.so.2").unwrap();
        put(root.path(), "lib64/ld-linux-x86-64.so.2", &fs::read(loader).unwrap(), 0o755);
        assert_eq!(check_init(root.path(), Path::new("/sbin/init"), "i").unwrap(), std::env::consts::ARCH);
    }
}
