//! The certificates by which nodes know `https://` servers: `tls/*.pem` of the site.

use std::env;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use rootstream::failure::Advise;
use rootstream::image::tls::{BUILT, Certificates, FOLDER, SUFFIX};
use rootstream::image::trust::files_in;

use super::cpio::Archive;
use crate::config::site::Site;

/// Overrides the time that an initramfs takes from its inputs (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Packs the site's certificates, and the time that it is at least when nodes read them: when the newest of them, or
/// `image`, was last changed. A node's clock may be behind, and then no certificate would be valid yet.
///
/// # Errors
/// A file holds no certificate, or a private key; the disk refuses.
pub(super) fn pack(archive: &mut Archive, site: &Site, image: &Path) -> Result<usize> {
    let files = files_in(&site.root().join(FOLDER), SUFFIX)?;
    if files.is_empty() {
        return Ok(0);
    }
    Certificates::read(&files)?;
    let mut newest = changed(image)?;
    for file in &files {
        newest = newest.max(changed(file)?);
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let content = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        archive.file(&format!("{FOLDER}/{name}"), 0o644, content);
    }
    if let Some(epoch) = env::var_os(EPOCH) {
        let text = epoch.to_string_lossy();
        newest = text.trim().parse().advise(
            format!("reading {EPOCH}={text}"),
            format!("set {EPOCH} to seconds since 1970, or leave it unset"),
        )?;
    }
    archive.file(BUILT, 0o644, format!("{newest}\n").into_bytes());
    Ok(files.len())
}

/// When a file was last changed, in seconds since 1970.
fn changed(file: &Path) -> Result<u64> {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified());
    let modified = modified.with_context(|| format!("asking when {} was changed", file.display()))?;
    Ok(modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}
