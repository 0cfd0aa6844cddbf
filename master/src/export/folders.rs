//! Whether a server that does not run as root can come to a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The first folder on the way to `folder` that others than its owner and group cannot enter, as the beginning of a
/// sentence.
pub(super) fn closed(folder: &Path) -> Option<String> {
    let ways: Vec<&Path> = folder.ancestors().collect();
    let closed = ways
        .into_iter()
        .rev()
        .find(|way| fs::metadata(way).is_ok_and(|data| data.permissions().mode() & 0o001 == 0))?;
    Some(format!("{} can be entered by its owner and group only", closed.display()))
}
