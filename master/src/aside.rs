//! Files that appear whole or not at all: written aside, synced, renamed.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rootstream::failure::Advise;
use tempfile::NamedTempFile;

/// What names of unfinished files start with. Nothing that starts with a dot is ever served.
pub(crate) const PREFIX: &str = ".aside-";

/// The right to change what is in a folder; one process at a time has it.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: Flock<File>,
}

/// Waits for the right to change what is in `folder`, and removes what a killed process left
/// unfinished in it.
///
/// # Errors
/// The folder is not writable.
pub(crate) fn claim(folder: &Path) -> Result<Claim> {
    let path = folder.join(".lock");
    let file = File::create(&path)
        .advise(format!("making {}", path.display()), "run this as the user that the site belongs to, or as root")?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((file, Errno::EWOULDBLOCK)) => {
            log::info!("waiting for another rootstream that works in {}", folder.display());
            Flock::lock(file, FlockArg::LockExclusive)
        }
        locked => locked,
    };
    let lock = lock.map_err(|(_, errno)| errno).with_context(|| format!("locking {}", path.display()))?;
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                _ => fs::remove_file(entry.path()),
            };
            removed.with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(Claim { _lock: lock })
}

/// Starts a file that [`finish`] will rename to `target`; dropped before that, it vanishes.
///
/// # Errors
/// The folder of `target` is missing or not writable.
pub(crate) fn begin(target: &Path) -> Result<NamedTempFile> {
    let folder = target.parent().unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(PREFIX)
        .tempfile_in(folder)
        .with_context(|| format!("making a file in {}", folder.display()))
}

/// Syncs the file and gives it its name, readable by all, replacing what had that name.
///
/// # Errors
/// The disk refuses.
pub(crate) fn finish(file: NamedTempFile, target: &Path) -> Result<()> {
    let failed = || format!("writing {}", target.display());
    file.as_file().set_permissions(Permissions::from_mode(0o644)).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    file.persist(target).map_err(|e| e.error).with_context(failed)?;
    sync_folder(target.parent().unwrap_or(Path::new("."))).with_context(failed)
}

/// Writes a small file.
///
/// # Errors
/// The disk refuses.
pub(crate) fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = begin(target)?;
    file.write_all(bytes).with_context(|| format!("writing {}", target.display()))?;
    finish(file, target)
}

/// Makes renames in `folder` survive a power cut.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}
