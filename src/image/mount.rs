//! A file system image becomes the root: a loop device shows the verified file, its file system is mounted
//! read-only, and an overlay with a tmpfs takes what the node writes.
//!
//! Stage 2 finds the file's tmpfs, read-only, at [`IMAGE`] below /run. Nothing else is in sight: the overlay holds
//! on to what it is made of, and the loop device to the file, whatever is unmounted or deleted by name.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use nix::sys::utsname::uname;

use super::filesystem::Kind;
use super::store;
use crate::failure::{Advise as _, refuse_here};
use crate::mounts::{self, Needs, TmpfsOptions};
use crate::say;
use crate::sys;

/// Where stage 2 finds the image's file, below /run.
pub const IMAGE: &str = "rootstream/image";
/// Where its file system is mounted until the overlay has it, below /run.
const LOWER: &str = "rootstream/lower";
/// Where the tmpfs for what the node writes is until the overlay has it, below /run.
const UPPER: &str = "rootstream/upper";
/// How often another process may be quicker to take a loop device.
const TRIES: usize = 20;
/// The least memory for what the node writes into its root.
const WRITABLE: u64 = 32 << 20;

const NONE: Option<&str> = None;

/// How a file system image becomes the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounting<'a> {
    /// The directory that moves to stage 2; the tmpfs with the image's file goes to [`IMAGE`] below it.
    pub run: &'a Path,
    /// Of the tmpfs for what the node writes.
    pub options: &'a TmpfsOptions,
}

/// Checks, before the image's bytes are taken, that this kernel can mount such an image and that the memory holds it,
/// and lets the tmpfs at `root` hold a file of this length.
///
/// # Errors
/// It cannot; the message names the modules.
pub(super) fn prepare(kind: Kind, length: u64, root: &Path) -> Result<()> {
    let known = fs::read_to_string("/proc/filesystems").context("reading /proc/filesystems")?;
    let missing = missing(kind, &known, Path::new("/dev/loop-control").exists());
    if !missing.is_empty() {
        let release = uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
        let what = format!(
            "the kernel {release} as booted cannot mount a {} image: it lacks {}",
            kind.name(),
            missing.join(", ")
        );
        let todo = format!(
            "make the initramfs anew (rootstream bootstrap) from a modules.txt that lists {}, or publish the image as \
             an archive (--format tar.zst)",
            missing.join(" ")
        );
        return Err(refuse_here(what, todo));
    }
    let bytes = length.next_multiple_of(super::filesystem::BLOCK);
    mounts::check_memory(Needs { bytes: bytes.saturating_add(WRITABLE), inodes: 2 })?;
    let size = format!("size={bytes}");
    mount(NONE, root, NONE, MsFlags::MS_REMOUNT, Some(size.as_str()))
        .with_context(|| format!("making room for the image ({size}) in the tmpfs at {}", root.display()))
}

/// What the kernel lacks, as names of modules, by /proc/filesystems and whether there are loop devices.
fn missing(kind: Kind, filesystems: &str, loops: bool) -> Vec<&'static str> {
    let known = |name: &str| filesystems.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    let needed = [(kind.name(), known(kind.name())), ("overlay", known("overlay")), ("loop", loops)];
    needed.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

/// Mounts the image whose verified file is in the tmpfs at `root`, so that `root` becomes the root that it holds;
/// `options` are of the tmpfs for what the node writes.
///
/// # Errors
/// The kernel refuses a step; nothing stays mounted then.
pub(super) fn mount_image(kind: Kind, root: &Path, run: &Path, options: &TmpfsOptions) -> Result<()> {
    let mounted = mount_layers(kind, root, run, options);
    if mounted.is_err() {
        unmount(root, run);
    }
    mounted
}

fn mount_layers(kind: Kind, root: &Path, run: &Path, options: &TmpfsOptions) -> Result<()> {
    let [image, lower, upper] = [IMAGE, LOWER, UPPER].map(|name| run.join(name));
    for folder in [&image, &lower, &upper] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let path = store::path(root, kind);
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    // The file was opened by a mount that goes away now, so that the one in sight is never busy when stage 2 shuts
    // down. It can no longer be written, which would tear the root apart, and claims no size, which would look like
    // a full file system.
    mount(Some(root), &image, NONE, MsFlags::MS_BIND, NONE).context("binding the image's tmpfs")?;
    detach(root).context("detaching the image's tmpfs from the root")?;
    mount(NONE, &image, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, Some("size=0"))
        .context("making the image's tmpfs read-only")?;

    let device = loop_device(&file)?;
    let todo = format!(
        "the kernel log above says what it dislikes, mostly a compression that it was built without; make the image with \
         another (rootstream image publish --format {} takes one that Debian's kernels have)",
        kind.name()
    );
    mount(Some(&device.path), &lower, Some(kind.name()), MsFlags::MS_RDONLY, NONE)
        .advise(format!("mounting the file system that {} shows", device.path.display()), todo)?;
    mounts::root_tmpfs(&upper, options, Needs::default())?;
    let (top, work) = (upper.join("upper"), upper.join("work"));
    for folder in [&top, &work] {
        fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    copy_metadata(&lower, &top).context("giving the new root the metadata of the image's")?;
    let layers = format!("lowerdir={},upperdir={},workdir={}", lower.display(), top.display(), work.display());
    overlay(root, &layers).context("mounting the overlay")?;
    for folder in [&lower, &upper] {
        detach(folder).with_context(|| format!("detaching {}", folder.display()))?;
        let _ = fs::remove_dir(folder);
    }
    say::info!("image: {} on {}, with a tmpfs on top", kind.name(), device.path.display());
    Ok(())
}

/// Mounts the overlay. With xino all of it is on one device, as tools expect that stay on one file system; kernels
/// before 4.17 do not know the option.
fn overlay(root: &Path, layers: &str) -> nix::Result<()> {
    let mount = |data: &str| mount(Some("rootstream"), root, Some("overlay"), MsFlags::empty(), Some(data));
    match mount(&format!("{layers},xino=on")) {
        Err(Errno::EINVAL) => mount(layers),
        mounted => mounted,
    }
}

/// Undoes what a boot that failed has mounted, if it has; the memory is free then.
pub(crate) fn unmount(root: &Path, run: &Path) {
    let _ = detach(root);
    for name in [UPPER, LOWER, IMAGE] {
        let folder = run.join(name);
        let _ = detach(&folder);
        let _ = fs::remove_dir(&folder);
    }
}

fn detach(path: &Path) -> nix::Result<()> {
    umount2(path, MntFlags::MNT_DETACH)
}

/// A loop device that shows a file for as long as it is mounted or open.
struct LoopDevice {
    path: PathBuf,
    _open: File,
}

fn loop_device(file: &File) -> Result<LoopDevice> {
    let control = Path::new("/dev/loop-control");
    let open = OpenOptions::new().read(true).write(true).open(control);
    let control = open.with_context(|| format!("opening {}", control.display()))?;
    let mut last = Errno::EBUSY;
    for _ in 0..TRIES {
        let number = sys::free_loop_device(&control).context("asking for a free loop device")?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        match sys::attach_loop_device(&device, file) {
            Ok(()) => return Ok(LoopDevice { path, _open: device }),
            Err(errno) => last = errno,
        }
        if last != Errno::EBUSY {
            break;
        }
    }
    Err(last).context("attaching the image to a loop device")
}

/// The overlay's root has what the upper directory has: owner, mode, extended attributes and time of the image's own
/// root belong there.
fn copy_metadata(from: &Path, to: &Path) -> Result<()> {
    let (from, to_file) = (File::open(from)?, File::open(to)?);
    let metadata = from.metadata()?;
    std::os::unix::fs::fchown(&to_file, Some(metadata.uid()), Some(metadata.gid())).context("its owner")?;
    fs::set_permissions(to, Permissions::from_mode(metadata.mode() & 0o7777)).context("its mode")?;
    let xattrs = match sys::xattrs(&from) {
        // A squashfs without any.
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        xattrs => xattrs.context("its extended attributes")?,
    };
    for (name, value) in xattrs {
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let named = || format!("its attribute {}", name.to_string_lossy());
        sys::fsetxattr(&to_file, &name, &value).with_context(named)?;
    }
    let time = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    futimens(&to_file, &time, &time).context("its time")
}

#[cfg(test)]
mod tests {
    use super::*;

    // F54
    #[test]
    fn what_the_kernel_lacks_is_named_as_modules() {
        let known = "nodev\tsysfs\nnodev\toverlay\n\tsquashfs\n\text4\n";
        assert_eq!(missing(Kind::Squashfs, known, true), Vec::<&str>::new());
        assert_eq!(missing(Kind::Erofs, known, true), ["erofs"]);
        assert_eq!(missing(Kind::Erofs, "nodev\toverlayfs\n", false), ["erofs", "overlay", "loop"]);
    }
}
