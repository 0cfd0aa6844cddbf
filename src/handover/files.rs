//! The files that stage 2 finds.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::stage2::{self, Port};
use crate::inside::resolve;
use crate::lease::Lease;
use crate::report::Record;

/// A file that hand-over adds to the image, or to the /run that moves there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Path in stage 2.
    pub(super) path: String,
    /// What it holds.
    pub(super) content: String,
    /// Permissions.
    pub(super) mode: u32,
}

impl File {
    /// A file that everybody may read.
    pub(super) fn new(path: &str, content: String) -> Self {
        Self { path: path.to_owned(), content, mode: 0o644 }
    }

    /// Writes it into the new root, or into `run`.
    pub(super) fn write(&self, root: &Path, run: &Path) -> Result<()> {
        let path = match self.path.strip_prefix("/run/") {
            Some(rest) => run.join(rest),
            None => resolve(root, Path::new(&self.path))?,
        };
        let writing = || format!("writing {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(root)).with_context(writing)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(self.mode);
        let mut file = options.open(&path).with_context(writing)?;
        file.write_all(self.content.as_bytes()).with_context(writing)
    }
}

/// All files for stage 2: those about the port that it goes on with, and what its lease says about names.
pub(super) fn for_stage_2(root: &Path, port: Option<&Port<'_>>) -> Vec<File> {
    let Some(port) = port else { return Vec::new() };
    let mut files = names(root, port.lease, port.name);
    files.extend(stage2::files(root, port));
    files
}

/// resolv.conf and hostname, where the image leaves them open: missing or empty. A link, even a
/// dangling one, is somebody's decision and stays.
fn names(root: &Path, lease: &Lease, port: &str) -> Vec<File> {
    let mut files = Vec::new();
    if !lease.dns.is_empty() && is_open(&root.join("etc/resolv.conf")) {
        files.push(File::new("/etc/resolv.conf", resolv_conf(lease, port)));
    }
    if let Some(name) = lease.hostname.as_ref().filter(|_| is_open(&root.join("etc/hostname"))) {
        files.push(File::new("/etc/hostname", format!("{name}\n")));
    }
    files
}

/// Whether the image leaves a file to us: it is missing or empty, in a folder that is there.
pub(super) fn is_open(path: &Path) -> bool {
    // The folder must be a real one: a link could lead out of the image.
    let folder = path.parent().and_then(|folder| fs::symlink_metadata(folder).ok());
    folder.is_some_and(|folder| folder.is_dir())
        && fs::symlink_metadata(path).map_or(true, |file| file.is_file() && file.len() == 0)
}

fn resolv_conf(lease: &Lease, port: &str) -> String {
    let mut text = String::new();
    let search = lease.search_list();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in lease.name_servers(port) {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

/// Leaves the record of a boot that succeeded, and its lease, as `boot.json` and `lease.json` in
/// `run`/rootstream; `run` moves to stage 2.
///
/// # Errors
/// A file cannot be written.
pub fn leave_record(run: &Path, record: &mut Record, lease: &Lease) -> Result<()> {
    record.ok = true;
    let folder = run.join("rootstream");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let lease = serde_json::to_string_pretty(lease).context("writing the lease as JSON")?;
    for (name, content) in [("boot.json", record.json()), ("lease.json", lease)] {
        let path = folder.join(name);
        fs::write(&path, content + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::tests::{lease, lease_6};
    use super::*;

    #[test]
    fn open_files_are_filled() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/hostname"), "").unwrap();
        let files = names(root.path(), &lease(), "eth0");
        assert_eq!(files[0].content, "search cluster\nnameserver 172.16.0.254\n");
        assert_eq!(files[1], File { path: "/etc/hostname".to_owned(), content: "n1\n".to_owned(), mode: 0o644 });
        assert!(for_stage_2(root.path(), None).is_empty());
        let files = names(root.path(), &lease_6("fd00::42"), "eth0");
        assert_eq!(files[0].content, "nameserver fd00::1\nnameserver fe80::1%eth0\n");
    }

    #[test]
    fn what_the_image_decides_stays() {
        let root = tempfile::tempdir().unwrap();
        assert!(names(root.path(), &lease(), "eth0").is_empty(), "no /etc at all");
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/hostname"), "fixed\n").unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
        assert!(names(root.path(), &lease(), "eth0").is_empty());
    }

    #[test]
    fn a_linked_etc_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        symlink("/etc", root.path().join("etc")).unwrap();
        assert!(names(root.path(), &lease(), "eth0").is_empty());
    }

    #[test]
    fn files_go_into_the_image_or_into_run() {
        let (root, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink("/run", root.path().join("etc")).unwrap();
        let secret = File { mode: 0o600, ..File::new("/run/a/b/secret", "1".to_owned()) };
        for _ in 0..2 {
            secret.write(root.path(), run.path()).unwrap();
        }
        let written = run.path().join("a/b/secret");
        assert_eq!(fs::read_to_string(&written).unwrap(), "1");
        assert_eq!(fs::metadata(&written).unwrap().permissions().mode() & 0o777, 0o600);
        // Links lead where they would in stage 2, never out of the image.
        File::new("/etc/x", "2".to_owned()).write(root.path(), run.path()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("run/x")).unwrap(), "2");
    }
}
