//! Notices that something changed of what the menus are made from: the configuration, the newest builds, boot files, keys.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::config::site::Site;
use crate::image::store::LATEST;

/// How often is looked. What changed is read when it has been the same for two looks: several files change together.
const LOOK: Duration = Duration::from_secs(1);

/// What tells a file from another one of its name.
type Stamp = Vec<(PathBuf, u64, i64, i64, u64)>;

/// The files as they were read last.
#[derive(Debug)]
pub(super) struct Changes {
    site: PathBuf,
    seen: Stamp,
}

impl Changes {
    /// Counts from now on.
    pub(super) fn of(site: &Site) -> Self {
        Self { site: site.root().to_owned(), seen: stamp(site.root()) }
    }

    /// Takes what is there now for read.
    pub(super) fn forget(&mut self) {
        self.seen = stamp(&self.site);
    }

    /// Waits until something is another than it was. May be dropped at any moment.
    ///
    /// # Errors
    /// The runtime ends.
    pub(super) async fn next(&mut self) -> Result<()> {
        let mut before = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let site = self.site.clone();
            let now = tokio::task::spawn_blocking(move || stamp(&site)).await.context("looking for changes")?;
            if now == self.seen {
                before = None;
            } else if before.as_ref() == Some(&now) {
                self.seen = now;
                return Ok(());
            } else {
                before = Some(now);
            }
        }
    }
}

fn stamp(site: &Path) -> Stamp {
    let mut files = vec![site.join("site.toml"), site.join("nodes.toml")];
    let entries = |folder: &str| fs::read_dir(site.join(folder)).into_iter().flatten().flatten();
    for (folder, name) in [("store", LATEST), ("store/overlays", LATEST), ("tftp", "bootstrap.json")] {
        files.extend(entries(folder).map(|entry| entry.path().join(name)));
    }
    files.extend(entries("keys").map(|entry| entry.path()));
    let known = |path: PathBuf| {
        let data = fs::metadata(&path).ok()?;
        Some((path, data.len(), data.mtime(), data.mtime_nsec(), data.ino()))
    };
    let mut stamp: Stamp = files.into_iter().filter_map(known).collect();
    stamp.sort();
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    // M19
    #[test]
    fn what_menus_are_made_from_is_noticed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for folder in ["store/c", "store/overlays/o", "tftp/c", "tftp/pxelinux.cfg", "keys"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let mut before = stamp(root);
        for path in [
            "site.toml",
            "nodes.toml",
            "store/c/latest.json",
            "store/overlays/o/latest.json",
            "tftp/c/bootstrap.json",
            "keys/a.pub",
        ] {
            fs::write(root.join(path), "1").unwrap();
            let now = stamp(root);
            assert_ne!(now, before, "{path}");
            // Written aside and renamed, with the same length and perhaps the same time.
            fs::write(root.join("aside"), "2").unwrap();
            fs::rename(root.join("aside"), root.join(path)).unwrap();
            before = stamp(root);
            assert_ne!(now, before, "{path}");
        }
        fs::write(root.join("tftp/pxelinux.cfg/default"), "1").unwrap();
        fs::write(root.join("store/c/b.json"), "1").unwrap();
        assert_eq!(stamp(root), before);
    }
}
