//! A new site: its folders, and files that explain themselves.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};

use crate::aside;
use crate::config::Document;
use crate::config::addresses::{AddressRange, Cidr, Domain};
use crate::config::site::Config;

const NODES: &str = "\
# The nodes of this site, one entry each. `rootstream node add`, `set` and `rm` write them too:
#   rootstream node add n1 --mac 52:54:00:ac:10:01 --ip 172.16.0.1
#   rootstream node add 'n[001-064]' --ip 172.16.1.1 --bmc-ip 172.16.2.1
#
# [[node]]
# name = \"n1\"                       # also its host name
# mac = \"52:54:00:ac:10:01\"         # of the port that it boots from; without it, it cannot boot yet
# ip = \"172.16.0.1\"                 # in the network of site.toml
# groups = [\"rack1\"]                # optional; the later ones go before the earlier ones
# image = \"compute\"                 # optional, instead of what its groups and site.toml say
# overlays = [\"common\"]            # optional, instead of theirs: `rootstream overlay publish --help`
# parameters = \"rootstream.log=debug\"  # optional; after theirs
# boot = \"ipxe\"                     # optional, instead of theirs: pxelinux, ipxe, grub, syslinux, http
# [node.facts]                      # optional: what @rack@ in templates of overlays stands for
# rack = \"r1\"
# [node.bmc]                        # optional: its BMC, known as n1-bmc
# mac = \"52:54:00:ac:20:01\"         # with it, the BMC gets its address from the same DHCP
# ip = \"172.16.0.101\"
# # protocol, user, password_file, port, cipher: instead of those in site.toml
#
# [group.rack1]                     # what several nodes have in common; also possible in site.toml
# parameters = \"console=ttyS1,115200\"
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

/// What a site is made of.
#[derive(Debug)]
pub(super) struct Answers {
    /// The master's port on the nodes' network.
    pub(super) interface: String,
    /// The master's address on it.
    pub(super) address: Cidr,
    /// Addresses for machines that are no known node.
    pub(super) range: Option<AddressRange>,
    /// The domain of the nodes' names.
    pub(super) domain: Option<Domain>,
}

/// Refuses a folder that holds something, or that is none.
///
/// # Errors
/// It does.
pub(super) fn refuse_full(root: &Path) -> Result<()> {
    let todo = "name a new folder; nothing was changed";
    match fs::read_dir(root).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(refuse(format!("{} is not empty", root.display()), todo)),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).advise(format!("looking into {}", root.display()), todo),
    }
}

/// Makes a site in the folder `root`, which must be empty or missing.
///
/// # Errors
/// The folder holds something, the range is outside the network, or the disk refuses.
pub(super) fn create(root: &Path, answers: &Answers) -> Result<()> {
    let site = site_toml(answers);
    Config::read(&Document::of("site.toml", &site)).context("making site.toml of these values")?;
    refuse_full(root)?;
    for folder in ["images/compute", "overlays", "store", "tftp", "keys/hosts", "tls"] {
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

fn site_toml(answers: &Answers) -> String {
    let Answers { interface, address, range, domain } = answers;
    let range = match range {
        Some(range) => format!("range = \"{range}\""),
        None => "# range = \"172.16.0.200-172.16.0.250\"".to_owned(),
    };
    // Names are looked up where the master itself is the name server.
    let (dns, domain) = match domain {
        Some(domain) => (format!("dns = [\"{}\"]", address.address), format!("domain = \"{domain}\"")),
        None => ("# dns = [\"172.16.0.254\"]".to_owned(), "# domain = \"cluster.example.org\"".to_owned()),
    };
    let interface = toml::Value::from(interface.as_str());
    format!(
        r#"# A rootstream site. `rootstream up` reads it when it starts.

[network]
interface = {interface}             # the master's port on the nodes' network
address = "{address}"   # the master's address on it
# For machines that nodes.toml does not name; without it they get no address.
{range}
# gateway = "172.16.0.254"        # the nodes' router
{dns}          # name servers; with the master's own address it serves the nodes' names
{domain}
# lease = "1h"
# ipv6_prefix = "fd00:ac10::/64"  # announced to boot ROMs that wait for a router; the interface needs an address in it

[http]
port = 80
# Nodes can fetch from https:// servers as well (rootstream.image=https://… in parameters below). They know them by
# tls/NAME.pem, the certificate of an authority or a server's own, which `rootstream bootstrap` packs.

[defaults]
# A node's groups go before these, in the order in which it names them, and what the node itself says before both;
# kernel parameters add up in that order.
image = "compute"
# boot = "ipxe"                   # or pxelinux, grub, syslinux, http; without it, what suits the node's firmware
# overlays = ["common"]           # what goes on top of it, in order: `rootstream overlay publish --help`
# The last console is the one that has the login prompt and the boot's messages. net.ifnames=0 keeps
# the kernel's names for ports (eth0): the port from which a node booted is in use when udev would
# rename it, the renaming fails, and systemd-networkd would wait for it and never renew the lease.
parameters = "console=tty0 console=ttyS0,115200 net.ifnames=0"

# [facts]                         # what @ntp@ in templates of overlays stands for, on every node
# ntp = "172.16.0.254"

# [bmc]                           # what the nodes' BMCs have in common
# protocol = "ipmi"               # or redfish
# user = "admin"
# password_file = "keys/bmc"      # only its owner may read it: chmod 600 keys/bmc
# port = 623                      # where it is not the protocol's own
# cipher = 17                     # IPMI's cipher suite; 3 for older BMCs

# [group.gpu]                     # nodes that say groups = ["gpu"]; here or in nodes.toml
# image = "gpu"
# boot = "grub"
# overlays = ["common", "gpu"]
# parameters = "pci=realloc"
# facts = {{ partition = "gpu" }}
# bmc = {{ protocol = "redfish" }}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::nodes::Nodes;
    use crate::config::recipe::Recipe;
    use crate::config::site::Site;

    #[test]
    fn what_it_writes_can_be_read() {
        let recipe = Recipe::read(&Document::of("compute.toml", RECIPE)).unwrap();
        assert!(recipe.packages().any(|p| p == "openssh-server"));
        assert_eq!(recipe.files[0].from, Path::new(DHCP_NETWORK_FILE));
        let range = "172.16.0.200-172.16.0.250".parse().unwrap();
        let mut answers = Answers {
            interface: "br0".to_owned(),
            address: "172.16.0.254/24".parse().unwrap(),
            range: Some(range),
            domain: Some("cluster.example.org".parse().unwrap()),
        };
        let config = Config::read(&Document::of("site.toml", site_toml(&answers))).unwrap();
        assert_eq!(config.network.range(), Some(range));
        assert_eq!(config.network.dns, [config.network.address.address]);
        answers.domain = None;
        let site = site_toml(&answers);
        assert!(Config::read(&Document::of("site.toml", &site)).unwrap().network.domain.is_none());
        // What the comments show works too.
        let folder = tempfile::tempdir().unwrap();
        let shown = |text: &str| {
            let begins =
                |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            let line = |line: &str| line.strip_prefix("# ").filter(|rest| begins(rest)).unwrap_or(line).to_owned();
            text.lines().map(line).collect::<Vec<_>>().join("\n")
        };
        fs::write(folder.path().join("site.toml"), shown(&site)).unwrap();
        fs::write(folder.path().join("nodes.toml"), shown(NODES)).unwrap();
        let site = Site::open(folder.path()).unwrap();
        assert_eq!(site.config().groups.iter().count(), 1);
        let nodes = Nodes::of(&site).unwrap();
        let node = nodes.get("n1").unwrap();
        assert_eq!(site.boot_path(Some(node)).map(|path| path.as_str()), Some("ipxe"));
        assert_eq!(node.parameters.as_deref(), Some("console=ttyS1,115200 rootstream.log=debug"));
        assert_eq!(node.bmc.as_ref().unwrap().password_file, Some(site.root().join("keys/bmc")));
    }
}
