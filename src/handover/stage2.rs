//! The network in stage 2: the same address, by the same client identity, renewed by what the image has for that.
//!
//! Stage 1 leaves the port as it is, up and with its address. Whatever manages the network in stage 2 finds a file that
//! lets it go on with that port: one for the manager that the image starts, and one that gives way to what the site
//! itself says about the port.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::files::File;
use super::{ifupdown, network_manager, networkd};
use crate::lease::Lease;
use crate::mac::Hardware;
use crate::net::{ClientId, Device, Network};
use crate::say;

/// How a port got its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a server or a router: stage 2 renews it.
    Lease,
    /// From the kernel command line: it is what it is.
    Static,
}

/// What stage 2 does to keep the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing: it is what it is.
    Static,
    /// DHCP for IPv4.
    Dhcp,
    /// It listens to routers, of whose prefix the address is made.
    Routers,
    /// DHCPv6.
    Dhcp6,
}

/// The port that stage 2 goes on with.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    /// Kernel name.
    pub name: &'a str,
    /// Its MAC.
    pub mac: Hardware,
    /// Its number in the kernel, where that is known.
    pub index: Option<u32>,
    /// Whether the MAC is the hardware's own, by which the port is known whatever its name and MAC become.
    pub permanent: bool,
    /// How it got its address.
    pub origin: Origin,
    /// What DHCP option 61 carried.
    pub client_id: &'a ClientId,
    /// Its address, and what comes with it.
    pub lease: &'a Lease,
    /// The VLANs and bonds that it is made of, itself first; empty for a port of the machine.
    pub devices: &'a [Device],
}

impl<'a> Port<'a> {
    /// The port of `network`, by the sysfs at `sys` (`/sys`).
    pub fn of(network: &'a Network, client_id: &'a ClientId, sys: &Path) -> Self {
        let folder = sys.join("class/net").join(&network.port);
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u32>().ok();
        Self {
            name: &network.port,
            mac: network.mac,
            index: number("ifindex"),
            // NET_ADDR_PERM of linux/netdevice.h.
            permanent: number("addr_assign_type") == Some(0),
            origin: if network.fixed { Origin::Static } else { Origin::Lease },
            client_id,
            lease: &network.lease,
            devices: &network.devices,
        }
    }

    /// How its address is kept. What has the MAC's identifier (EUI-64, RFC 4291) was made of a router's prefix, or would
    /// have been.
    pub(super) fn way(&self) -> Way {
        let [a, b, c, d, e, f] = self.mac.mac();
        let identifier = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        match (self.origin, self.lease.address) {
            (Origin::Static, _) => Way::Static,
            (Origin::Lease, IpAddr::V4(_)) => Way::Dhcp,
            (Origin::Lease, IpAddr::V6(address)) if address.to_bits() & u128::from(u64::MAX) == identifier.into() => {
                Way::Routers
            }
            (Origin::Lease, IpAddr::V6(_)) => Way::Dhcp6,
        }
    }

    /// The name servers; one on the link stands with the port that the link is at.
    pub(super) fn name_servers(&self) -> Vec<String> {
        self.lease.name_servers(self.name)
    }

    /// It is a VLAN or bond, which shares its MAC with what it is on.
    pub(super) fn is_made(&self) -> bool {
        !self.devices.is_empty()
    }

    /// The DUID and IAID that DHCPv6 servers know it by.
    pub(super) fn duid(&self) -> (Vec<u8>, u32) {
        self.client_id.duid(self.mac.mac())
    }

    /// The hardware address as text, all of it.
    pub(super) fn mac_text(&self) -> String {
        self.mac.whole()
    }

    /// Option 61 as it was sent, in hex with colons; nothing where it was not sent.
    pub(super) fn client_id_text(&self) -> Option<String> {
        self.client_id.option(self.mac).map(|bytes| hex(&bytes))
    }
}

/// Bytes in hex with colons.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// The files that let the image's manager of the network go on with `port`.
pub(super) fn files(root: &Path, port: &Port<'_>) -> Vec<File> {
    if starts(root, "systemd-networkd.service") {
        return networkd::files(root, port);
    }
    if starts(root, "NetworkManager.service") {
        return if network_manager::knows(root, port) { Vec::new() } else { network_manager::files(port) };
    }
    if starts(root, "networking.service") || root.join("etc/rcS.d/S01networking").is_symlink() {
        return ifupdown::files(root, port);
    }
    say::info!("hand-over: the image starts nothing that manages the network: nobody renews its address");
    Vec::new()
}

/// Whether the image's systemd starts a unit: something wants it, and it is not masked.
fn starts(root: &Path, unit: &str) -> bool {
    if fs::read_link(root.join("etc/systemd/system").join(unit)).is_ok_and(|link| link == Path::new("/dev/null")) {
        return false;
    }
    let folders = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
    let targets = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).into_iter().flatten().flatten());
    let wanting = targets.filter(|entry| {
        let name = entry.file_name();
        [".wants", ".requires"].iter().any(|end| name.to_string_lossy().ends_with(end))
    });
    // A link out of the image's /etc would lead into ours: its name is enough.
    wanting.into_iter().any(|target| fs::symlink_metadata(target.path().join(unit)).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::tests::{lease, port};
    use super::*;

    fn paths(root: &Path) -> Vec<String> {
        files(root, &port(&lease(), &ClientId::Mac)).into_iter().map(|file| file.path).collect()
    }

    // F17
    #[test]
    fn the_manager_that_the_image_starts_gets_a_file() {
        let root = tempfile::tempdir().unwrap();
        let enable = |folder: &str, unit: &str| {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            symlink(format!("/lib/systemd/system/{unit}"), root.path().join(folder).join(unit)).unwrap();
        };
        assert!(paths(root.path()).is_empty(), "an image without any");
        fs::create_dir_all(root.path().join("etc/network")).unwrap();
        enable("etc/systemd/system/multi-user.target.wants", "networking.service");
        assert_eq!(paths(root.path()), ["/etc/network/interfaces", "/etc/network/interfaces.d/rootstream"]);
        enable("usr/lib/systemd/system/multi-user.target.wants", "NetworkManager.service");
        assert!(paths(root.path())[0].starts_with("/run/NetworkManager/"));
        let profile = "etc/NetworkManager/system-connections";
        fs::create_dir_all(root.path().join(profile)).unwrap();
        fs::write(root.path().join(profile).join("a.nmconnection"), "[connection]\ntype=ethernet\n").unwrap();
        assert!(paths(root.path()).is_empty(), "the site's own profile");
        enable("etc/systemd/system/sockets.target.requires", "systemd-networkd.service");
        assert_eq!(paths(root.path()), ["/run/systemd/network/zz-rootstream.network"]);
        symlink("/dev/null", root.path().join("etc/systemd/system/systemd-networkd.service")).unwrap();
        assert!(paths(root.path()).is_empty(), "masked");
    }
}
