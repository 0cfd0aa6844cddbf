//! The image: fetched, decoded, verified and unpacked in one pass.

mod acl;
pub mod archive;
mod choice;
mod chunks;
mod cut;
mod decode;
mod fetch;
mod halt;
mod header;
mod http;
pub mod manifest;
mod metadata;
mod mirrors;
mod pace;
mod pages;
mod path;
mod pax;
mod pipe;
mod preflight;
mod progress;
mod published;
mod range;
mod resume;
mod retry;
mod root;
mod secure;
mod small;
mod sparse;
mod stream;
mod tally;
pub mod tls;
mod tree;
pub mod trust;
mod turns;
mod unpack;
mod whole;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::{Advise as _, refuse};
use crate::mounts::Needs;
use mirrors::Mirrors;
pub use preflight::Machine;
use published::Published;
use stream::Pass;
pub use stream::hex;
pub use tally::{Reason, Share, Tally};

/// Where the image is and how patient to be with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// One image's URL on each mirror, in order of preference; all must serve the same bytes.
    pub urls: Vec<String>,
    /// `rootstream.sha256=`: the digest of the file that `urls` name, as served.
    pub sha256: Option<[u8; 32]>,
    /// `rootstream.unsigned`: take an image without a signature though there are trusted keys.
    pub unsigned: bool,
    /// `rootstream.not-before=`: builds published before this (RFC 3339, UTC) are refused.
    pub not_before: Option<String>,
    /// `rootstream.stall=`: a transfer without a byte for this long is broken off and resumed.
    pub stall: Duration,
    /// `rootstream.retry=`: how long a fetch is retried in all before it fails.
    pub retry: Duration,
}

/// Whom to believe: baked into the initramfs, or named to a rehearsal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchors {
    /// Keys of which one must have signed what is installed; none: no signature is asked for.
    pub keys: trust::Keys,
    /// Certificates of which one must vouch for a server behind `https://`.
    pub certificates: tls::Certificates,
}

impl Anchors {
    /// The anchors in an initramfs whose root is `root`: `keys/*.pub` and `tls/*.pem`.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn baked(root: &Path) -> anyhow::Result<Self> {
        Ok(Self { keys: trust::Keys::in_folder(&root.join("keys"))?, certificates: tls::Certificates::baked(root)? })
    }
}

/// What every fetch depends on.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Where the image is and how patient to be.
    pub settings: &'a Settings,
    /// Whom to believe.
    pub anchors: &'a Anchors,
    /// Finds the servers' addresses.
    pub resolver: &'a Arc<dyn Resolve>,
}

/// What unpacking may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpack {
    /// Set owners, device nodes and trusted xattrs; without it what an unprivileged user cannot
    /// do is skipped and counted.
    pub owners: bool,
    /// How many threads unpack a published image; each takes a few MiB of memory.
    pub workers: usize,
}

/// Turns a host name into addresses (stage 1 has no libc resolver to lean on).
pub trait Resolve: Send + Sync + std::fmt::Debug {
    /// The addresses of `host`, each with `port`.
    ///
    /// # Errors
    /// The name does not exist or no server answered.
    fn resolve(&self, host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>>;
}

/// How far the image was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Complete and well-formed, nothing more.
    None,
    /// Complete, well-formed and equal to the digest that was asked for.
    Digest,
    /// Complete, well-formed and signed with a trusted key.
    Signed,
}

/// Which build of which image a manifest is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The image's name.
    pub name: String,
    /// The build's name.
    pub build: String,
    /// When it was published, RFC 3339.
    pub created: String,
    /// The URL of the manifest.
    pub manifest: String,
}

/// What was learnt about the image on the way.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The URL that the last byte came from.
    pub url: String,
    /// Outer and inner format by magic, such as `tar+gzip`.
    pub media: &'static str,
    /// Bytes of the file as served.
    pub bytes: u64,
    /// Bytes of file data written into the root (holes not counted).
    pub unpacked: u64,
    /// Archive entries written.
    pub entries: u64,
    /// sha256 of the file as served, lower-case hex.
    pub sha256: String,
    /// A published image's build.
    pub build: Option<Build>,
    /// How far it was verified.
    pub trust: Trust,
    /// How often the transfer was resumed or started again.
    pub retries: u32,
    /// What was left out or not as asked, one sentence each, with counts.
    pub warnings: Vec<String>,
}

/// A root file system that passed every check that applies. Only [`Plan::install`] makes one, and only
/// one of these can be switched to.
#[derive(Debug)]
pub struct VerifiedRoot {
    path: PathBuf,
    facts: Facts,
}

impl VerifiedRoot {
    /// Where the root is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was learnt about the image on the way.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// An image about to be installed. Of a published one everything but its bytes is known, and was verified.
pub struct Plan<'a> {
    sources: Sources<'a>,
    mirrors: Mirrors<'a>,
    published: Option<Published>,
}

/// Finds out what is to be installed: a published image's manifest is fetched, verified and compared with the
/// machine. Nothing is known of a plain image. `tally` is filled in either way.
///
/// # Errors
/// The manifest cannot be fetched within `rootstream.retry=`, is not signed or otherwise not to be trusted, or the
/// image is for another machine.
pub fn plan<'a>(sources: Sources<'a>, machine: &Machine, tally: &mut Tally) -> anyhow::Result<Plan<'a>> {
    let mirrors = Mirrors::new(sources)?;
    let published = Published::find(sources, machine, &mirrors);
    *tally = mirrors.tally();
    Ok(Plan { sources, mirrors, published: published? })
}

impl Plan<'_> {
    /// What the image needs of the file system that it is unpacked into, as far as it is known.
    pub fn needs(&self) -> Needs {
        self.published.as_ref().map(Published::needs).unwrap_or_default()
    }

    /// Streams the image into `root`, an empty directory, and verifies it; `tally` is filled in either way.
    ///
    /// # Errors
    /// The image does not fit, cannot be fetched within `rootstream.retry=`, is damaged, incomplete, not an image, or
    /// not the one that was asked for. `root` then holds rubbish.
    pub fn install(&self, unpack: Unpack, root: &Path, tally: &mut Tally) -> anyhow::Result<VerifiedRoot> {
        let installed = match &self.published {
            Some(published) => published.install(&self.mirrors, unpack, root),
            None => passes(self.sources, unpack, root, &self.mirrors),
        };
        *tally = self.mirrors.tally();
        Ok(VerifiedRoot { path: root.to_owned(), facts: installed? })
    }
}

/// As many passes over a plain image as it takes.
fn passes(sources: Sources<'_>, unpack: Unpack, root: &Path, mirrors: &Mirrors<'_>) -> anyhow::Result<Facts> {
    loop {
        let start = Instant::now();
        match stream::pass(sources, unpack, root, mirrors)? {
            Pass::Complete(facts) => return Ok(facts),
            Pass::Damaged(error) if mirrors.blame() => {
                mirrors.begin_again(Duration::ZERO);
                log::warn!("image: {error:#}; starting again in an empty tree, from another mirror");
                empty(root).advise(format!("emptying {}", root.display()), "check that file system")?;
            }
            Pass::Damaged(error) => return Err(error),
            Pass::Restart(why) => {
                // What was fetched so far was in vain.
                if !mirrors.begin_again(start.elapsed()) {
                    let todo = "serve each build under a name of its own, so that it never changes";
                    return Err(refuse(why, todo).context("the image changed too often while it was fetched"));
                }
                log::warn!("image: {why}; starting again in an empty tree");
                empty(root).advise(format!("emptying {}", root.display()), "check that file system")?;
            }
        }
    }
}

/// Removes what a directory holds.
fn empty(root: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
