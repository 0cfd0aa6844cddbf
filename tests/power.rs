//! Whole boots of a node that its BMC powers on, because `rootstream boot` says so: `make test-all` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod vm;

use vm::make;

fn boots_by(power: &str) {
    let output = make(&format!("boot POWER={power}"));
    let line = output.lines().last().unwrap();
    assert!(line.starts_with("boot: ok ") && line.contains(&format!(" power={power} ")), "{line}");
}

#[test]
fn a_node_is_powered_on_through_ipmi_and_followed_to_its_login() {
    boots_by("ipmi");
}

#[test]
fn a_node_is_powered_on_through_redfish_and_followed_to_its_login() {
    boots_by("redfish");
}
