//! The command line: which words make which call, and what the exit code says.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use rootstream::failure::{Failure, Remedy};

use crate::bootstrap::{self, bootstrap};
use crate::config::Misconfigured;
use crate::config::addresses::{AddressRange, Cidr, Mac, Name};
use crate::config::facts::Named;
use crate::config::nodes::{Node, Nodes};
use crate::config::site::{OVERLAYS, Site};
use crate::image::build::{self, build};
use crate::image::list;
use crate::image::publish::{self, Format, publish};
use crate::progress::megabytes;
use crate::{aside, keys, logger, overlay, say, starter, up};

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
    Site(SiteCommand),
    /// The machines that boot from here.
    #[command(subcommand)]
    Node(NodeCommand),
    /// What the nodes run.
    #[command(subcommand)]
    Image(ImageCommand),
    /// The keys that nodes trust.
    #[command(subcommand)]
    Key(KeyCommand),
    /// What goes on top of an image, the same for all nodes or made for each.
    #[command(subcommand)]
    Overlay(OverlayCommand),
    /// Make kernel and initramfs for an image, in tftp/NAME/.
    #[command(after_help = "\
Examples:
  rootstream bootstrap compute
  rootstream bootstrap compute --shell /bin/busybox    with a shell, for rootstream.onfail=shell")]
    Bootstrap(BootstrapArgs),
    /// Serve DHCP, TFTP and HTTP in the foreground, until SIGTERM or Ctrl-C.
    #[command(after_help = "\
Prints one line that starts with `up: ready` on stdout when all three answer.
Requests are logged in log/http.log and on stderr, DHCP and TFTP in log/dnsmasq.log.
SIGHUP reads nodes.toml and the newest builds again.

Examples:
  rootstream --site /srv/cluster up
  rootstream up --port 8080")]
    Up {
        /// The port for HTTP; the default is in site.toml.
        #[arg(long)]
        port: Option<u16>,
    },
}

#[derive(Debug, Subcommand)]
enum SiteCommand {
    /// Make a folder with site.toml, nodes.toml and an example image.
    #[command(after_help = "\
Example:
  rootstream site new /srv/cluster --interface br0 --address 172.16.0.254/24 --range 172.16.0.200-172.16.0.250")]
    New {
        /// The folder; new or empty.
        dir: PathBuf,
        /// The master's port on the nodes' network.
        #[arg(long)]
        interface: String,
        /// The master's address on it, with the prefix length.
        #[arg(long)]
        address: Cidr,
        /// Addresses for machines that are no known node.
        #[arg(long)]
        range: Option<AddressRange>,
    },
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
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

/// A name that an image can have: the store keeps overlays in the folder that such an image would have.
fn image_name(text: &str) -> Result<Name, String> {
    match text.parse() {
        Ok(_) if text == OVERLAYS => {
            Err(format!("`{OVERLAYS}` is where the store has its overlays; name it otherwise"))
        }
        name => name,
    }
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build an image from images/NAME.toml; does nothing when neither recipe nor files changed.
    #[command(after_help = "Examples:\n  rootstream image build compute\n  rootstream image build compute --force")]
    Build {
        /// The image.
        #[arg(value_parser = image_name)]
        name: Name,
        /// Build though nothing changed, for newer packages.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Publish what was built last, as the newest build.
    #[command(after_help = "\
The newest build is named in store/NAME/latest.json; older builds stay. A running `rootstream up` writes it
into the boot menus when it gets SIGHUP or starts again.

Examples:
  rootstream image publish compute
  rootstream image publish compute --format tar.gz")]
    Publish {
        /// The image.
        #[arg(value_parser = image_name)]
        name: Name,
        /// How it is packed.
        #[arg(long, default_value = "tar.zst")]
        format: Format,
        /// How hard it is compressed: 1 to 22 for tar.zst (9 when absent), 1 to 12 for tar.gz (6).
        #[arg(long)]
        level: Option<i32>,
        /// The secret key that signs, keys/NAME.key, where the site has several.
        #[arg(long, value_name = "NAME")]
        key: Option<Name>,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// List the images.
    #[command(after_help = "Examples:\n  rootstream image list\n  rootstream image list --json")]
    List {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a pair of keys: keys/NAME.key signs what is published, keys/NAME.pub is put into the initramfs.
    #[command(after_help = "\
The secret key has no password, so that publishing needs nobody at the keyboard; only its owner can read it
(0600). Whoever has it can sign images for your nodes: keep a copy where nobody else gets at it. Both are files
of minisign(1), which can sign and verify too.

With a key:
  rootstream key new
  rootstream bootstrap compute          nodes that boot this initramfs take signed images only
  rootstream image publish compute      signs

To replace a key, so that every node can boot at any moment:
  rootstream key new --name next
  rootstream bootstrap compute          trusts both; for each image
  mv keys/site.key /somewhere/safe      from now on next.key signs
  rootstream image publish compute      again, for each image
  rm keys/site.pub                      when nothing boots the older initramfs and builds
  rootstream bootstrap compute          trusts the new one only")]
    New {
        /// Its name.
        #[arg(long, default_value = "site")]
        name: Name,
    },
}

const OVERLAY_RULES: &str = "\
An overlay is the folder overlays/NAME/ with files at the paths that they have on the node. They belong to root and keep
their permissions; folders keep those that they have in the image. In a file whose name ends in .in (the suffix comes
off), @hostname@, @mac@, @ip@, @prefix@, @gateway@, @domain@, @master@ and what [facts] in site.toml and [node.facts] in
nodes.toml name are filled in, and each node gets an archive of its own.
`overlays = [\"NAME\"]` under [defaults] of site.toml, or at a node in nodes.toml, puts it on top of the image there.
";

#[derive(Debug, Subcommand)]
enum OverlayCommand {
    /// Make an overlay's archives without publishing them, in built/overlays/NAME/.
    #[command(after_help = format!("{OVERLAY_RULES}
Examples:
  rootstream overlay build node && tar -tvf built/overlays/node/n1.tar"))]
    Build {
        /// The overlay.
        name: Name,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Publish an overlay out of its folder as it is now.
    #[command(after_help = format!("{OVERLAY_RULES}
A running `rootstream up` writes it into the boot menus when it gets SIGHUP or starts again. Publish it again when a fact
that it uses has changed; until then the nodes concerned are not booted with the old one.

Examples:
  rootstream overlay publish common
  rootstream overlay publish common --format tar.gz"))]
    Publish {
        /// The overlay.
        name: Name,
        /// How it is packed.
        #[arg(long, default_value = "tar.zst")]
        format: overlay::Format,
        #[command(flatten)]
        secrets: Secrets,
    },
}

#[derive(Debug, Args)]
struct Secrets {
    /// Accept keys, passwords and identities in it, which all of the boot network can read.
    #[arg(long)]
    allow_secrets: bool,
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
        Command::Site(SiteCommand::New { dir, interface, address, range }) => {
            starter::create(dir, interface, *address, *range)?;
            say::note(format_args!("{}: made; look into site.toml and images/compute.toml", dir.display()));
            Ok(())
        }
        Command::Node(NodeCommand::Add { name, mac, ip, image, parameters }) => {
            let node = Node {
                name: name.clone(),
                mac: *mac,
                ip: *ip,
                image: image.clone(),
                overlays: None,
                parameters: parameters.clone(),
                facts: Named::new(),
            };
            let site = site()?;
            // Read and written by one at a time: two additions at once must both be there after.
            let _claim = aside::claim(site.root())?;
            Nodes::of(&site)?.add(&node, &site.config().network)
        }
        Command::Node(NodeCommand::List { json }) => list_nodes(&site()?, *json),
        Command::Image(ImageCommand::Build { name, force, secrets }) => {
            let options = build::Options { force: *force, allow_secrets: secrets.allow_secrets };
            build(&site()?, name, options).map(drop)
        }
        Command::Image(ImageCommand::Publish { name, format, level, key, secrets }) => {
            let site = site()?;
            let allow_secrets = secrets.allow_secrets;
            let options = publish::Options { format: *format, level: *level, allow_secrets, key: key.clone() };
            let manifest = publish(&site, name, &options)?;
            say::result(format_args!("store/{name}/{}", manifest.file));
            let (address, port) = (site.config().network.address.address, site.config().http.port);
            let port = if port == 80 { String::new() } else { format!(":{port}") };
            say::note(format_args!(
                "`rootstream up` serves it as http://{address}{port}/images/{name}/{}.json",
                manifest.build
            ));
            Ok(())
        }
        Command::Image(ImageCommand::List { json }) => list_images(&site()?, *json),
        Command::Key(KeyCommand::New { name }) => new_key(&site()?, name),
        Command::Overlay(OverlayCommand::Build { name, secrets }) => {
            let paths = overlay::build(&site()?, name, secrets.allow_secrets)?;
            paths.iter().for_each(say::result);
            Ok(())
        }
        Command::Overlay(OverlayCommand::Publish { name, format, secrets }) => {
            let index = overlay::publish(&site()?, name, *format, secrets.allow_secrets)?;
            let whom = match (&index.shared, index.nodes.len()) {
                (Some(_), _) => "one archive for all".to_owned(),
                (None, nodes) => format!("an archive for each of {nodes} nodes"),
            };
            let bytes: u64 = index.archives().map(|archive| archive.size).sum();
            index.archives().for_each(|archive| say::result(format_args!("store/overlays/{name}/{}", archive.file)));
            say::note(format_args!("overlay {name}: {whom}, {}", megabytes(bytes)));
            Ok(())
        }
        Command::Bootstrap(args) => make_bootstrap(&site()?, args),
        Command::Up { port } => up::up(&site()?, *port),
    }
}

fn new_key(site: &Site, name: &Name) -> Result<()> {
    let pair = keys::new(site, name)?;
    for path in [&pair.secret, &pair.public] {
        say::result(path.strip_prefix(site.root()).unwrap_or(path).display());
    }
    say::note(format_args!(
        "keep keys/{name}.key to yourself: it has no password; now `rootstream bootstrap` and `rootstream image publish`"
    ));
    if !pair.others.is_empty() {
        say::note(format_args!(
            "the site has other secret keys ({}): until they are moved away, image publish needs --key NAME",
            pair.others.join(", ")
        ));
    }
    Ok(())
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

fn list_nodes(site: &Site, json: bool) -> Result<()> {
    let nodes = Nodes::of(site)?;
    if json {
        return print_json(&nodes.iter().collect::<Vec<_>>());
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

fn list_images(site: &Site, json: bool) -> Result<()> {
    let images = list::images(site)?;
    if json {
        return print_json(&images);
    }
    let width = images.iter().map(|i| i.name.as_str().len()).max().unwrap_or(0).max(4);
    say::result(format_args!(
        "{:width$}  {:6}  {:5}  {:24}  {:>9}  KERNELS",
        "NAME", "RECIPE", "BUILT", "PUBLISHED", "SIZE"
    ));
    let yes = |is| if is { "yes" } else { "no" };
    for image in images {
        let (build, size, kernels) = match &image.latest {
            Some(m) => (m.build.as_str(), megabytes(m.size), m.kernels.join(" ")),
            None => ("no", String::new(), String::new()),
        };
        let (name, recipe, built) = (image.name.as_str(), yes(image.recipe), yes(image.built));
        say::result(format_args!("{name:width$}  {recipe:6}  {built:5}  {build:24}  {size:>9}  {kernels}"));
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    say::result(serde_json::to_string_pretty(value).context("writing JSON")?);
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
