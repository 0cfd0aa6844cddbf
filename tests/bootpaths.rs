//! Whole boots on each way from the firmware to the kernel, of several nodes at once too, and what a node says on each
//! way that cannot boot: `make test-all` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod vm;

use std::process::Command;
use std::thread;

use rootstream_lab::firmware::Firmware;
use rootstream_lab::namespace::enter_private_network;
use rootstream_lab::network::tap_with;
use rootstream_lab::node::Node;
use rootstream_lab::site::Site;
use rootstream_lab::transcript::Transcript;
use vm::{COMPANION, MAC, make};

/// Boots a node in this way; what the last line says of it was observed.
fn boots(firmware: Firmware) {
    let firmware = firmware.as_str();
    let output = make(&format!("boot FIRMWARE={firmware}"));
    let line = output.lines().last().unwrap();
    assert!(line.starts_with(&format!("boot: ok firmware={firmware} servers=rootstream nodes=1 ")), "{line}");
}

#[test]
fn uefi_boots_by_ipxe() {
    boots(Firmware::UefiIpxe);
}

#[test]
fn uefi_boots_by_grub() {
    boots(Firmware::UefiGrub);
}

#[test]
fn uefi_boots_by_syslinux() {
    boots(Firmware::UefiSyslinux);
}

#[test]
fn uefi_boots_by_http() {
    boots(Firmware::UefiHttp);
}

#[test]
fn four_nodes_boot_at_once() {
    let output = make("boot NODES=4");
    let line = output.lines().last().unwrap();
    assert!(line.starts_with("boot: ok firmware=bios servers=rootstream nodes=4 "), "{line}");
    for node in ["n1", "n2", "n3", "n4"] {
        assert!(output.lines().any(|line| line.contains(&format!(" s  {node}  ssh "))), "{node} was not asked");
    }
}

/// Powers a node on whose image was never published; waits until its console has said why, and then `next`, which its
/// firmware says when it tries the next boot device.
fn refuses(firmware: Firmware, next: &'static str) {
    let enclosed = thread::spawn(move || {
        enter_private_network().unwrap();
        tap_with("tap0", &["172.16.0.254/24"]).unwrap();
        let lab = tempfile::tempdir().unwrap();
        let site = Site::at(lab.path(), COMPANION.as_ref());
        let companion = |words: &[&str]| {
            let output = Command::new(COMPANION).arg("--site").arg(site.folder()).args(words).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let folder = site.folder().display().to_string();
        companion(&["site", "new", &folder, "--interface", "tap0", "--address", "172.16.0.254/24"]);
        companion(&["node", "add", "n1", "--mac", MAC, "--ip", "172.16.0.1"]);
        companion(&["node", "set", "n1", &format!("boot={}", firmware.boot_path())]);
        let transcript = Transcript::default();
        let _up = site.up(&transcript).unwrap();
        let node = Node::new("n1").memory(256).nic("tap0", MAC).firmware(firmware);
        let mut machine = node.power_on(lab.path(), &transcript).unwrap();
        machine.wait_for("rootstream: node n1: the image compute is not published; run: ").unwrap();
        machine.wait_for(next).unwrap();
    });
    enclosed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn bios_says_why_not() {
    refuses(Firmware::Bios, "Booting from Hard Disk");
}

#[test]
fn uefi_ipxe_says_why_not() {
    refuses(Firmware::UefiIpxe, "BdsDxe: failed to start Boot0001");
}

// It has no disk to go on to, and its firmware was not told of a failure.
#[test]
fn uefi_grub_says_why_not() {
    refuses(Firmware::UefiGrub, "UiApp");
}

#[test]
fn uefi_syslinux_says_why_not() {
    refuses(Firmware::UefiSyslinux, "BdsDxe: failed to start Boot0001");
}

#[test]
fn uefi_http_says_why_not() {
    refuses(Firmware::UefiHttp, "BdsDxe: failed to start Boot0001");
}
