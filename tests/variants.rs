//! Whole boots with values of `make boot` that are not its defaults: `make test-all` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod vm;

use vm::make;

// The image is a squashfs then, published, verified, and mounted under an overlay in the node.
#[test]
fn a_node_boots_from_a_squashfs() {
    let output = make("boot IMAGE=squashfs");
    let line = output.lines().last().unwrap();
    assert!(line.starts_with("boot: ok ") && line.contains(" image=squashfs "), "{line}");
}

// dhcpd, tftpd and nginx boot the node then, from what `rootstream config` writes.
#[test]
fn a_node_boots_from_the_servers_that_a_site_has_already() {
    let output = make("boot SERVERS=classic");
    let line = output.lines().last().unwrap();
    assert!(line.starts_with("boot: ok ") && line.contains(" servers=classic "), "{line}");
}
