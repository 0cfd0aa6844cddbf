//! `rootstream power`, `console`, `bmc` and `boot`: their words, and which nodes they are for.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use rootstream::failure::refuse;

use super::access::Access;
use super::bmc::Order;
use super::boot::{self, Plan};
use super::conlog::ConsoleLog;
use super::console::{self, Manner};
use super::info::Told;
use super::outcome::for_each;
use super::stagger::{BETWEEN, Turns, last_of};
use super::switch::{Limits, switch};
use crate::config::nodes::Nodes;
use crate::config::site::Site;
use crate::node::names::Names;
use crate::say;

/// Nodes, and how many BMCs are spoken to at once.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The nodes: `n1`, `n[001-064]`, `@rack1`, several with commas between; `@all` is all.
    #[arg(value_name = "NODES")]
    nodes: Names,
    /// At most this many BMCs at once.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    at_once: u16,
    /// Seconds that a node's power may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// One JSON list at the end.
    #[arg(long)]
    json: bool,
}

impl Which {
    fn limits(&self) -> Limits {
        Limits::within(Duration::from_secs(self.timeout))
    }
}

/// What changes the power of nodes.
#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    which: Which,
    /// Say what would be done, and speak to no BMC.
    #[arg(long)]
    dry_run: bool,
}

/// What changes it and makes nodes draw power.
#[derive(Debug, Args)]
pub(crate) struct Rise {
    #[command(flatten)]
    change: Change,
    /// Milliseconds between two power-ons.
    #[arg(long, value_name = "MS", default_value_t = millis(BETWEEN))]
    stagger: u64,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is done with nodes' power.
#[derive(Debug, Subcommand)]
pub(crate) enum PowerCommand {
    /// Switch nodes on, one after the other.
    #[command(after_help = "\
A node that is on stays as it is. Between two power-ons lies half a second (--stagger 500): a thousand nodes are on after
eight minutes, and no breaker sees more than two of them start in a second.

Examples:
  rootstream power on n1
  rootstream power on 'n[001-064]' --stagger 1000
  rootstream power on @rack1 --dry-run")]
    On(Rise),
    /// Cut the power.
    #[command(after_help = "\
Examples:
  rootstream power off n1
  rootstream power off @rack1 --soft      ask their systems to shut down, and wait until they did")]
    Off {
        #[command(flatten)]
        change: Change,
        /// Ask the system to shut down (ACPI) instead.
        #[arg(long)]
        soft: bool,
    },
    /// Off, and on again; nodes that are off go on.
    Cycle(Rise),
    /// Restart nodes without taking their power away.
    Reset(Change),
    /// Whether nodes have power.
    Status(Which),
}

/// What BMCs are asked.
#[derive(Debug, Subcommand)]
pub(crate) enum BmcCommand {
    /// What BMCs tell about themselves and their nodes: who made them, sensors, MACs.
    #[command(
        after_help = "Examples:\n  rootstream bmc info n1\n  rootstream bmc info @rack1 --json | jq -r '.[].ports[].mac'"
    )]
    Info(Which),
}

/// `rootstream console`
#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// The node.
    node: Names,
    /// Type nothing, only show; Ctrl-C ends it.
    #[arg(long)]
    log: bool,
    /// End the session of whoever has this console.
    #[arg(long)]
    take: bool,
}

/// `rootstream boot`
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// The nodes: `n1`, `n[001-064]`, `@rack1`, several with commas between; `@all` is all.
    #[arg(value_name = "NODES")]
    nodes: Names,
    /// At most this many nodes boot at the same time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    wave: u16,
    /// Seconds from a node's power-on to its login prompt.
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    /// Milliseconds between two power-ons.
    #[arg(long, value_name = "MS", default_value_t = millis(BETWEEN))]
    stagger: u64,
    /// Ask the firmware for a network boot as UEFI; IPMI needs to be told, Redfish leaves it as it is.
    #[arg(long)]
    efi: bool,
    /// Say what would be done, and speak to no BMC.
    #[arg(long)]
    dry_run: bool,
    /// One JSON list at the end.
    #[arg(long)]
    json: bool,
}

impl PowerCommand {
    /// Does it.
    ///
    /// # Errors
    /// A node is not known or has no BMC, in which case nothing is done; or some of them failed.
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        let none = Duration::ZERO;
        let (which, order, stagger, dry_run) = match self {
            Self::On(rise) => (&rise.change.which, Some(Order::On), rise.between(), rise.change.dry_run),
            Self::Cycle(rise) => (&rise.change.which, Some(Order::Cycle), rise.between(), rise.change.dry_run),
            Self::Off { change, soft } => {
                (&change.which, Some(if *soft { Order::Soft } else { Order::Off }), none, change.dry_run)
            }
            Self::Reset(change) => (&change.which, Some(Order::Reset), none, change.dry_run),
            Self::Status(which) => (which, None, none, false),
        };
        let nodes = chosen(site, &which.nodes)?;
        if dry_run {
            rehearse(&nodes, &format!("would be told: {}", order.map_or("nothing", Order::word)), stagger);
            return Ok(());
        }
        let turns = Turns::new(stagger);
        for_each(&nodes, which.at_once.into(), which.json, |access| switch(access, order, &turns, which.limits()))
    }
}

impl Rise {
    fn between(&self) -> Duration {
        Duration::from_millis(self.stagger)
    }
}

impl BmcCommand {
    /// Does it.
    ///
    /// # Errors
    /// A node is not known or has no BMC; or some of them failed.
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        let Self::Info(which) = self;
        let nodes = chosen(site, &which.nodes)?;
        for_each(&nodes, which.at_once.into(), which.json, |access| {
            let bmc = access.connect(which.limits().exchange)?;
            Ok(Told::new(access, bmc.state()?, bmc.info()?))
        })
    }
}

impl ConsoleArgs {
    /// Does it.
    ///
    /// # Errors
    /// There is no such node, or its console does not open.
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        let nodes = chosen(site, &self.node)?;
        let [access] = nodes.as_slice() else {
            return Err(refuse(
                format!("{} nodes are more than one console", nodes.len()),
                "name one node; several boots at once are followed by `rootstream boot`, each into log/console/NODE.log",
            ));
        };
        let log = ConsoleLog::open(site, &access.node, "rootstream console")?;
        console::console(access, log, Manner { screen_only: self.log, take: self.take })
    }
}

impl BootArgs {
    /// Does it.
    ///
    /// # Errors
    /// A node is not known or has no BMC, in which case nothing is done; or some of them did not boot.
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        let nodes = chosen(site, &self.nodes)?;
        let between = Duration::from_millis(self.stagger);
        if self.dry_run {
            rehearse(&nodes, "would boot from the network, off and on where it is on", between);
            return Ok(());
        }
        let turns = Turns::new(between);
        let patience = Duration::from_secs(self.timeout);
        let plan = Plan { efi: self.efi, patience, limits: Limits::within(Duration::from_secs(60).min(patience)) };
        for_each(&nodes, self.wave.into(), self.json, |access| {
            boot::boot(access, ConsoleLog::open(site, &access.node, "rootstream boot")?, &turns, plan)
        })
    }
}

/// The BMCs of the nodes that are named. Before the first is spoken to, all of them are known.
fn chosen(site: &Site, names: &Names) -> Result<Vec<Access>> {
    let nodes = Nodes::of(site)?;
    names.select(&nodes)?.into_iter().map(Access::of).collect()
}

fn rehearse(nodes: &[Access], what: &str, between: Duration) {
    for (number, access) in nodes.iter().enumerate() {
        let after = last_of(number + 1, between);
        let when = if between.is_zero() { String::new() } else { format!(", after {:.1} s", after.as_secs_f64()) };
        say::result(format_args!("{}: {what}, through {} as {}{when}", access.node, access.place(), access.user));
    }
}
