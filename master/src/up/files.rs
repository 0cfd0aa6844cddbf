//! From a URL's path to an open file, and never to anything outside the site's served folders.

use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use rootstream::image::trust::SIGNATURE_SUFFIX;

use super::digests::Digests;

/// The folders that are served.
#[derive(Debug)]
pub(super) struct Roots {
    /// As `/images/`.
    images: OwnedFd,
    /// As `/overlays/`.
    overlays: OwnedFd,
    /// As `/boot/`.
    boot: OwnedFd,
    digests: Digests,
}

/// A file that may be served.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: File,
    pub(super) metadata: Metadata,
    /// Whether these bytes will always have this name.
    pub(super) immutable: bool,
    /// The sha256 of an image that its manifest describes, in hex.
    pub(super) sha256: Option<String>,
    /// Its Content-Type.
    pub(super) media: &'static str,
}

impl Roots {
    /// Opens the folders.
    ///
    /// # Errors
    /// One is missing.
    pub(super) fn open(store: &Path, overlays: &Path, tftp: &Path) -> nix::Result<Self> {
        let folder = |path: &Path| open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        Ok(Self {
            images: folder(store)?,
            overlays: folder(overlays)?,
            boot: folder(tftp)?,
            digests: Digests::default(),
        })
    }

    /// The file at `path` of a URL: `/images/NAME/FILE`, `/overlays/NAME/FILE` or `/boot/NAME/FILE`.
    ///
    /// # Errors
    /// ENOENT for what is not there and for what nobody may see; others when the system cannot
    /// open it now.
    pub(super) fn find(&self, path: &str) -> nix::Result<Found> {
        let (top, rest) = path.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or(Errno::ENOENT)?;
        let (root, published) = match top {
            "images" => (&self.images, true),
            "overlays" => (&self.overlays, true),
            "boot" => (&self.boot, false),
            _ => return Err(Errno::ENOENT),
        };
        let relative = relative(rest).ok_or(Errno::ENOENT)?;
        let (file, metadata) = open_below(root, &relative)?;
        let json = relative.extension().is_some_and(|e| e == "json");
        let signature = relative.to_string_lossy().ends_with(SIGNATURE_SUFFIX);
        let of_store = |path: &Path| open_below(root, path).ok();
        let sha256 = if top == "images" && !json { self.digests.of(&relative, metadata.len(), of_store) } else { None };
        Ok(Found {
            file,
            sha256,
            metadata,
            // What is signed anew, with another key, keeps its name.
            immutable: published && !relative.ends_with("latest.json") && !signature,
            media: if json { "application/json" } else { "application/octet-stream" },
        })
    }
}

/// Opens a regular file below `root`. The kernel itself keeps the walk below it, whatever links are
/// in it; and does not wait where someone put a FIFO.
fn open_below(root: &OwnedFd, relative: &Path) -> nix::Result<(File, Metadata)> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = openat2(root, relative, how).map_err(|errno| match errno {
        Errno::EXDEV | Errno::ELOOP | Errno::ENOTDIR | Errno::EACCES | Errno::ENAMETOOLONG | Errno::ENXIO => {
            Errno::ENOENT
        }
        other => other,
    })?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(|_| Errno::EIO)?;
    if !metadata.is_file() {
        return Err(Errno::ENOENT);
    }
    Ok((file, metadata))
}

/// NAME/FILE, of plain characters only and without a part that starts with a dot. What the store
/// holds has no other names, so there is nothing to decode.
fn relative(rest: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
    let good = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
    let (name, file) = rest.split_once('/')?;
    (good(name) && good(file)).then(|| Path::new(name).join(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    // M8-10
    #[test]
    fn only_files_below_the_folders_are_found() {
        let site = tempfile::tempdir().unwrap();
        let at = |path: &str| site.path().join(path);
        fs::create_dir_all(at("store/c/sub")).unwrap();
        fs::create_dir_all(at("tftp/c")).unwrap();
        fs::create_dir_all(at("store/overlays/o")).unwrap();
        fs::write(at("store/overlays/o/n1-0a.tar.zst"), "overlay").unwrap();
        fs::write(at("store/overlays/o/n1-0a.tar.zst.minisig"), "signature").unwrap();
        fs::write(at("store/overlays/o/latest.json"), "{}").unwrap();
        fs::write(at("site.toml"), "secret").unwrap();
        fs::write(at("store/c/b.tar"), "image").unwrap();
        fs::write(at("store/c/.aside-1"), "half").unwrap();
        fs::write(at("tftp/c/vmlinuz-6.1"), "kernel").unwrap();
        symlink("../../site.toml", at("store/c/out")).unwrap();
        symlink(at("site.toml"), at("store/c/absolute")).unwrap();
        symlink("b.tar", at("store/c/inside")).unwrap();
        symlink("/proc/self/environ", at("store/c/magic")).unwrap();
        nix::unistd::mkfifo(&at("store/c/fifo"), Mode::S_IRWXU).unwrap();
        let roots = Roots::open(&at("store"), &at("store/overlays"), &at("tftp")).unwrap();
        assert!(roots.find("/overlays/o/n1-0a.tar.zst").unwrap().immutable);
        assert!(!roots.find("/overlays/o/latest.json").unwrap().immutable);
        assert!(!roots.find("/overlays/o/n1-0a.tar.zst.minisig").unwrap().immutable);
        assert!(roots.find("/images/c/b.tar").unwrap().immutable);
        assert!(roots.find("/images/c/inside").is_ok());
        assert!(!roots.find("/boot/c/vmlinuz-6.1").unwrap().immutable);
        for hidden in [
            "/",
            "/images",
            "/images/",
            "/images/c",
            "/images/c/",
            "/images/c/sub",
            "/images/c/sub/x",
            "/images/c/missing",
            "/images/c/.aside-1",
            "/images/c/out",
            "/images/c/absolute",
            "/images/c/magic",
            "/images/c/fifo",
            "/images/overlays/o/n1-0a.tar.zst",
            "/overlays/o",
            "/overlays/../c/b.tar",
            "/overlays/c/b.tar",
            "/images/../site.toml",
            "/images/c/../../site.toml",
            "/images/%2e%2e/site.toml",
            "/images/c/b.tar%00",
            "/images//etc/passwd",
            "/site.toml",
        ] {
            assert_eq!(roots.find(hidden).unwrap_err(), Errno::ENOENT, "{hidden}");
        }
    }
}
