//! `rootstream node`: its words, and what it says when it is done.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::change::{self, Add};
use super::names::Names;
use super::{discover, export, list};
use crate::config::addresses::Mac;
use crate::config::nodes::Setting;
use crate::config::site::Site;

/// What is done with nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add nodes to nodes.toml; what is there stays as it is.
    #[command(after_help = "\
Addresses count up from node to node. A node without a MAC is known by name, and boots once it has one
(`rootstream node set`, `rootstream node discover`).

Examples:
  rootstream node add n1 --mac 52:54:00:ac:10:01 --ip 172.16.0.1
  rootstream node add n2 --mac 52:54:00:ac:10:02 --ip 172.16.0.2 image=gpu 'parameters=rootstream.log=debug'
  rootstream node add 'n[001-064]' --ip 172.16.1.1 --bmc-ip 172.16.2.1 --macs rack1.txt groups=rack1

FILE of --macs has a line for each node: its MAC and, if wished, its BMC's, in the order of the nodes; or the
node's name and then the MACs.

A running `rootstream up` knows them within seconds.")]
    Add(AddArgs),
    /// Change what nodes.toml says of nodes; comments and order stay.
    #[command(after_help = "\
Keys: name, mac, ip, groups, image, build, overlays, parameters, boot, bmc.mac, bmc.ip, bmc.protocol, bmc.user,
bmc.password_file, bmc.port, bmc.cipher, bmc.ca, bmc.insecure, facts.NAME. Lists have commas. KEY= removes what the
node itself says, so that its groups' or the site's value counts again. ip and bmc.ip count up from node to node.

Examples:
  rootstream node set n1 mac=52:54:00:ac:10:09
  rootstream node set 'n[001-032]' image=gpu boot=ipxe groups=rack1,gpus
  rootstream node set @rack1 'parameters=console=ttyS1,115200' image=
  rootstream node set 'n[001-064]' bmc.ip=172.16.2.1 bmc.protocol=redfish --dry-run")]
    Set {
        /// The nodes: n1, n[001-064], @GROUP, several with commas between; @all is every node.
        nodes: Names,
        /// KEY=VALUE, or KEY= for none.
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<Setting>,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take nodes out of nodes.toml.
    #[command(after_help = "Examples:\n  rootstream node rm n1\n  rootstream node rm 'n[001-064]' --dry-run")]
    Rm {
        /// The nodes: n1, n[001-064], @GROUP, several with commas between; @all is every node.
        nodes: Names,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// List nodes, with what their groups and the site say.
    #[command(after_help = "\
Examples:
  rootstream node list
  rootstream node list @rack1
  rootstream node list --json | jq -r '.[].name'")]
    List {
        /// Only these: n1, n[001-064], @GROUP.
        nodes: Option<Names>,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// List machines that asked for an address and are no known node, and make nodes of them.
    #[command(after_help = "\
It reads what dnsmasq logged (log/dnsmasq.log), so `rootstream up` must run, or have run, while they were switched on.
With --add, the machine that first asked to boot gets the first name, and so on: switch them on one after the other.
A node that there is already without a MAC gets it; others are added, from the address --ip on.

Examples:
  rootstream node discover
  rootstream node discover --watch
  rootstream node discover --add 'n[001-004]' --ip 172.16.1.1 --watch --new
  rootstream node discover --add 'n[001-004]' --bmc        the MACs of their BMCs")]
    Discover(discover::Args),
    /// Write the nodes in the form of other programs, on stdout.
    #[command(after_help = "\
Examples:
  rootstream node export hosts >> /etc/hosts
  rootstream node export genders > /etc/genders
  rootstream node export clustershell > /etc/clustershell/groups.d/local.cfg
  rootstream node export ssh-known-hosts > /etc/ssh/ssh_known_hosts

ssh-known-hosts takes the nodes' public host keys from keys/hosts/NODE.pub, and that of an authority that signs
them from keys/hosts/@cert-authority.pub.")]
    Export {
        /// The form.
        form: export::Form,
        /// Only these: n1, n[001-064], @GROUP.
        nodes: Option<Names>,
    },
}

/// `node add`
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Their names, and host names: n1, n[001-064], several with commas between.
    nodes: Names,
    /// The MAC of the port that it boots from; of one node.
    #[arg(long, conflicts_with = "macs")]
    mac: Option<Mac>,
    /// A file with the MACs.
    #[arg(long, value_name = "FILE")]
    macs: Option<PathBuf>,
    /// The address of the first; the others follow.
    #[arg(long)]
    ip: Ipv4Addr,
    /// The BMC's MAC; of one node.
    #[arg(long, requires = "bmc_ip", conflicts_with = "macs")]
    bmc_mac: Option<Mac>,
    /// The address of the first one's BMC; the others follow.
    #[arg(long)]
    bmc_ip: Option<Ipv4Addr>,
    /// The image they boot; the default is in site.toml.
    #[arg(long)]
    image: Option<String>,
    /// Kernel parameters, after those of site.toml and of their groups.
    #[arg(long, allow_hyphen_values = true)]
    parameters: Option<String>,
    /// What else to say of them; the keys are those of `rootstream node set`.
    #[arg(value_name = "KEY=VALUE")]
    settings: Vec<Setting>,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
}

impl AddArgs {
    fn run(&self, site: &Site) -> Result<()> {
        let named = [("image", &self.image), ("parameters", &self.parameters)];
        let mut settings = Vec::new();
        for (key, text) in named {
            if let Some(text) = text {
                settings.push(Setting::new(key, text).map_err(anyhow::Error::msg)?);
            }
        }
        settings.extend(self.settings.iter().cloned());
        change::add(
            site,
            &Add {
                names: self.nodes.fresh()?,
                mac: self.mac,
                macs: self.macs.as_deref(),
                ip: self.ip,
                bmc_mac: self.bmc_mac,
                bmc_ip: self.bmc_ip,
                settings: &settings,
            },
            self.dry_run,
        )
    }
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// A mistake in the configuration, which stays as it is; a node that there is not.
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        match self {
            Self::Add(args) => args.run(site),
            Self::Set { nodes, settings, dry_run } => change::set(site, nodes, settings, *dry_run),
            Self::Rm { nodes, dry_run } => change::remove(site, nodes, *dry_run),
            Self::List { nodes, json } => list::list(site, nodes.as_ref(), *json),
            Self::Discover(args) => discover::run(site, args),
            Self::Export { form, nodes } => export::export(site, *form, nodes.as_ref()),
        }
    }
}
