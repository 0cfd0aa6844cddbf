//! SYSLINUX for UEFI, which reads the menus of [`pxelinux`](super::pxelinux).
//!
//! It takes all paths relative to the folder that it came from. So it lies beside pxelinux.0, at the root of TFTP.

use anyhow::Result;

use super::folder::{self, Loader};
use crate::config::site::Site;

/// What it needs beside the menus.
pub(crate) const LOADERS: [Loader; 2] = [
    Loader { name: "syslinux.efi", source: "/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi", package: "syslinux-efi" },
    Loader { name: "ldlinux.e64", source: "/usr/lib/syslinux/modules/efi64/ldlinux.e64", package: "syslinux-common" },
];

/// Puts the loader into `tftp/`.
///
/// # Errors
/// It is not installed, or the disk refuses.
pub(super) fn write(site: &Site, needed: bool) -> Result<()> {
    folder::install(site, &LOADERS, needed)
}
