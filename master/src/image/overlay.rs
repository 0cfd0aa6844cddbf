//! The site's part of an image, as one archive with exact owners and modes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::failure::Advise;
use tar::{Builder, EntryType, Header};

use crate::config::recipe::{Hostname, Recipe};
use crate::config::site::Site;
use crate::keys;

/// Debian makes host keys when the package is installed, which is when the image is built; a node
/// makes its own when it first starts. No RSA key: making one delays the login by seconds, and clients
/// have known the other two kinds since 2014.
const HOST_KEYS_UNIT: &str = "\
[Unit]
Description=ssh host keys of this node
Documentation=man:ssh-keygen(1)
Before=ssh.service ssh.socket
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -q -t ecdsa -N '' -f /etc/ssh/ssh_host_ecdsa_key
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=ssh.service
";

const UNIT: &str = "etc/systemd/system/rootstream-ssh-keys.service";

/// Makes the archive: copied files, root's authorized keys, the host name, the host key unit.
///
/// # Errors
/// A file of the recipe is missing; it is named.
pub(super) fn archive(site: &Site, recipe: &Recipe) -> Result<Vec<u8>> {
    let mut overlay = Overlay { tar: Builder::new(Vec::new()) };
    if let Hostname::Fixed(name) = &recipe.hostname {
        overlay.file(Path::new("etc/hostname"), format!("{name}\n").as_bytes(), 0o644, (0, 0))?;
    }
    if !recipe.ssh_authorized_keys.is_empty() {
        let mut keys = String::new();
        for path in &recipe.ssh_authorized_keys {
            let text = String::from_utf8(input(site, path)?).with_context(|| format!("reading {}", path.display()))?;
            keys::refuse_private(&site.root().join(path), &text)?;
            keys.push_str(text.trim_end());
            keys.push('\n');
        }
        overlay.entry(Path::new("root/.ssh"), EntryType::Directory, &[], 0o700, (0, 0))?;
        overlay.file(Path::new("root/.ssh/authorized_keys"), keys.as_bytes(), 0o600, (0, 0))?;
    }
    if recipe.packages().any(|p| p == "openssh-server") {
        overlay.file(Path::new(UNIT), HOST_KEYS_UNIT.as_bytes(), 0o644, (0, 0))?;
        let wants = Path::new("etc/systemd/system/ssh.service.wants");
        overlay.entry(wants, EntryType::Directory, &[], 0o755, (0, 0))?;
        overlay.link(&wants.join("rootstream-ssh-keys.service"), &format!("/{UNIT}"))?;
    }
    for copy in &recipe.files {
        let owner = (copy.owner.user, copy.owner.group);
        overlay.file(copy.to.relative(), &input(site, &copy.from)?, copy.mode.0, owner)?;
    }
    overlay.tar.into_inner().context("ending the archive of the site's files")
}

/// A file that the recipe names, relative to the site.
pub(super) fn input(site: &Site, path: &Path) -> Result<Vec<u8>> {
    fs::read(site.root().join(path)).advise(
        format!("reading {}, which the recipe names", site.root().join(path).display()),
        "put the file there, or take it out of the recipe; paths are relative to the site",
    )
}

struct Overlay {
    tar: Builder<Vec<u8>>,
}

impl Overlay {
    fn file(&mut self, path: &Path, content: &[u8], mode: u32, owner: (u64, u64)) -> Result<()> {
        self.entry(path, EntryType::Regular, content, mode, owner)
    }

    fn entry(&mut self, path: &Path, kind: EntryType, content: &[u8], mode: u32, owner: (u64, u64)) -> Result<()> {
        let mut header = header(kind, mode, owner);
        header.set_size(content.len() as u64);
        self.tar.append_data(&mut header, path, content).with_context(|| format!("packing /{}", path.display()))
    }

    fn link(&mut self, path: &Path, target: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, (0, 0));
        header.set_size(0);
        self.tar.append_link(&mut header, path, target).with_context(|| format!("packing /{}", path.display()))
    }
}

fn header(kind: EntryType, mode: u32, (user, group): (u64, u64)) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(user);
    header.set_gid(group);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;

    fn packed(recipe: &str) -> Result<Vec<(String, u32, u64, String)>> {
        packed_with(recipe, "ssh-ed25519 C c")
    }

    fn packed_with(recipe: &str, private: &str) -> Result<Vec<(String, u32, u64, String)>> {
        let folder = tempfile::tempdir().unwrap();
        let site = "[network]\ninterface = 'br0'\naddress = '172.16.0.254/24'\n";
        fs::write(folder.path().join("site.toml"), site).unwrap();
        fs::write(folder.path().join("a.pub"), "ssh-ed25519 A a\n\n").unwrap();
        fs::write(folder.path().join("b.pub"), "ssh-ed25519 B b").unwrap();
        fs::write(folder.path().join("private.pub"), private).unwrap();
        let recipe = Recipe::read(&Document::of("c.toml", format!("suite = 'bookworm'\n{recipe}"))).unwrap();
        let bytes = archive(&Site::open(folder.path()).unwrap(), &recipe)?;
        let mut tar = tar::Archive::new(bytes.as_slice());
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = String::new();
            std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
            let header = entry.header();
            (path, header.mode().unwrap(), header.uid().unwrap() * 10_000 + header.gid().unwrap(), content)
        });
        Ok(entries.collect())
    }

    #[test]
    fn keys_files_and_names_have_exact_owners_and_modes() {
        let entries = packed(
            "packages = []\nhostname = 'login'\nssh_authorized_keys = ['a.pub', 'b.pub']\n\
             [[files]]\nfrom = 'a.pub'\nto = '/opt/x'\nmode = '4750'\nowner = '7:8'\n",
        );
        let entry = |path: &str, mode, owner, content: &str| (path.to_owned(), mode, owner, content.to_owned());
        assert_eq!(
            entries.unwrap(),
            [
                entry("etc/hostname", 0o644, 0, "login\n"),
                entry("root/.ssh", 0o700, 0, ""),
                entry("root/.ssh/authorized_keys", 0o600, 0, "ssh-ed25519 A a\nssh-ed25519 B b\n"),
                entry("opt/x", 0o4750, 70_008, "ssh-ed25519 A a\n\n"),
            ]
        );
    }

    #[test]
    fn a_lease_names_the_node_unless_told_otherwise() {
        let entries = packed("packages = ['openssh-server']").unwrap();
        let paths: Vec<_> = entries.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                UNIT,
                "etc/systemd/system/ssh.service.wants",
                "etc/systemd/system/ssh.service.wants/rootstream-ssh-keys.service"
            ]
        );
    }

    #[test]
    fn a_private_key_is_refused_by_its_name() {
        for kind in ["OPENSSH PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
            let recipe = "packages = []\nssh_authorized_keys = ['private.pub']";
            let text = format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
            let error = packed_with(recipe, &text).unwrap_err().to_string();
            assert!(error.contains("/private.pub is a private key, not a public one"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = packed("packages = []\nssh_authorized_keys = ['c.pub']").unwrap_err();
        assert!(error.to_string().contains("/c.pub, which the recipe names"), "{error}");
    }
}
