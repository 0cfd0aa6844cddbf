//! The files that stage 2 finds.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::dhcp::Lease;
use crate::report::Record;

/// A file that hand-over adds to the image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Path in the image.
    pub(super) path: String,
    /// What it holds.
    pub(super) content: String,
}

/// resolv.conf and hostname, where the image leaves them open: missing or empty. A link, even a
/// dangling one, is somebody's decision and stays.
pub(super) fn for_stage_2(root: &Path, lease: Option<&Lease>) -> Vec<File> {
    let Some(lease) = lease else { return Vec::new() };
    let mut files = Vec::new();
    if !lease.dns.is_empty() && is_open(&root.join("etc/resolv.conf")) {
        files.push(File { path: "/etc/resolv.conf".to_owned(), content: resolv_conf(lease) });
    }
    if let Some(name) = lease.hostname.as_ref().filter(|_| is_open(&root.join("etc/hostname"))) {
        files.push(File { path: "/etc/hostname".to_owned(), content: format!("{name}\n") });
    }
    files
}

fn is_open(path: &Path) -> bool {
    // The folder must be a real one: a link could lead out of the image.
    let folder = path.parent().and_then(|folder| fs::symlink_metadata(folder).ok());
    folder.is_some_and(|folder| folder.is_dir())
        && fs::symlink_metadata(path).map_or(true, |file| file.is_file() && file.len() == 0)
}

fn resolv_conf(lease: &Lease) -> String {
    let mut text = String::new();
    let search = lease.search_list();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in &lease.dns {
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
    use std::net::Ipv4Addr;
    use std::os::unix::fs::symlink;

    use super::*;

    fn lease() -> Lease {
        Lease {
            dns: vec![Ipv4Addr::new(172, 16, 0, 254)],
            domain: Some("cluster".to_owned()),
            hostname: Some("n1".to_owned()),
            ..Lease::new(Ipv4Addr::new(172, 16, 0, 1), 24, Ipv4Addr::new(172, 16, 0, 254))
        }
    }

    #[test]
    fn open_files_are_filled() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/hostname"), "").unwrap();
        let files = for_stage_2(root.path(), Some(&lease()));
        assert_eq!(files[0].content, "search cluster\nnameserver 172.16.0.254\n");
        assert_eq!(files[1], File { path: "/etc/hostname".to_owned(), content: "n1\n".to_owned() });
        assert!(for_stage_2(root.path(), None).is_empty());
    }

    #[test]
    fn what_the_image_decides_stays() {
        let root = tempfile::tempdir().unwrap();
        assert!(for_stage_2(root.path(), Some(&lease())).is_empty(), "no /etc at all");
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/hostname"), "fixed\n").unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
        assert!(for_stage_2(root.path(), Some(&lease())).is_empty());
    }

    #[test]
    fn a_linked_etc_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        symlink("/etc", root.path().join("etc")).unwrap();
        assert!(for_stage_2(root.path(), Some(&lease())).is_empty());
    }
}
