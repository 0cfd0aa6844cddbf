//! A new site: its folders, and files that explain themselves.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};

use crate::aside;
use crate::config::Document;
use crate::config::addresses::{AddressRange, Cidr};
use crate::config::site::Config;

const NODES: &str = "\
# The nodes of this site, one entry each. `rootstream node add` writes them too:
#   rootstream node add n1 --mac 52:54:00:ac:10:01 --ip 172.16.0.1
#
# [[node]]
# name = \"n1\"                       # also its host name
# mac = \"52:54:00:ac:10:01\"         # of the port that it boots from
# ip = \"172.16.0.1\"                 # in the network of site.toml
# image = \"compute\"                 # optional; the default is in site.toml
# overlays = [\"common\"]            # optional, instead of those in site.toml: `rootstream overlay publish --help`
# parameters = \"rootstream.log=debug\"  # optional; after those of site.toml
# [node.facts]                      # optional: what @rack@ in templates of overlays stands for
# rack = \"r1\"
";

const RECIPE: &str = r#"# A Debian compute node. `rootstream image build compute` makes an image of it.

suite = "bookworm"
arch = "amd64"
# mirror = "http://deb.debian.org/debian"
# Its security and stable updates are built in; `rootstream image build compute --force` gets newer
# ones. "" leaves them out, for a mirror that has only the suite.
# security_mirror = "http://deb.debian.org/debian-security"

packages = [
    "linux-image-amd64",    # for virtual machines only, linux-image-cloud-amd64 is smaller
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "iproute2",
    "openssh-server",
]

# Units to enable beside those that enable themselves. systemd-networkd renews the lease on which
# the node booted, with the file below.
services = ["systemd-networkd"]

# Public keys whose owners may log in as root, relative to the site. Without one nobody can:
# the image has no passwords.
ssh_authorized_keys = [
    # "keys/admin.pub",
]

# "dhcp": the lease names each node. Any other name is fixed in the image, for all nodes.
hostname = "dhcp"

# Files to copy in, from a path relative to the site. Owner: "root", or user and group as numbers.
[[files]]
from = "images/compute/20-dhcp.network"
to = "/etc/systemd/network/20-dhcp.network"

# [[files]]
# from = "files/motd"
# to = "/etc/motd"
# mode = "0644"
# owner = "0:0"
"#;

/// Takes the port over from stage 1 in the running system.
const DHCP_NETWORK: &str = include_str!("starter/20-dhcp.network");
/// Where it is in the site.
const DHCP_NETWORK_FILE: &str = "images/compute/20-dhcp.network";

/// Makes a site in the folder `root`, which must be empty or missing.
///
/// # Errors
/// The folder holds something, the range is outside the network, or the disk refuses.
pub(crate) fn create(root: &Path, interface: &str, address: Cidr, range: Option<AddressRange>) -> Result<()> {
    let site = site_toml(interface, address, range);
    Config::read(&Document::of("site.toml", &site)).context("making site.toml of these values")?;
    if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(refuse(format!("{} is not empty", root.display()), "name a new folder; nothing was changed"));
    }
    for folder in ["images/compute", "overlays", "store", "tftp", "keys", "tls"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder)
            .advise(format!("making the folder {}", folder.display()), "name a folder that you can write to")?;
    }
    aside::write(&root.join("images/compute.toml"), RECIPE.as_bytes())?;
    aside::write(&root.join(DHCP_NETWORK_FILE), DHCP_NETWORK.as_bytes())?;
    aside::write(&root.join("nodes.toml"), NODES.as_bytes())?;
    // Last: with it the folder is a site.
    aside::write(&root.join("site.toml"), site.as_bytes())
}

fn site_toml(interface: &str, address: Cidr, range: Option<AddressRange>) -> String {
    let range = match range {
        Some(range) => format!("range = \"{range}\""),
        None => "# range = \"172.16.0.200-172.16.0.250\"".to_owned(),
    };
    let interface = toml::Value::from(interface);
    format!(
        r#"# A rootstream site. `rootstream up` reads it when it starts.

[network]
interface = {interface}             # the master's port on the nodes' network
address = "{address}"   # the master's address on it
# For machines that nodes.toml does not name; without it they get no address.
{range}
# gateway = "172.16.0.254"        # the nodes' router
# dns = ["172.16.0.254"]          # name servers; with the master's own address it serves the nodes' names
# domain = "cluster.example.org"
# lease = "1h"
# ipv6_prefix = "fd00:ac10::/64"  # announced to boot ROMs that wait for a router; the interface needs an address in it

[http]
port = 80
# Nodes can fetch from https:// servers as well (rootstream.image=https://… in parameters below). They know them by
# tls/NAME.pem, the certificate of an authority or a server's own, which `rootstream bootstrap` packs.

[defaults]
image = "compute"
# overlays = ["common"]           # what goes on top of it, in order: `rootstream overlay publish --help`
# The last console is the one that has the login prompt and the boot's messages. net.ifnames=0 keeps
# the kernel's names for ports (eth0): the port from which a node booted is in use when udev would
# rename it, the renaming fails, and systemd-networkd would wait for it and never renew the lease.
parameters = "console=tty0 console=ttyS0,115200 net.ifnames=0"

# [facts]                         # what @ntp@ in templates of overlays stands for, on every node
# ntp = "172.16.0.254"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::recipe::Recipe;

    #[test]
    fn what_it_writes_can_be_read() {
        let recipe = Recipe::read(&Document::of("compute.toml", RECIPE)).unwrap();
        assert!(recipe.packages().any(|p| p == "openssh-server"));
        assert_eq!(recipe.files[0].from, Path::new(DHCP_NETWORK_FILE));
        let range = "172.16.0.200-172.16.0.250".parse().unwrap();
        let site = site_toml("br0", "172.16.0.254/24".parse().unwrap(), Some(range));
        let config = Config::read(&Document::of("site.toml", site)).unwrap();
        assert_eq!(config.network.range(), Some(range));
        // What the comments show works too.
        let shown: String =
            NODES.lines().filter(|l| !l.contains(':') || l.contains('=')).collect::<Vec<_>>().join("\n");
        let entry = shown.split_once("[[node]]").unwrap().1.replace("\n# ", "\n");
        assert!(toml::from_str::<toml::Table>(&entry).is_ok(), "{entry}");
    }
}
