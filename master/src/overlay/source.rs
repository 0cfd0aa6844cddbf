//! The folder that an overlay is made of.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};

use super::template::SUFFIX;
use crate::config::addresses::Name;
use crate::config::site::Site;

/// Overlays are configuration, kept in memory while they are packed.
const MOST: u64 = 256 << 20;

/// What has a name in an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A folder with nothing in it, with its permissions.
    Empty(u32),
    /// Leads there.
    Link(PathBuf),
    /// Content and permissions.
    File(Vec<u8>, u32),
    /// Content in which facts are filled in, permissions, and where it was read from.
    Template(Vec<u8>, u32, PathBuf),
}

/// Everything in an overlay's folder, by name in the image.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) items: BTreeMap<PathBuf, Item>,
    bytes: u64,
}

impl Source {
    /// Reads the folder of the overlay `name`.
    ///
    /// # Errors
    /// It is missing, empty or unreadable, holds what no overlay can hold, or two files that become one.
    pub(super) fn read(site: &Site, name: &Name) -> Result<Self> {
        let folder = site.overlay_folder(name);
        if !folder.is_dir() {
            return Err(refuse(
                format!("there is no overlay {name}: {} is no folder", folder.display()),
                "make it, with files at the paths that they have on the node, such as etc/motd",
            ));
        }
        let mut source = Self::default();
        source.add_folder(&folder, Path::new(""))?;
        if source.items.is_empty() {
            return Err(refuse(format!("{} is empty", folder.display()), "put the overlay's files into it"));
        }
        Ok(source)
    }

    /// Whether each node gets an archive of its own.
    pub(super) fn has_templates(&self) -> bool {
        self.items.values().any(|item| matches!(item, Item::Template(..)))
    }

    fn add_folder(&mut self, folder: &Path, below: &Path) -> Result<()> {
        let listing = || format!("listing {}", folder.display());
        let mut empty = true;
        for entry in fs::read_dir(folder).with_context(listing)? {
            let entry = entry.with_context(listing)?;
            empty = false;
            let (path, inside) = (entry.path(), below.join(entry.file_name()));
            let reading = || format!("reading {}", path.display());
            let metadata = fs::symlink_metadata(&path).with_context(reading)?;
            let kind = metadata.file_type();
            if kind.is_dir() {
                self.add_folder(&path, &inside)?;
            } else if kind.is_symlink() {
                self.add(inside, Item::Link(fs::read_link(&path).with_context(reading)?), &path)?;
            } else if kind.is_file() {
                self.add_file(&path, inside, &metadata)?;
            } else {
                let what = if kind.is_fifo() || kind.is_socket() { "a pipe or socket" } else { "a device" };
                return Err(refuse(
                    format!("{} is {what}", path.display()),
                    "an overlay holds files, folders and symlinks; take it out",
                ));
            }
        }
        if empty && !below.as_os_str().is_empty() {
            let mode = fs::metadata(folder).with_context(listing)?.mode() & 0o7777;
            self.add(below.to_owned(), Item::Empty(mode), folder)?;
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path, inside: PathBuf, metadata: &Metadata) -> Result<()> {
        self.bytes += metadata.len();
        if self.bytes > MOST {
            return Err(refuse(
                format!("the overlay is larger than {} MiB at {}", MOST >> 20, path.display()),
                "put what is large into the image; an overlay is for what differs",
            ));
        }
        let content = fs::read(path)
            .advise(format!("reading {}", path.display()), "run this as a user that may read it, or as root")?;
        let mode = metadata.mode() & 0o7777;
        match inside.as_os_str().as_bytes().strip_suffix(SUFFIX) {
            Some(stem) if !stem.is_empty() && !stem.ends_with(b"/") => {
                let name = PathBuf::from(std::ffi::OsString::from_vec(stem.to_vec()));
                self.add(name, Item::Template(content, mode, path.to_owned()), path)
            }
            _ => self.add(inside, Item::File(content, mode), path),
        }
    }

    fn add(&mut self, name: PathBuf, item: Item, path: &Path) -> Result<()> {
        if self.items.contains_key(&name) {
            return Err(refuse(
                format!("{} and another file become /{}", path.display(), name.display()),
                "keep one of them; the suffix .in comes off a template's name",
            ));
        }
        self.items.insert(name, item);
        Ok(())
    }
}
