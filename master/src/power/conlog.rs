//! log/console/NODE.log: what a node's console said while somebody followed it, for reading later.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::clock;
use crate::config::site::Site;

/// A log that is longer when a session begins becomes the old one, `NODE.log.1`.
const LONGEST: u64 = 16 << 20;

/// A node's log, open for adding.
#[derive(Debug)]
pub(super) struct ConsoleLog {
    file: File,
    path: PathBuf,
}

impl ConsoleLog {
    /// Opens the log of `node` and notes that `who` follows it from now on.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn open(site: &Site, node: &str, who: &str) -> Result<Self> {
        let folder = site.folder("log")?.join("console");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Self::open_in(&folder, node, who)
    }

    fn open_in(folder: &Path, node: &str, who: &str) -> Result<Self> {
        let path = folder.join(format!("{node}.log"));
        if fs::metadata(&path).is_ok_and(|data| data.len() > LONGEST) {
            let old = folder.join(format!("{node}.log.1"));
            fs::rename(&path, &old).with_context(|| format!("renaming {}", path.display()))?;
        }
        // What is typed on consoles is not for everybody's eyes.
        let file = File::options().append(true).create(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        let mut log = Self { file, path };
        log.note(&format!("{who} follows this console"))?;
        Ok(log)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds what the console said.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("writing {}", self.path.display()))
    }

    /// Adds a line of our own, with the time.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn note(&mut self, what: &str) -> Result<()> {
        self.add(format!("\r\n--- {} {what}\r\n", clock::rfc3339(SystemTime::now())).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_log_grows_and_a_long_one_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let open = || ConsoleLog::open_in(folder.path(), "n1", "console").unwrap();
        open().add(b"first\r\n").unwrap();
        let mut log = open();
        log.add(b"second\r\n").unwrap();
        let text = fs::read_to_string(log.path()).unwrap();
        assert!(text.contains("first") && text.ends_with("console follows this console\r\nsecond\r\n"), "{text}");
        assert_eq!(fs::metadata(log.path()).unwrap().permissions().mode() & 0o777, 0o600);
        log.file.set_len(LONGEST + 1).unwrap();
        let log = open();
        assert!(fs::metadata(log.path()).unwrap().len() < 100);
        assert!(folder.path().join("n1.log.1").exists());
    }
}
