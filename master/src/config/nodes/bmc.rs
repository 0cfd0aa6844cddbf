//! A node's BMC: where it is, and how one speaks to it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use nix::unistd::geteuid;
use rootstream::failure::{Advise, refuse};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::config::Document;
use crate::config::addresses::{Mac, Name, Wrong, as_text};

/// What a BMC's name has after its node's.
const SUFFIX: &str = "-bmc";
/// Longer files are no passwords.
const LONGEST: u64 = 4096;

/// How one speaks to a BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Protocol {
    /// IPMI 2.0 over UDP.
    #[default]
    Ipmi,
    /// Redfish over HTTPS.
    Redfish,
}

impl FromStr for Protocol {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text {
            "ipmi" => Ok(Self::Ipmi),
            "redfish" => Ok(Self::Redfish),
            _ => Err(format!("`{text}` is no protocol of BMCs; there are ipmi and redfish")),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipmi => "ipmi",
            Self::Redfish => "redfish",
        })
    }
}

as_text!(Protocol);

/// A node's BMC, with what its groups and the site say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bmc {
    /// Its port's; with it the site's DHCP gives it its address.
    pub mac: Option<Mac>,
    /// Its address.
    pub ip: Ipv4Addr,
    /// How one speaks to it.
    pub protocol: Protocol,
    /// Whom one logs in as.
    pub user: Option<String>,
    /// The file with that user's password, absolute.
    pub password_file: Option<PathBuf>,
    /// Its UDP or TCP port, where it is not the protocol's own.
    pub port: Option<u16>,
    /// IPMI's cipher suite, where it is not the program's own choice.
    pub cipher: Option<u8>,
    /// Whose certificates a Redfish service's must come from: a PEM file, absolute.
    pub ca: Option<PathBuf>,
    /// Believe whatever certificate a Redfish service shows.
    pub insecure: bool,
}

impl Bmc {
    /// The name that DHCP and DNS have for the BMC of `node`.
    pub fn name_of(node: &Name) -> String {
        format!("{node}{SUFFIX}")
    }

    /// The password, from its file.
    ///
    /// # Errors
    /// The file is unreadable, is for others to read too, or holds no password.
    pub fn password(&self) -> Result<Option<String>> {
        self.password_file.as_deref().map(password).transpose()
    }
}

fn password(path: &Path) -> Result<String> {
    let what = format!("reading the BMC password in {}", path.display());
    let file = File::open(path).advise(&what, "write the password to that file, and chmod 600 it")?;
    let meta = file.metadata().with_context(|| what.clone())?;
    if !is_private(meta.mode(), meta.uid(), geteuid().as_raw()) {
        return Err(refuse(
            format!(
                "the BMC password in {} is for others to read (mode {:04o}, owner {})",
                path.display(),
                meta.mode() & 0o7777,
                meta.uid()
            ),
            format!("make it yours, run chmod 600 {}, and think of who may have read it", path.display()),
        ));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).context(what)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    if line.is_empty() || line.contains(|c: char| c.is_control()) {
        return Err(refuse(
            format!("{} holds no password", path.display()),
            "write the password to it, and nothing else, on one line",
        ));
    }
    Ok(line.to_owned())
}

/// Whether nobody but its owner can read a file, and that is `us` or root.
fn is_private(mode: u32, owner: u32, us: u32) -> bool {
    mode & 0o077 == 0 && (owner == us || owner == 0)
}

/// `[bmc]` in site.toml and `[group.NAME.bmc]`: what BMCs have in common.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    protocol: Option<Protocol>,
    user: Option<Spanned<String>>,
    password_file: Option<PathBuf>,
    port: Option<Spanned<u16>>,
    cipher: Option<Spanned<u8>>,
    ca: Option<PathBuf>,
    insecure: Option<bool>,
    /// Refused, with better words than "unknown field".
    password: Option<Spanned<IgnoredAny>>,
}

/// `[node.bmc]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) mac: Option<Spanned<Mac>>,
    pub(super) ip: Spanned<Ipv4Addr>,
    protocol: Option<Protocol>,
    user: Option<Spanned<String>>,
    password_file: Option<PathBuf>,
    port: Option<Spanned<u16>>,
    cipher: Option<Spanned<u8>>,
    ca: Option<PathBuf>,
    insecure: Option<bool>,
    password: Option<Spanned<IgnoredAny>>,
}

impl Entry {
    /// The BMC that it describes, on top of `common`, later ones going before earlier ones. A relative
    /// password file is in the folder `root`.
    ///
    /// # Errors
    /// [`crate::config::Misconfigured`]
    pub(super) fn resolve(self, document: &Document, root: &Path, common: &[&Access]) -> Result<Bmc> {
        let Self { mac, ip, protocol, user, password_file, port, cipher, ca, insecure, password } = self;
        let own = Access { protocol, user, password_file, port, cipher, ca, insecure, password };
        own.check(document)?;
        let said = common.iter().copied().chain([&own]).fold(Access::default(), |all, one| Access {
            protocol: one.protocol.or(all.protocol),
            user: one.user.clone().or(all.user),
            password_file: one.password_file.clone().or(all.password_file),
            port: one.port.clone().or(all.port),
            cipher: one.cipher.clone().or(all.cipher),
            ca: one.ca.clone().or(all.ca),
            insecure: one.insecure.or(all.insecure),
            password: None,
        });
        Ok(Bmc {
            mac: mac.map(Spanned::into_inner),
            ip: ip.into_inner(),
            protocol: said.protocol.unwrap_or_default(),
            user: said.user.map(Spanned::into_inner),
            password_file: said.password_file.map(|file| root.join(file)),
            port: said.port.map(Spanned::into_inner),
            cipher: said.cipher.map(Spanned::into_inner),
            ca: said.ca.map(|file| root.join(file)),
            insecure: said.insecure.unwrap_or(false),
        })
    }
}

impl Access {
    /// Refuses what no BMC takes, and passwords.
    ///
    /// # Errors
    /// [`crate::config::Misconfigured`]
    pub(crate) fn check(&self, document: &Document) -> Result<()> {
        if let Some(password) = &self.password {
            let what = "a password does not belong into this file, which others read: write it to a file of its own \
                        with mode 0600, and name that as password_file";
            return Err(document.refuse(password.span(), what));
        }
        if let Some(user) = &self.user
            && (user.get_ref().is_empty() || user.get_ref().contains(|c: char| c.is_control()))
        {
            return Err(document.refuse(user.span(), "the user of a BMC is one line with a name"));
        }
        if let Some(port) = self.port.as_ref().filter(|port| *port.get_ref() == 0) {
            return Err(document.refuse(port.span(), "a BMC's port is between 1 and 65535"));
        }
        if let Some(cipher) = self.cipher.as_ref().filter(|cipher| *cipher.get_ref() > 19) {
            return Err(document.refuse(cipher.span(), "IPMI's cipher suites are 0 to 19; most BMCs take 3 or 17"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bmc");
        let write = |text: &str, mode: u32| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            password(&file)
        };
        assert_eq!(write("se cret\n", 0o600).unwrap(), "se cret");
        assert_eq!(write("s", 0o400).unwrap(), "s");
        for mode in [0o640, 0o604, 0o660] {
            assert!(write("s\n", mode).unwrap_err().to_string().contains("is for others to read"), "{mode:o}");
        }
        for text in ["", "\n", "a\nb\n"] {
            let error = write(text, 0o600).unwrap_err().to_string();
            assert!(error.ends_with("holds no password"), "{error}");
        }
        assert!(is_private(0o600, 0, 1000) && is_private(0o400, 1000, 1000) && !is_private(0o600, 1000, 0));
        fs::remove_file(&file).unwrap();
        assert!(format!("{:#}", password(&file).unwrap_err()).contains("No such file"));
    }
}
