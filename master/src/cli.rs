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
use crate::image::remove::{Newest, remove};
use crate::image::store::{self, Build};
use crate::image::verify::verify;
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
    /// What goes on top of an image, the same for all nodes or made for each.
    #[command(subcommand)]
    Overlay(overlay::Command),
    /// The keys that nodes trust.
    #[command(subcommand)]
    Key(KeyCommand),
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
  rootstream image publish compute --format tar.gz
  rootstream image publish compute --format squashfs --level 19")]
    Publish {
        /// The image.
        #[arg(value_parser = image_name)]
        name: Name,
        /// How it is packed.
        #[arg(long, default_value = "tar.zst")]
        format: Format,
        /// How hard it is compressed: 1 to 22 for tar.zst (12 when absent) and squashfs (9), 1 to 12 for tar.gz (6) and
        /// erofs (9).
        #[arg(long)]
        level: Option<i32>,
        /// The secret key that signs, keys/NAME.key, where the site has several.
        #[arg(long, value_name = "NAME")]
        key: Option<Name>,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// List the images, or the builds of one.
    #[command(after_help = "\
Examples:
  rootstream image list
  rootstream image list compute           its builds
  rootstream image list --json")]
    List {
        /// The image whose builds are listed.
        name: Option<Name>,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Show what a published build is.
    #[command(after_help = "\
Examples:
  rootstream image show compute
  rootstream image show compute --json | jq .kernels    its manifest, without the list of chunks")]
    Show {
        /// The image.
        name: Name,
        /// The build; the newest when absent.
        build: Option<String>,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Read all of a published build and compare it with its manifest and signature.
    #[command(after_help = "\
Checked are the signature (where the site has a key), the digest of every chunk and of the whole file, that each
chunk unpacks alone to what it should, that the archive is canonical, and every number in the manifest.

Examples:
  rootstream image verify compute
  rootstream image verify compute 20261122-191228-01f7ce9e")]
    Verify {
        /// The image.
        name: Name,
        /// The build; the newest when absent.
        build: Option<String>,
    },
    /// Remove a build from the store.
    #[command(after_help = "\
Refused for the newest build, and for one that a boot menu names, unless --force is given.

Example:
  rootstream image rm compute 20261122-191228-01f7ce9e")]
    Rm {
        /// The image.
        name: Name,
        /// The build.
        build: String,
        /// Remove it though nodes may boot it.
        #[arg(long)]
        force: bool,
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

/// Whether secrets may be published.
#[derive(Debug, Args)]
pub(crate) struct Secrets {
    /// Accept keys, passwords and identities in it, which all of the boot network can read.
    #[arg(long)]
    pub(crate) allow_secrets: bool,
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
        Command::Image(ImageCommand::List { name: None, json }) => list_images(&site()?, *json),
        Command::Image(ImageCommand::List { name: Some(name), json }) => list_builds(&site()?, name, *json),
        Command::Image(ImageCommand::Show { name, build, json }) => {
            show_build(&Build::find(&site()?, name, build.as_deref())?, *json)
        }
        Command::Image(ImageCommand::Verify { name, build }) => {
            let site = site()?;
            verify(&site, &Build::find(&site, name, build.as_deref())?).map(drop)
        }
        Command::Image(ImageCommand::Rm { name, build, force }) => {
            match remove(&site()?, name, build, *force)? {
                Newest::Same => say::note(format_args!("{name}: build {build} is gone")),
                Newest::Now(newest) => say::note(format_args!("{name}: build {build} is gone; the newest is {newest}")),
                Newest::None => say::note(format_args!("{name}: build {build} is gone; it was the only one")),
            }
            Ok(())
        }
        Command::Overlay(command) => command.run(&site()?),
        Command::Key(KeyCommand::New { name }) => new_key(&site()?, name),
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

fn list_builds(site: &Site, name: &Name, json: bool) -> Result<()> {
    let newest = Build::latest(site, name)?.map(|build| build.manifest.build);
    let builds = store::builds(site, name)?;
    let builds: Vec<Build> = builds.iter().map(|build| Build::find(site, name, Some(build))).collect::<Result<_>>()?;
    if json {
        return print_json(&builds.iter().map(summary).collect::<Vec<_>>());
    }
    say::result(format_args!(
        "{:24}  {:8}  {:>9}  {:>9}  {:6}  KERNELS",
        "BUILD", "FORMAT", "SIZE", "UNPACKED", "SIGNED"
    ));
    for build in &builds {
        let m = &build.manifest;
        let signed = if build.signature.is_some() { "yes" } else { "no" };
        let (size, unpacked) = (megabytes(m.size), megabytes(m.unpacked_bytes));
        let mark = if newest.as_ref() == Some(&m.build) { "  (newest)" } else { "" };
        let (id, format, kernels) = (&m.build, m.media.name(), m.kernels.join(" "));
        say::result(format_args!("{id:24}  {format:8}  {size:>9}  {unpacked:>9}  {signed:6}  {kernels}{mark}"));
    }
    Ok(())
}

/// A manifest without its list of chunks, which is long, but with their number.
fn summary(build: &Build) -> serde_json::Value {
    let mut value = serde_json::json!(build.manifest);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("chunks".to_owned(), build.manifest.chunks.len().into());
        fields.insert("signed".to_owned(), build.signature.is_some().into());
        fields.insert("manifest_sha256".to_owned(), build.digest().to_string().into());
    }
    value
}

fn show_build(build: &Build, json: bool) -> Result<()> {
    if json {
        return print_json(&summary(build));
    }
    let m = &build.manifest;
    let signed = match &build.signature {
        Some(_) => "yes; `rootstream image verify` checks by which key",
        None => "no",
    };
    let packed = format!("{} in {} chunks, {}", megabytes(m.size), m.chunks.len(), m.media.name());
    let unpacked = format!(
        "{} in {} inodes, {} in memory, the largest file {}",
        megabytes(m.unpacked_bytes),
        m.inodes,
        megabytes(m.unpacked_pages * 4096),
        megabytes(m.largest_file)
    );
    let kernels = if m.kernels.is_empty() { "none".to_owned() } else { m.kernels.join(" ") };
    for (what, value) in [
        ("image", m.name.as_str()),
        ("build", &m.build),
        ("created", &m.created),
        ("arch", &m.arch),
        ("kernels", &kernels),
        ("init", m.init.as_deref().unwrap_or("none at /sbin/init")),
        ("file", &m.file),
        ("packed", &packed),
        ("unpacked", &unpacked),
        ("sha256", &m.sha256.to_string()),
        ("manifest", &build.digest().to_string()),
        ("signed", signed),
    ] {
        say::result(format_args!("{what:9} {value}"));
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
