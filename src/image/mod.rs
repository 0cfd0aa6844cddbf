//! The image: fetched, decoded, verified and unpacked in one pass.

mod acl;
mod archive;
mod decode;
mod fetch;
mod from_lease;
mod header;
mod http;
pub mod manifest;
mod metadata;
mod overlay;
mod path;
mod pax;
mod pipe;
mod progress;
mod resume;
mod retry;
mod root;
mod sparse;
mod stream;
pub mod trust;
mod unpack;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::facts::NodeFacts;
use crate::failure::{Advise as _, refuse};
use fetch::Account;
pub(crate) use from_lease::located;
pub use overlay::Overlay;
use retry::Patience;
use stream::Pass;
pub use stream::hex;

/// Where the image is and how patient to be with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// One image's URL on each mirror, in order of preference; all must serve the same bytes.
    pub urls: Vec<String>,
    /// `rootstream.image=dhcp`: the lease names the image, and `urls` is filled from it.
    pub from_lease: bool,
    /// `rootstream.overlay=`: what goes on top of the image, in order.
    pub overlays: Vec<Overlay>,
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
}

impl Anchors {
    /// The anchors in an initramfs whose root is `root`: `keys/*.pub`.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn baked(root: &Path) -> anyhow::Result<Self> {
        Ok(Self { keys: trust::Keys::in_folder(&root.join("keys"))? })
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
    /// What the names in overlays' URLs stand for.
    pub node: &'a NodeFacts,
}

/// What unpacking may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpack {
    /// Set owners, device nodes and trusted xattrs; without it what an unprivileged user cannot
    /// do is skipped and counted.
    pub owners: bool,
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
    /// How far it was verified.
    pub trust: Trust,
    /// How often the transfer was resumed or started again.
    pub retries: u32,
    /// What was left out or not as asked, one sentence each, with counts.
    pub warnings: Vec<String>,
}

/// A root file system that passed every check that applies. Only [`install`] makes one, and only
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

/// What a transfer cost, whether it succeeded or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes received of the image.
    pub bytes: u64,
    /// How often a request was made again or the transfer begun again.
    pub retries: u32,
}

/// Streams the image into `root`, an empty directory, and verifies it; `tally` is filled in either way.
///
/// # Errors
/// The image cannot be fetched within `settings.retry`, is damaged, incomplete, not an image, not
/// the one that `settings.sha256` names, or does not fit. `root` then holds rubbish.
pub fn install(sources: Sources<'_>, unpack: Unpack, root: &Path, tally: &mut Tally) -> anyhow::Result<VerifiedRoot> {
    if let Some(overlay) = sources.settings.overlays.first() {
        let what = format!("this version of rootstream cannot put {} on top of the image", overlay.url);
        return Err(refuse(what, "take rootstream.overlay= out"));
    }
    let mut account = Account { patience: Patience::new(sources.settings.retry), retries: 0, received: 0 };
    let installed = passes(sources, unpack, root, &mut account);
    *tally = Tally { bytes: account.received, retries: account.retries };
    installed
}

/// As many passes as it takes.
fn passes(sources: Sources<'_>, unpack: Unpack, root: &Path, account: &mut Account) -> anyhow::Result<VerifiedRoot> {
    let settings = sources.settings;
    loop {
        let start = Instant::now();
        match stream::pass(sources, unpack, root, account)? {
            Pass::Complete(facts) => return Ok(VerifiedRoot { path: root.to_owned(), facts }),
            Pass::Restart(why) => {
                account.retries += 1;
                let spent = account.patience.spent();
                // What was fetched so far was in vain.
                account.patience.charge(start.elapsed());
                if spent >= settings.retry {
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
