//! Which process owns a port, and who started it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The process that has `port` open in this network namespace; `protocol` is `udp` or `tcp`.
///
/// # Errors
/// No process has.
pub fn owner(protocol: &str, port: u16) -> Result<u32> {
    // A test's threads are in namespaces of their own.
    let table = fs::read_to_string(format!("/proc/thread-self/net/{protocol}")).context("reading the socket table")?;
    let inodes = inodes(&table, port);
    let processes = fs::read_dir("/proc").context("listing the processes")?.flatten();
    let mut owners = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    owners
        .find(|pid| inodes.iter().any(|inode| holds(*pid, inode)))
        .with_context(|| format!("no process has {protocol} port {port} open"))
}

/// The process that started `pid`.
///
/// # Errors
/// There is no such process.
pub fn parent(pid: u32) -> Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("asking for process {pid}"))?;
    parent_in(&stat).with_context(|| format!("reading /proc/{pid}/stat"))
}

/// Whether `pid` is `ancestor` or was started by it, directly or not.
pub fn descends(pid: u32, ancestor: u32) -> bool {
    pid == ancestor || parent(pid).is_ok_and(|above| above != 0 && descends(above, ancestor))
}

/// The inodes of the sockets bound to `port`, from a table in `/proc/net`.
fn inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1).is_some_and(|local| local.ends_with(&suffix)))
        .filter_map(|row| row.get(9).map(|inode| (*inode).to_owned()))
        // Connections in TIME_WAIT belong to no process.
        .filter(|inode| inode != "0")
        .collect()
}

/// The fourth field; the second, the program's name in parentheses, may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn holds(pid: u32, inode: &str) -> bool {
    let target = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(&target)))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_owner_of_a_port_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(owner("udp", socket.local_addr().unwrap().port()).unwrap(), std::process::id());
        assert!(descends(std::process::id(), parent(std::process::id()).unwrap()));
        assert!(!descends(parent(std::process::id()).unwrap(), std::process::id()));
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        assert_eq!(parent_in("7 (a) b) S 42 7 7"), Some(42));
        assert_eq!(parent_in("7"), None);
    }

    #[test]
    fn only_the_local_port_counts() {
        let table = "  sl  local_address rem_address\n\
            0: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 811 2\n\
            1: 0100007F:1F90 00000000:0043 07 00000000:00000000 00:00000000 00000000 0 0 812 2\n\
            2: 0100007F:0043 00000000:0000 06 00000000:00000000 00:00000000 00000000 0 0 0 2\n";
        assert_eq!(inodes(table, 67), ["811"]);
    }
}
