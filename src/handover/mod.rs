//! The hand-over to the image: its init is found, the files for stage 2 are left, and PID 1 becomes
//! that init, as util-linux's switch_root(8) does it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::cmdline::Config;
use crate::failure::refuse;
use crate::image::VerifiedRoot;
use crate::say;

mod elf;
mod files;
mod find;
mod ifupdown;
mod network_manager;
mod networkd;
mod stacked;
mod stage2;
mod switch;

pub use elf::Elf;
pub use files::leave_record;
pub use find::check_init;
pub use stage2::{Origin, Port};
pub use switch::switch_root;

/// The mounts that move to the new root.
const MOVED: [&str; 4] = ["dev", "proc", "sys", "run"];

/// A root that can be switched to. Made from a [`VerifiedRoot`] whose init was found, in the process
/// that verified it, and sent from there to PID 1.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    root: PathBuf,
    init: PathBuf,
    args: Vec<String>,
}

impl Ready {
    /// Where the root is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image's init, as a path in the image.
    pub fn init(&self) -> &Path {
        &self.init
    }
}

/// Paths of the files that hand-over adds to the image.
pub fn additions(root: &VerifiedRoot, port: Option<&Port<'_>>) -> Vec<String> {
    files::for_stage_2(root.path(), port).into_iter().map(|file| file.path).collect()
}

/// Checks that the image has room for what moves to it: /dev, /proc, /sys and /run are real folders there,
/// or not there. `image` names the image in the message.
///
/// # Errors
/// One is a file or a link.
pub fn check_mount_points(root: &Path, image: &str) -> Result<()> {
    for name in MOVED {
        let kind = std::fs::symlink_metadata(root.join(name)).map(|metadata| metadata.is_dir());
        if let Ok(false) = kind {
            return Err(refuse(
                format!("/{name} of the image {image} is not a folder, so nothing can be mounted there"),
                "make it an empty folder in the image",
            ));
        }
    }
    Ok(())
}

/// Writes the files for stage 2 that the image leaves open, some of them into `run`, which moves there, and names the
/// node. Returns their paths in stage 2 too.
///
/// # Errors
/// A file cannot be written.
pub fn prepare(root: VerifiedRoot, config: &Config, port: &Port<'_>, run: &Path) -> Result<(Ready, Vec<String>)> {
    let files = files::for_stage_2(root.path(), Some(port));
    for file in &files {
        file.write(root.path(), run)?;
    }
    let written = files.into_iter().map(|file| file.path).collect();
    if let Some(name) = &port.lease.hostname {
        let short = kernel_name(name);
        if let Err(errno) = nix::unistd::sethostname(short) {
            say::warn!("hand-over: the kernel does not take the host name {short}: {}", errno.desc());
        }
    }
    let ready = Ready { root: root.path().to_owned(), init: config.init.clone(), args: config.init_args.clone() };
    Ok((ready, written))
}

/// As much of a host name as the kernel takes (gethostname(2): 64 bytes): all of it, or its first label,
/// which RFC 1035 bounds at 63.
fn kernel_name(name: &str) -> &str {
    if name.len() <= 64 { name } else { name.split('.').next().unwrap_or(name) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::lease::Lease;
    use crate::mac::Hardware;
    use crate::net::ClientId;

    /// What the tests of hand-over's files are about.
    pub(super) fn lease() -> Lease {
        let master = Ipv4Addr::new(172, 16, 0, 254);
        Lease {
            routes: vec![(Ipv4Addr::UNSPECIFIED, 0, master)],
            dns: vec![master],
            domain: Some("cluster".to_owned()),
            hostname: Some("n1".to_owned()),
            ..Lease::new(Ipv4Addr::new(172, 16, 0, 1), 24, master)
        }
        .widened()
    }

    /// The same of IPv6.
    pub(super) fn lease_6(address: &str) -> Lease {
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        Lease {
            routes: vec![(ip("::"), 0, ip("fe80::1")), (ip("fd05::"), 64, ip("::"))],
            dns: vec![ip("fd00::1"), ip("fe80::1")],
            hostname: Some("n1".to_owned()),
            ..Lease::new(ip(address), 64, ip("fd00::1"))
        }
    }

    /// The port with that lease.
    pub(super) fn port<'a>(lease: &'a Lease, client_id: &'a ClientId) -> Port<'a> {
        let mac = Hardware::Ethernet([0x52, 0x54, 0, 0xac, 0x10, 1]);
        Port {
            name: "eth0",
            mac,
            index: Some(2),
            permanent: true,
            origin: Origin::Lease,
            client_id,
            lease,
            devices: &[],
        }
    }

    /// The same, over InfiniBand.
    pub(super) fn infiniband<'a>(lease: &'a Lease, client_id: &'a ClientId) -> Port<'a> {
        let mut address = [0; 20];
        address[..4].copy_from_slice(&[0x80, 0, 2, 8]);
        address[12..].copy_from_slice(&[0xe4, 0x1d, 0x2d, 3, 0, 0x12, 0x34, 0x56]);
        Port { name: "ib0", mac: Hardware::InfiniBand(address), ..port(lease, client_id) }
    }

    #[test]
    fn a_long_host_name_is_cut_to_its_first_label() {
        assert_eq!(kernel_name("n1.cluster"), "n1.cluster");
        assert_eq!(kernel_name(&format!("n1.{}", "x".repeat(63))), "n1");
    }

    // F61
    #[test]
    fn an_image_without_room_for_the_mounts_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        check_mount_points(root.path(), "http://m/i.tar").unwrap();
        std::os::unix::fs::symlink("/var/run", root.path().join("run")).unwrap();
        let error = check_mount_points(root.path(), "http://m/i.tar").unwrap_err().to_string();
        assert!(error.contains("/run of the image http://m/i.tar"), "{error}");
    }
}
