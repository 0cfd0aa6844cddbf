//! `rootstream node`: its words, and what it says when it is done.

use std::net::Ipv4Addr;

use anyhow::Result;
use clap::Subcommand;

use crate::config::addresses::{Mac, Name};
use crate::config::facts::Named;
use crate::config::nodes::{Node, Nodes};
use crate::config::site::Site;
use crate::image::image_name;
use crate::{aside, say};

/// What is done with nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a node to nodes.toml; what is there stays as it is.
    #[command(after_help = "\
Examples:
  rootstream node add n1 --mac 52:54:00:ac:10:01 --ip 172.16.0.1
  rootstream node add n2 --mac 52:54:00:ac:10:02 --ip 172.16.0.2 --image gpu --parameters 'rootstream.log=debug'

A running `rootstream up` knows it after SIGHUP or its next start.")]
    Add {
        /// Its name, and host name.
        name: Name,
        /// The MAC of the port that it boots from.
        #[arg(long)]
        mac: Mac,
        /// Its address.
        #[arg(long)]
        ip: Ipv4Addr,
        /// The image it boots; the default is in site.toml.
        #[arg(long, value_parser = image_name)]
        image: Option<Name>,
        /// Kernel parameters, after those of site.toml.
        #[arg(long, allow_hyphen_values = true)]
        parameters: Option<String>,
    },
    /// List the nodes.
    #[command(after_help = "Examples:\n  rootstream node list\n  rootstream node list --json | jq -r '.[].name'")]
    List {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// A mistake in the configuration, which stays as it is.
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        match self {
            Self::Add { name, mac, ip, image, parameters } => {
                let node = Node {
                    name: name.clone(),
                    mac: *mac,
                    ip: *ip,
                    image: image.clone(),
                    overlays: None,
                    parameters: parameters.clone(),
                    facts: Named::new(),
                };
                // Read and written by one at a time: two additions at once must both be there after.
                let _claim = aside::claim(site.root())?;
                Nodes::of(site)?.add(&node, &site.config().network)
            }
            Self::List { json } => list(site, *json),
        }
    }
}

fn list(site: &Site, json: bool) -> Result<()> {
    let nodes = Nodes::of(site)?;
    if json {
        return say::json(&nodes.iter().collect::<Vec<_>>());
    }
    let default = site.config().defaults.image.as_ref().map_or("-", Name::as_str);
    let width = nodes.iter().map(|n| n.name.as_str().len()).max().unwrap_or(0).max(4);
    say::result(format_args!("{:width$}  {:17}  {:15}  IMAGE", "NAME", "MAC", "ADDRESS"));
    for node in nodes.iter() {
        let image = node.image.as_ref().map_or(default, Name::as_str);
        say::result(format_args!("{:width$}  {}  {:15}  {image}", node.name.as_str(), node.mac, node.ip.to_string()));
    }
    Ok(())
}
