//! What stands next to a published image: its manifest, and the pointer to the newest build.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::addresses::Name;
use crate::config::site::Site;

/// The version of both formats.
pub const FORMAT: u32 = 1;

/// The largest manifest that is read.
pub(crate) const LIMIT: u64 = 16 << 20;

/// `NAME/BUILD.json`: everything about one build. Immutable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// The image's name.
    pub name: Name,
    /// The build's name.
    pub build: String,
    /// When it was published, RFC 3339.
    pub created: String,
    /// Debian's name of the architecture.
    pub arch: String,
    /// Kernel releases whose modules the image holds.
    pub kernels: Vec<String>,
    /// Outer and inner format, such as `tar+zstd`.
    pub media: String,
    /// The image's file, next to the manifest.
    pub file: String,
    /// Bytes of that file.
    pub size: u64,
    /// sha256 of that file, lower-case hex.
    pub sha256: String,
    /// Bytes of all files unpacked.
    pub unpacked_bytes: u64,
    /// Pages of 4 KiB that they fill.
    pub unpacked_pages: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of the largest file.
    pub largest_file: u64,
    /// The image's init, when there is one at the usual place.
    pub init: Option<String>,
}

/// `NAME/latest.json`: which build is the newest. The one file of the store that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// The version of this format.
    pub format: u32,
    /// The image's name.
    pub name: Name,
    /// The newest build.
    pub build: String,
    /// Its manifest, next to this file.
    pub manifest: String,
}

impl Manifest {
    /// The manifest of the newest build of `name`; nothing when it was never published.
    ///
    /// # Errors
    /// One of the two files is unreadable or does not belong to `name`.
    pub fn latest(site: &Site, name: &Name) -> Result<Option<Self>> {
        let folder = site.store().join(name.as_str());
        let pointer = folder.join("latest.json");
        if !pointer.exists() {
            return Ok(None);
        }
        let latest: Latest = read(&pointer)?;
        ensure!(!latest.manifest.contains('/'), "{}: `{}` is no file's name", pointer.display(), latest.manifest);
        let path = folder.join(&latest.manifest);
        let manifest: Self = read(&path)?;
        ensure!(&manifest.name == name, "{} is the manifest of {}, not of {name}", path.display(), manifest.name);
        ensure!(!manifest.file.contains('/'), "{}: `{}` is no file's name", path.display(), manifest.file);
        Ok(Some(manifest))
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<T> {
    let read = || -> Result<T> {
        let mut text = String::new();
        File::open(path)?.take(LIMIT).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    read().with_context(|| format!("reading {}", path.display()))
}
