//! `rootstream site`: its words, and what it says when it is done.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use super::questions::Given;
use super::starter;
use crate::config::addresses::{AddressRange, Cidr, Domain};
use crate::say;

/// What is done with sites.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a folder with site.toml, nodes.toml and an example image.
    #[command(after_help = "\
On a terminal it asks for what is not said, and proposes what this machine has. With --interface and --address it asks
nothing.

Examples:
  rootstream site new /srv/cluster
  rootstream site new /srv/cluster --interface br0 --address 172.16.0.254/24 --range 172.16.0.200-172.16.0.250")]
    New {
        /// The folder; new or empty.
        dir: PathBuf,
        /// The master's port on the nodes' network.
        #[arg(long)]
        interface: Option<String>,
        /// The master's address on it, with the prefix length.
        #[arg(long)]
        address: Option<Cidr>,
        /// Addresses for machines that are no known node.
        #[arg(long)]
        range: Option<AddressRange>,
        /// The domain of the nodes' names; the master then answers DNS for them.
        #[arg(long)]
        domain: Option<Domain>,
    },
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// The folder cannot be made, or what was given does not fit together.
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::New { dir, interface, address, range, domain } => {
                // Before somebody answers questions.
                starter::refuse_full(dir)?;
                let (interface, domain) = (interface.clone(), domain.clone());
                let given = Given { interface, address: *address, range: *range, domain };
                starter::create(dir, &given.complete()?)?;
                say::note(format_args!("{}: made; look into site.toml and images/compute.toml", dir.display()));
                Ok(())
            }
        }
    }
}
