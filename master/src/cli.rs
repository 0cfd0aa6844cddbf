//! The command line: which words make which call, and what the exit code says.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use rootstream::failure::{Failure, Remedy};

use crate::bootstrap::{self, bootstrap};
use crate::config::Misconfigured;
use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::image::image_name;
use crate::{export, image, keys, logger, node, overlay, power, say, site, up};

/// Boot stateless cluster nodes: images, kernel and initramfs, DHCP, TFTP and HTTP on one master.
#[derive(Debug, Parser)]
#[command(
    name = "rootstream",
    version,
    arg_required_else_help = true,
    after_help = "\
From nothing to a booting node:
  rootstream site new /srv/cluster --interface br0 --address 172.16.0.254/24
  cd /srv/cluster
  rootstream node add n1 --mac 52:54:00:ac:10:01 --ip 172.16.0.1
  rootstream image build compute && rootstream image publish compute
  rootstream bootstrap compute
  rootstream up

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
struct Cli {
    /// The site's folder.
    #[arg(long, env = "ROOTSTREAM_SITE", default_value = ".", global = true)]
    site: PathBuf,
    /// Say more on stderr.
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a site.
    #[command(subcommand)]
    Site(site::Command),
    /// The machines that boot from here.
    #[command(subcommand)]
    Node(node::Command),
    /// What the nodes run.
    #[command(subcommand)]
    Image(image::Command),
    /// What goes on top of an image, the same for all nodes or made for each.
    #[command(subcommand)]
    Overlay(overlay::Command),
    /// Switch nodes on and off through their BMCs.
    #[command(subcommand)]
    Power(power::PowerCommand),
    /// A node's serial port, through its BMC.
    #[command(after_help = "\
What the console says is kept in log/console/NODE.log. Serial over LAN is IPMI's, for BMCs with Redfish too.

Examples:
  rootstream console n1
  rootstream console n1 --log      only its screen")]
    Console(power::ConsoleArgs),
    /// What BMCs know.
    #[command(subcommand)]
    Bmc(power::BmcCommand),
    /// Boot nodes from the network and follow them to their login prompts.
    #[command(after_help = "\
Each node is switched off where it is on, told to boot from the network once, switched on, and its console followed
until it shows a login prompt or says why not. What it said is in log/console/NODE.log.

Examples:
  rootstream boot n1
  rootstream boot @rack1 --wave 32 --timeout 600")]
    Boot(power::BootArgs),
    /// The keys that nodes trust.
    #[command(subcommand)]
    Key(keys::Command),
    /// Make kernel and initramfs for an image, in tftp/NAME/.
    #[command(after_help = "\
Examples:
  rootstream bootstrap compute
  rootstream bootstrap compute --shell /bin/busybox    with a shell, for rootstream.onfail=shell")]
    Bootstrap(BootstrapArgs),
    /// Print this site as configuration of servers that run already, or write it where they read it.
    #[command(after_help = "\
The head of each file, and stderr, say where it goes and how it is installed and checked. No server's own file is
replaced without --force. Write it again after each change of nodes; menus also after each publish and bootstrap.

Examples:
  rootstream config isc-dhcp
  rootstream config nginx --output /etc/nginx/conf.d && nginx -t
  rootstream config pxelinux --output /srv/tftp")]
    Config(export::Command),
    /// Serve DHCP, TFTP and HTTP in the foreground, until SIGTERM or Ctrl-C.
    #[command(after_help = "\
Prints one line that starts with `up: ready` on stdout when all three answer.
Requests are logged in log/http.log and on stderr, DHCP and TFTP in log/dnsmasq.log.
It notices by itself what changes in site.toml, nodes.toml and keys/, and newer builds; SIGHUP makes it look at once.

Examples:
  rootstream --site /srv/cluster up
  rootstream up --port 8080")]
    Up {
        /// The port for HTTP; the default is in site.toml.
        #[arg(long)]
        port: Option<u16>,
    },
}

#[derive(Debug, Args)]
struct BootstrapArgs {
    /// The image; it must be built.
    #[arg(value_parser = image_name)]
    name: Name,
    /// The agent; the one that was built with this program by default.
    #[arg(long, value_name = "PATH")]
    init: Option<PathBuf>,
    /// The modules to load, instead of the list that comes with rootstream.
    #[arg(long, value_name = "FILE")]
    modules: Option<PathBuf>,
    /// A static shell to put in as /bin/sh.
    #[arg(long, value_name = "PATH")]
    shell: Option<PathBuf>,
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    // Wrong usage ends the process here, with exit code 2.
    let cli = Cli::parse();
    logger::start(cli.verbose);
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::note(format_args!("rootstream: {}", explained(&error)));
            ExitCode::from(if error.downcast_ref::<Misconfigured>().is_some() { 2 } else { 1 })
        }
    }
}

fn explained(error: &anyhow::Error) -> String {
    if error.downcast_ref::<Remedy>().is_none() {
        return format!("{error:#}");
    }
    let Failure { what, why, todo } = Failure::from_error(error);
    if why == what { format!("{what}\n  what to do: {todo}") } else { Failure { what, why, todo }.to_string() }
}

fn run(cli: &Cli) -> Result<()> {
    let site = || Site::open(&cli.site);
    match &cli.command {
        Command::Site(command) => command.run(),
        Command::Node(command) => command.run(&site()?),
        Command::Image(command) => command.run(&site()?),
        Command::Overlay(command) => command.run(&site()?),
        Command::Power(command) => command.run(&site()?),
        Command::Console(args) => args.run(&site()?),
        Command::Bmc(command) => command.run(&site()?),
        Command::Boot(args) => args.run(&site()?),
        Command::Key(command) => command.run(&site()?),
        Command::Bootstrap(args) => make_bootstrap(&site()?, args),
        Command::Config(command) => command.run(&site()?),
        Command::Up { port } => up::up(&site()?, *port),
    }
}

fn make_bootstrap(site: &Site, args: &BootstrapArgs) -> Result<()> {
    let options =
        bootstrap::Options { init: args.init.clone(), modules: args.modules.clone(), shell: args.shell.clone() };
    let made = bootstrap(site, &args.name, &options)?;
    let folder = Path::new("tftp").join(args.name.as_str());
    say::result(folder.join(made.kernel).display());
    say::result(folder.join(made.initramfs).display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
