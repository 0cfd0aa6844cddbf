//! IPv6 of one port, by the kernel's switches.

use std::fs;
use std::io;
use std::path::Path;

use crate::failure::{Advise, refuse};

/// The kernel's switches of IPv6.
pub(super) const FOLDER: &str = "/proc/sys/net/ipv6";

/// Switches IPv6 on; false when it was on already.
///
/// # Errors
/// The kernel has no IPv6, or does not let us.
pub(super) fn enable(folder: &Path, port: &str) -> anyhow::Result<bool> {
    if !folder.exists() {
        return Err(refuse(
            "this kernel has no IPv6 (no /proc/sys/net/ipv6)",
            "boot one that has it built in, without ipv6.disable=1; where it is a module, add ipv6 to modules.txt; or use \
             addresses of IPv4",
        ));
    }
    let file = folder.join("conf").join(port).join("disable_ipv6");
    let switched = || -> io::Result<bool> {
        let off = fs::read_to_string(&file)?.trim() != "0";
        if off {
            fs::write(&file, "0")?;
        }
        Ok(off)
    };
    switched()
        .advise(format!("switching on IPv6 on {port} ({})", file.display()), "let the kernel have IPv6 on that port")
}

/// Switches it off again.
///
/// # Errors
/// The kernel does not let us.
pub(super) fn disable(folder: &Path, port: &str) -> io::Result<()> {
    fs::write(folder.join("conf").join(port).join("disable_ipv6"), "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_ipv6_where_the_kernel_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("conf/eth0.5/disable_ipv6");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "1\n").unwrap();
        assert!(enable(folder.path(), "eth0.5").unwrap());
        assert!(!enable(folder.path(), "eth0.5").unwrap());
        disable(folder.path(), "eth0.5").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        let gone = enable(folder.path(), "eth1").unwrap_err().to_string();
        assert!(gone.starts_with("switching on IPv6 on eth1"), "{gone}");
        let none = enable(&folder.path().join("none"), "eth0").unwrap_err().to_string();
        assert!(none.starts_with("this kernel has no IPv6"), "{none}");
    }
}
