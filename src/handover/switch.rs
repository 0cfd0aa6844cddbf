//! switch_root.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::{chdir, chroot, execv, pivot_root};

use super::{MOVED, Ready};
use crate::sys;

/// `RAMFS_MAGIC` of linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Makes the new root `/`, frees the initramfs and becomes its init. Returns only on failure; after it
/// nothing can be tried again, as the mounts or the initramfs may be gone.
///
/// # Errors
/// The new root is not a mount of its own, `/` is not an initramfs, or the kernel refuses a step.
pub fn switch_root(ready: &Ready) -> Result<Infallible> {
    refuse_unsafe(Path::new("/"), &ready.root)?;
    for name in MOVED {
        move_mount(&Path::new("/").join(name), &ready.root.join(name))?;
    }
    chdir(&ready.root).with_context(|| format!("entering {}", ready.root.display()))?;
    free_initramfs(Path::new("/"))?;
    if mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).is_err() {
        // Kernels on whose root nothing can be mounted: the other way to the same end.
        pivot_root(".", ".").context("moving the new root to / (neither MS_MOVE nor pivot_root)")?;
        umount2(".", MntFlags::MNT_DETACH).context("detaching the old root")?;
    }
    chroot(".").context("chroot into the new root")?;
    chdir("/").context("entering the new root")?;
    become_init(ready)
}

/// What util-linux's switch_root(8) refuses, so that a mistake never deletes a real file system.
fn refuse_unsafe(old: &Path, new: &Path) -> Result<()> {
    let (old_root, new_root) = (stat(old)?, stat(new)?);
    ensure!(new_root.is_dir(), "{} is not a directory", new.display());
    ensure!(new_root.dev() != old_root.dev(), "{} is not a mount of its own", new.display());
    let kind = statfs(old).with_context(|| format!("asking what {} is", old.display()))?.filesystem_type();
    ensure!(
        kind == RAMFS_MAGIC || kind == TMPFS_MAGIC,
        "{} is not an initramfs and will not be deleted",
        old.display()
    );
    ensure!(stat(&old.join("init"))?.is_file(), "{} holds no /init, so it is not our initramfs", old.display());
    Ok(())
}

fn stat(path: &Path) -> Result<fs::Metadata> {
    fs::metadata(path).with_context(|| format!("looking at {}", path.display()))
}

fn move_mount(from: &Path, to: &Path) -> Result<()> {
    match fs::symlink_metadata(to) {
        Ok(there) => ensure!(there.is_dir(), "the image's {} is not a directory", to.display()),
        Err(_) => fs::create_dir(to).with_context(|| format!("making {} in the image", to.display()))?,
    }
    mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .with_context(|| format!("moving {} to {}", from.display(), to.display()))
}

/// Deletes what is on the same file system as `old`, so that its memory is free for the image.
fn free_initramfs(old: &Path) -> Result<()> {
    let device = stat(old)?.dev();
    delete_below(old, device);
    Ok(())
}

fn delete_below(folder: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        // What cannot be deleted costs some memory, not the boot.
        if metadata.is_dir() {
            delete_below(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

fn become_init(ready: &Ready) -> Result<Infallible> {
    let path = CString::new(ready.init.as_os_str().as_bytes()).context("init's path holds a NUL")?;
    let mut argv = vec![path.clone()];
    for arg in &ready.args {
        argv.push(CString::new(arg.as_str()).context("an argument of init holds a NUL")?);
    }
    // The image's init finds what the kernel would have given it.
    let _ = set_cad_enabled(true);
    sys::reset_signals();
    execv(&path, &argv).with_context(|| format!("starting {}", ready.init.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // F61
    #[test]
    fn a_root_that_is_no_mount_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("new")).unwrap();
        let error = refuse_unsafe(dir.path(), &dir.path().join("new")).unwrap_err();
        assert!(error.to_string().contains("not a mount of its own"), "{error}");
        assert!(refuse_unsafe(dir.path(), &dir.path().join("none")).is_err());
    }

    // F61
    #[test]
    fn a_real_file_system_is_never_deleted() {
        let error = refuse_unsafe(Path::new("/"), Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("not an initramfs") || error.contains("no /init"), "{error}");
    }

    // F55
    #[test]
    fn deleting_stays_on_one_file_system() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "x").unwrap();
        delete_below(dir.path(), u64::MAX);
        assert!(dir.path().join("a/b/file").exists());
        free_initramfs(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
