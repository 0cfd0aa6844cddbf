//! Which loader a node's firmware gets, and how.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::addresses::{Wrong, as_text};

/// The way from a node's firmware to its kernel: `boot = "…"` of a node, a group or the site's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BootPath {
    /// BIOS: pxelinux.0 by TFTP.
    Pxelinux,
    /// iPXE by TFTP, and its script by HTTP.
    Ipxe,
    /// UEFI: GRUB by TFTP.
    Grub,
    /// UEFI: syslinux.efi by TFTP.
    Syslinux,
    /// UEFI HTTP boot: the loader by HTTP.
    Http,
}

impl BootPath {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Pxelinux, Self::Ipxe, Self::Grub, Self::Syslinux, Self::Http];

    /// The word for it in site.toml and nodes.toml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pxelinux => "pxelinux",
            Self::Ipxe => "ipxe",
            Self::Grub => "grub",
            Self::Syslinux => "syslinux",
            Self::Http => "http",
        }
    }
}

impl FromStr for BootPath {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|path| path.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no boot path; there are {}", known()))
    }
}

impl fmt::Display for BootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

as_text!(BootPath);
