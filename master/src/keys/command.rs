//! `rootstream key`: its words, and what it says when it is done.

use anyhow::Result;
use clap::Subcommand;

use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::say;

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// See [`super::new`].
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        match self {
            Self::New { name } => new(site, name),
        }
    }
}

fn new(site: &Site, name: &Name) -> Result<()> {
    let pair = super::new(site, name)?;
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
