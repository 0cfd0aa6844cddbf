//! The image: fetched, decoded, verified and unpacked in one pass; or, where it is a file system, mounted after it.

mod acl;
pub mod archive;
mod choice;
mod chunks;
mod cut;
mod decode;
mod fetch;
mod filesystem;
mod from_lease;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod given;
mod halt;
mod header;
mod http;
mod line;
pub mod manifest;
mod metadata;
mod mirrors;
mod mount;
mod overlay;
mod pace;
mod pages;
mod path;
mod pax;
mod pipe;
mod plan;
mod preflight;
mod progress;
mod published;
mod range;
mod redirect;
mod resume;
mod retry;
mod root;
mod secure;
mod signature;
mod small;
mod sparse;
mod store;
mod stream;
mod tally;
pub mod tls;
mod transfer;
mod tree;
pub mod trust;
mod turns;
mod unpack;
mod watch;
mod whole;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::facts::NodeFacts;
pub use filesystem::{HEAD as FILE_SYSTEM_HEAD, check_file_system};
pub(crate) use from_lease::located;
pub(crate) use mount::unmount;
pub use mount::{IMAGE as MOUNTED_IMAGE, Mounting};
pub use overlay::Overlay;
pub use plan::{Installed, Plan, VerifiedRoot, plan};
pub use preflight::Machine;
pub use stream::hex;
pub use tally::{Reason, Share, Tally};

/// Where the image is and how patient to be with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// One image's URL on each mirror; all must serve the same bytes. A node begins at any of them.
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
    /// What the names in overlays' URLs stand for.
    pub node: &'a NodeFacts,
}

/// What unpacking may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpack<'a> {
    /// Set owners, device nodes and trusted xattrs; without it what an unprivileged user cannot
    /// do is skipped and counted.
    pub owners: bool,
    /// How many threads unpack a published image; each takes a few MiB of memory.
    pub workers: usize,
    /// How to mount an image that is a file system; without it the image stays a file.
    pub mount: Option<Mounting<'a>>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
    /// sha256 of the file as served, lower-case hex; of a published image what its manifest says, whose chunks were
    /// compared one by one.
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
