//! Whether this process would change the machine's own network.

use std::fs;
use std::io;
use std::path::Path;

/// Whether the calling thread is in the network namespace of PID 1, or, where PID 1 may not be looked
/// at, in the kernel's first.
///
/// # Errors
/// /proc is not mounted.
pub fn is_machines_own() -> io::Result<bool> {
    let ours = fs::read_link("/proc/thread-self/ns/net")?;
    match fs::read_link("/proc/1/ns/net") {
        Ok(machines) => Ok(ours == machines),
        // /proc/sys/net shows the caller's namespace, and this knob exists in the first one only.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(Path::new("/proc/sys/net/core/dev_weight").exists())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fresh_namespace_is_not_the_machines() {
        let before = super::is_machines_own().unwrap();
        rootstream_lab::namespace::enter_private_network().unwrap();
        assert!(!super::is_machines_own().unwrap());
        assert!(before, "tests run in the machine's own network namespace");
    }
}
