//! `rootstream overlay`: its words, and what it says when it is done.

use anyhow::Result;
use clap::Subcommand;

use super::{Format, build, publish};
use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::image::Secrets;
use crate::progress::megabytes;
use crate::say;

const RULES: &str = "\
An overlay is the folder overlays/NAME/ with files at the paths that they have on the node. They belong to root and keep
their permissions; folders keep those that they have in the image. In a file whose name ends in .in (the suffix comes
off), @hostname@, @mac@, @ip@, @prefix@, @gateway@, @domain@, @master@ and what [facts] in site.toml and [node.facts] in
nodes.toml name are filled in, and each node gets an archive of its own.
`overlays = [\"NAME\"]` under [defaults] of site.toml, or at a node in nodes.toml, puts it on top of the image there.
";

/// What is done with overlays.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an overlay's archives without publishing them, in built/overlays/NAME/.
    #[command(after_help = format!("{RULES}
Examples:
  rootstream overlay build node && tar -tvf built/overlays/node/n1.tar"))]
    Build {
        /// The overlay.
        name: Name,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Publish an overlay out of its folder as it is now, signed where the site has a key.
    #[command(after_help = format!("{RULES}
A running `rootstream up` writes it into the boot menus within seconds. Publish it again when a fact
that it uses has changed; until then the nodes concerned are not booted with the old one.

Examples:
  rootstream overlay publish common
  rootstream overlay publish common --format tar.gz"))]
    Publish {
        /// The overlay.
        name: Name,
        /// How it is packed.
        #[arg(long, default_value = "tar.zst")]
        format: Format,
        /// The key that signs it, keys/NAME.key; the site's only one by default.
        #[arg(long, value_name = "NAME")]
        key: Option<Name>,
        #[command(flatten)]
        secrets: Secrets,
    },
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// See [`build`] and [`publish`].
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        match self {
            Self::Build { name, secrets } => {
                build(site, name, secrets.allow_secrets)?.iter().for_each(say::result);
                Ok(())
            }
            Self::Publish { name, format, key, secrets } => {
                let published = publish(site, name, *format, key.as_ref(), secrets.allow_secrets)?;
                let index = &published.index;
                let whom = match (&index.shared, index.nodes.len()) {
                    (Some(_), _) => "one archive for all".to_owned(),
                    (None, nodes) => format!("an archive for each of {nodes} nodes"),
                };
                let bytes: u64 = index.archives().map(|archive| archive.size).sum();
                for archive in index.archives() {
                    say::result(format_args!("store/overlays/{name}/{}", archive.file));
                }
                let signed = match &published.signed_with {
                    Some(key) => format!("signed with keys/{key}.key"),
                    None => "not signed".to_owned(),
                };
                say::note(format_args!("overlay {name}: {whom}, {}, {signed}", megabytes(bytes)));
                Ok(())
            }
        }
    }
}
