//! The digests of published images, out of the manifests that stand next to them.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rootstream::image::manifest;
use serde::Deserialize;

/// More manifests than this are not remembered.
const MOST: usize = 4096;

/// What is known of manifests, so that each is read once.
#[derive(Debug, Default)]
pub(super) struct Digests {
    read: Mutex<HashMap<PathBuf, (Stamp, Option<Said>)>>,
}

/// What changes when another file takes a name: device, inode, bytes, time of change.
type Stamp = (u64, u64, u64, i64, i64);

/// What a manifest says about its image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Said {
    file: String,
    size: u64,
    sha256: String,
}

impl Digests {
    /// The sha256, in hex, of the image at `path` that has `size` bytes; nothing when no manifest
    /// next to it is about such a file. `open` opens a file of the store.
    pub(super) fn of(
        &self,
        path: &Path,
        size: u64,
        open: impl FnOnce(&Path) -> Option<(File, Metadata)>,
    ) -> Option<String> {
        let file = path.file_name()?.to_str()?;
        let (build, _suffix) = file.split_once('.')?;
        let manifest = path.with_file_name(format!("{build}.json"));
        let said = self.said(manifest, open)?;
        let digest = said.sha256.len() == 64 && said.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (said.file == file && said.size == size && digest).then_some(said.sha256)
    }

    fn said(&self, manifest: PathBuf, open: impl FnOnce(&Path) -> Option<(File, Metadata)>) -> Option<Said> {
        let (file, metadata) = open(&manifest)?;
        let m = &metadata;
        let stamp = (m.dev(), m.ino(), m.size(), m.ctime(), m.ctime_nsec());
        if let Ok(read) = self.read.lock()
            && let Some((known, said)) = read.get(&manifest)
            && *known == stamp
        {
            return said.clone();
        }
        let mut text = Vec::new();
        // What cannot be read now may be readable next time.
        file.take(manifest::LIMIT).read_to_end(&mut text).ok()?;
        let said: Option<Said> = serde_json::from_slice(&text).ok();
        if let Ok(mut read) = self.read.lock() {
            if read.len() >= MOST {
                read.clear();
            }
            read.insert(manifest, (stamp, said.clone()));
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;

    #[test]
    fn a_digest_is_believed_for_the_file_that_the_manifest_names() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = "0a".repeat(32);
        let write = |sha256: &str| {
            let text = format!(r#"{{"build":"b","file":"b.tar.zst","size":10,"sha256":"{sha256}","more":[]}}"#);
            // As publishing does: another file takes the name.
            fs::write(folder.path().join("new"), text).unwrap();
            fs::rename(folder.path().join("new"), folder.path().join("b.json")).unwrap();
        };
        write(&sha256);
        let opened = Cell::new(0);
        let digests = Digests::default();
        let of = |name: &str, size| {
            digests.of(Path::new(name), size, |path| {
                opened.set(opened.get() + 1);
                let file = File::open(folder.path().join(path)).ok()?;
                let metadata = file.metadata().ok()?;
                Some((file, metadata))
            })
        };
        assert_eq!(of("b.tar.zst", 10), Some(sha256.clone()));
        assert_eq!(of("b.tar.zst", 10), Some(sha256));
        for (name, size) in [("b.tar.zst", 11), ("b.tar.gz", 10), ("c.tar.zst", 10), ("b.json", 10), ("b", 10)] {
            assert_eq!(of(name, size), None, "{name}");
        }
        write(&"0b".repeat(32));
        assert_eq!(of("b.tar.zst", 10), Some("0b".repeat(32)));
        write("\\\" no digest");
        assert_eq!(of("b.tar.zst", 10), None);
    }

    #[test]
    fn a_manifest_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.json");
        fs::write(&path, format!(r#"{{"file":"b.tar","size":1,"sha256":"{}"}}"#, "0".repeat(64))).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let digests = Digests::default();
        // The second time there is nothing to read, and nothing is missed.
        for file in [path.as_path(), Path::new("/dev/null")] {
            let open = |_: &Path| Some((File::open(file).unwrap(), metadata.clone()));
            assert!(digests.of(Path::new("b.tar"), 1, open).is_some());
        }
    }
}
