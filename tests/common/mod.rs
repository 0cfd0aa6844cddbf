//! What the tests of the image engine share.

// Not every test uses all of it.
#![allow(dead_code)]

pub(crate) mod published;
pub(crate) mod signer;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rootstream::cmdline::Config;
use rootstream::facts::NodeFacts;
use rootstream::image::{self, Anchors, Machine, Resolve, Settings, Sources, Tally, Unpack, VerifiedRoot};

/// Knows one name, `localhost`.
#[derive(Debug)]
struct Hosts;

impl Resolve for Hosts {
    fn resolve(&self, host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
        anyhow::ensure!(host == "localhost", "no such host");
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
    }
}

/// Settings that lose patience quickly, but not because the machine is busy.
pub(crate) fn settings(urls: &[String]) -> Settings {
    Settings {
        urls: urls.to_vec(),
        stall: Duration::from_secs(4),
        retry: Duration::from_secs(2),
        ..Config::default().image
    }
}

/// A resolver that knows one name.
pub(crate) fn resolver() -> Arc<dyn Resolve> {
    Arc::new(Hosts)
}

/// Installs an image with a resolver for tests.
pub(crate) fn install(settings: &Settings, owners: bool, root: &Path) -> anyhow::Result<VerifiedRoot> {
    install_by(settings, owners, 2, root)
}

/// The same with a number of workers.
pub(crate) fn install_by(
    settings: &Settings,
    owners: bool,
    workers: usize,
    root: &Path,
) -> anyhow::Result<VerifiedRoot> {
    install_trusting(
        &Anchors::default(),
        settings,
        Unpack { owners, workers, mount: None },
        root,
        &mut Tally::default(),
    )
}

/// The same with trusted keys and certificates.
pub(crate) fn install_trusting(
    anchors: &Anchors,
    settings: &Settings,
    unpack: Unpack,
    root: &Path,
    tally: &mut Tally,
) -> anyhow::Result<VerifiedRoot> {
    install_on(settings, anchors, &NodeFacts::default(), unpack, root, tally)
}

/// The same on a node of which something is known.
pub(crate) fn install_on(
    settings: &Settings,
    anchors: &Anchors,
    node: &NodeFacts,
    unpack: Unpack,
    root: &Path,
    tally: &mut Tally,
) -> anyhow::Result<VerifiedRoot> {
    let resolver: Arc<dyn Resolve> = Arc::new(Hosts);
    let sources = Sources { settings, anchors, resolver: &resolver, node };
    let installed = image::plan(sources, &Machine::default(), tally)?.install(unpack, root, tally)?;
    installed.root().context("it is a file system")
}
