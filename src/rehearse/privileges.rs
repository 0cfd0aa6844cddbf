//! Whether this user can unpack an image, asked before anything is downloaded.

use std::fs;

use anyhow::{Context, Result};

use super::options::Options;
use crate::failure::refuse;

/// What unpacking with owners takes (capabilities(7)): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP.
const UNPACK: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 27 | 1 << 31;
/// What `--net` takes: NET_ADMIN, NET_RAW.
const NETWORK: u64 = 1 << 12 | 1 << 13;

/// Refuses what this user cannot do.
///
/// # Errors
/// A capability is missing.
pub(super) fn check(options: &Options) -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let ids = fs::read_to_string("/proc/self/uid_map").context("reading /proc/self/uid_map")?;
    let held = effective(&status).context("/proc/self/status names no CapEff")?;
    if !options.no_owners && (held & UNPACK != UNPACK || !has_all_ids(&ids)) {
        return Err(refuse(
            "this user cannot unpack an image with its owners, devices and capabilities",
            "run it as root, or say --no-owners to leave those out",
        ));
    }
    if options.net && held & NETWORK != NETWORK {
        return Err(refuse(
            "this user cannot bring up a network port",
            "run it as root, or in a user namespace that owns the network namespace (unshare -Urn)",
        ));
    }
    Ok(())
}

/// The effective capabilities in /proc/PID/status.
fn effective(status: &str) -> Option<u64> {
    u64::from_str_radix(status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim(), 16).ok()
}

/// Whether every owner exists: root of a user namespace has only some, and can make no devices.
fn has_all_ids(uid_map: &str) -> bool {
    uid_map.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_in_hex() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name: x"), None);
    }

    #[test]
    fn a_user_namespace_is_not_root() {
        assert!(has_all_ids("         0          0 4294967295\n"));
        assert!(!has_all_ids("         0       1000          1\n"));
    }
}
