//! `rootstream image`: its words, and what it says when it is done.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::build::{self, build};
use super::choose::{Choice, back, choose, roll_back};
use super::import::{self, Source, import};
use super::list;
use super::publish::{self, Format, publish};
use super::remove::{Newest, remove};
use super::shell::shell;
use super::store::{self, Build};
use super::verify::verify;
use crate::config::addresses::Name;
use crate::config::site::{OVERLAYS, Site};
use crate::node::names::Names;
use crate::progress::megabytes;
use crate::say;

/// A name that an image can have: the store keeps overlays in the folder that such an image would have.
pub(crate) fn image_name(text: &str) -> Result<Name, String> {
    match text.parse() {
        Ok(_) if text == OVERLAYS => {
            Err(format!("`{OVERLAYS}` is where the store has its overlays; name it otherwise"))
        }
        name => name,
    }
}

/// Whether secrets may be published.
#[derive(Debug, Args)]
pub(crate) struct Secrets {
    /// Accept keys, passwords and identities in it, which all of the boot network can read.
    #[arg(long)]
    pub(crate) allow_secrets: bool,
}

/// What is done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
    /// Make an image of what is elsewhere: a directory, an archive, an OCI image, a registry's.
    #[command(after_help = "\
What comes in is published like what was built: `rootstream image publish NAME`. A directory may be another machine's
root, `/` included: other file systems that are mounted in it stay out. Nodes need an init and the modules of a kernel
in it, and nothing that belongs to one machine; what must not be shared is named, and --exclude leaves it out.

Examples:
  rootstream image import compute /srv/chroots/compute
  rootstream image import compute node.tar.gz --exclude etc/machine-id --exclude root/.ssh/id_ed25519
  rootstream image import compute docker://registry.example.org/compute:12
  rootstream image import compute oci:/srv/layout:12")]
    Import {
        /// The image.
        #[arg(value_parser = image_name)]
        name: Name,
        /// A directory, an archive (.tar, .tar.gz, .tar.zst, .tar.xz, .tar.bz2), or docker://, oci:, oci-archive:,
        /// docker-archive: as in skopeo(1).
        source: Source,
        /// Its architecture, as Debian calls it.
        #[arg(long, default_value = "amd64")]
        arch: String,
        /// A path in the image that is left out, with all below it; may be given several times.
        #[arg(long, value_name = "PATH")]
        exclude: Vec<String>,
        /// Speak to a registry without TLS, or with a certificate that nobody vouches for.
        #[arg(long)]
        insecure: bool,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Open a shell in what was built last, to try and to change it.
    #[command(after_help = "\
`exit` keeps what was changed, for the next `image publish`; any other exit code leaves the image as it was. What is
changed by hand is gone with the next `image build`: put what has to stay into the recipe.

Examples:
  rootstream image shell compute
  rootstream image shell compute -- apt-get install -y htop")]
    Shell {
        /// The image; it must be built.
        #[arg(value_parser = image_name)]
        name: Name,
        /// A command instead of a shell.
        #[arg(last = true)]
        command: Vec<String>,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Publish what was built last, as the newest build.
    #[command(after_help = "\
The newest build is named in store/NAME/latest.json; older builds stay. A running `rootstream up` writes it
into the boot menus within seconds.

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
    /// Choose which build nodes boot.
    #[command(after_help = "\
Nodes boot the newest build of their image, unless nodes.toml gives them another; this writes it there. They do with
their next boot; a running `rootstream up` knows it within seconds.

Examples:
  rootstream image use compute 20261122-191228-01f7ce9e --nodes n[001-004]    try it on four
  rootstream image use compute latest --nodes @rack1                           and those to come")]
    Use {
        /// The image.
        #[arg(value_parser = image_name)]
        name: Name,
        /// The build, or `latest` for the newest at any time.
        build: Choice,
        /// The nodes: n1, n[001-064], @group, @all.
        #[arg(long)]
        nodes: Names,
    },
    /// Go back to the build before.
    #[command(after_help = "\
With --nodes those nodes get the build before the one that they boot now. Without, the build before the newest becomes
the newest: for all nodes that are given none in nodes.toml. No build is removed.

Examples:
  rootstream image rollback compute
  rootstream image rollback compute --nodes n[001-004]")]
    Rollback {
        /// The image.
        #[arg(value_parser = image_name)]
        name: Name,
        /// The nodes: n1, n[001-064], @group.
        #[arg(long)]
        nodes: Option<Names>,
    },
    /// Remove a build from the store.
    #[command(after_help = "\
Refused for the newest build, for one that nodes.toml gives to nodes, and for one that a boot menu names, unless --force
is given.

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

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// See [`build`], [`publish`], [`verify`] and [`remove`].
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        match self {
            Self::Build { name, force, secrets } => {
                let options = build::Options { force: *force, allow_secrets: secrets.allow_secrets };
                build(site, name, options).map(drop)
            }
            Self::Import { name, source, arch, exclude, insecure, secrets } => {
                let options = import::Options {
                    arch: arch.clone(),
                    exclude: exclude.clone(),
                    insecure: *insecure,
                    allow_secrets: secrets.allow_secrets,
                };
                import(site, name, source, &options)
            }
            Self::Shell { name, command, secrets } => shell(site, name, command, secrets.allow_secrets),
            Self::Publish { name, format, level, key, secrets } => {
                let allow_secrets = secrets.allow_secrets;
                let options = publish::Options { format: *format, level: *level, allow_secrets, key: key.clone() };
                let manifest = publish(site, name, &options)?;
                say::result(format_args!("store/{name}/{}", manifest.file));
                let (address, port) = (site.config().network.address.address, site.config().http.port);
                let port = if port == 80 { String::new() } else { format!(":{port}") };
                say::note(format_args!(
                    "`rootstream up` serves it as http://{address}{port}/images/{name}/{}.json",
                    manifest.build
                ));
                Ok(())
            }
            Self::List { name: None, json } => list_images(site, *json),
            Self::List { name: Some(name), json } => list_builds(site, name, *json),
            Self::Show { name, build, json } => show_build(&Build::find(site, name, build.as_deref())?, *json),
            Self::Verify { name, build } => verify(site, &Build::find(site, name, build.as_deref())?).map(drop),
            Self::Use { name, build, nodes } => {
                choose(site, name, build, nodes)?.iter().for_each(say::result);
                Ok(())
            }
            Self::Rollback { name, nodes: Some(nodes) } => {
                back(site, name, nodes)?.iter().for_each(say::result);
                Ok(())
            }
            Self::Rollback { name, nodes: None } => {
                let (from, to) = roll_back(site, name)?;
                say::result(format_args!("{name}: from {from} back to {to}"));
                Ok(())
            }
            Self::Rm { name, build, force } => {
                match remove(site, name, build, *force)? {
                    Newest::Same => say::note(format_args!("{name}: build {build} is gone")),
                    Newest::Now(newest) => {
                        say::note(format_args!("{name}: build {build} is gone; the newest is {newest}"))
                    }
                    Newest::None => say::note(format_args!("{name}: build {build} is gone; it was the only one")),
                }
                Ok(())
            }
        }
    }
}

fn list_images(site: &Site, json: bool) -> Result<()> {
    let images = list::images(site)?;
    if json {
        return say::json(&images);
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
        return say::json(&builds.iter().map(summary).collect::<Vec<_>>());
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
        return say::json(&summary(build));
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
