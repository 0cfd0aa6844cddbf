//! The kernel's own IPv6 on a port: switched off where it would do what we do, until the port is left.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::refuse;
use crate::say;

/// Where the switches are.
pub(super) const FOLDER: &str = "/proc/sys/net/ipv6/conf";

/// IPv6 is on, addresses and routes come from us, and an address is checked at once: nodes that are switched on together
/// are apart by more than the second that the kernel would wait at random.
const SWITCHES: [(&str, &str); 5] = [
    ("accept_ra", "0"),
    ("autoconf", "0"),
    ("accept_redirects", "0"),
    ("router_solicitation_delay", "0"),
    ("disable_ipv6", "0"),
];

/// Whether the kernel has any.
///
/// # Errors
/// It has no IPv6.
pub(super) fn check(all: &Path) -> anyhow::Result<()> {
    if all.exists() {
        return Ok(());
    }
    Err(refuse(
        format!("this kernel has no IPv6 (no {})", all.display()),
        "boot one that has it built in, without ipv6.disable=1; where it is a module, add ipv6 to modules.txt; or use \
         addresses of IPv4",
    ))
}

/// What was switched.
#[derive(Debug)]
pub(super) struct Switches {
    folder: PathBuf,
    /// With their values before.
    before: Vec<(&'static str, String)>,
}

impl Switches {
    /// Of the port, below the folder of all ports.
    pub(super) fn set(all: &Path, port: &str) -> Self {
        let folder = all.join(port);
        let mut before = Vec::new();
        for (name, value) in SWITCHES {
            let file = folder.join(name);
            let found = fs::read_to_string(&file).map(|found| found.trim().to_owned());
            let switched = found.and_then(|found| {
                if found != value {
                    fs::write(&file, value)?;
                    before.push((name, found));
                }
                Ok(())
            });
            if let Err(error) = switched {
                say::warn!("net: {port}: setting {} to {value}: {error}", file.display());
            }
        }
        Self { folder, before }
    }

    /// Sets them as they were, the last first.
    pub(super) fn put_back(&self) {
        for (name, value) in self.before.iter().rev() {
            let file = self.folder.join(name);
            if let Err(error) = fs::write(&file, value) {
                say::warn!("net: setting {} to {value} again: {error}", file.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipv6_is_told_from_one_with_it() {
        let all = tempfile::tempdir().unwrap();
        check(all.path()).unwrap();
        let why = check(&all.path().join("none")).unwrap_err().to_string();
        assert!(why.starts_with("this kernel has no IPv6"), "{why}");
    }

    #[test]
    fn what_was_switched_is_put_back_and_nothing_else() {
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("eth0");
        fs::create_dir(&folder).unwrap();
        let value = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        for (name, found) in [("accept_ra", "1\n"), ("autoconf", "0\n"), ("disable_ipv6", "1\n")] {
            fs::write(folder.join(name), found).unwrap();
        }
        let switches = Switches::set(all.path(), "eth0");
        assert_eq!(["accept_ra", "autoconf", "disable_ipv6"].map(value), ["0", "0\n", "0"]);
        switches.put_back();
        assert_eq!(["accept_ra", "autoconf", "disable_ipv6"].map(value), ["1", "0\n", "1"]);
    }
}
