//! What stage 2 makes of the network that it is handed: the same address, renewed by the image's own manager of the
//! network, with an ssh session over it that goes on. And cards that appear late.
//!
//! Each of these boots a whole Debian image and waits for two renewals, so they take minutes: `make test-all` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod vm;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rootstream_lab::bound::Bound;
use rootstream_lab::faulty::{Server, answer};
use rootstream_lab::node::Node;
use rootstream_lab::packages::build_dir;
use rootstream_lab::ssh;
use rootstream_lab::transcript::Transcript;
use vm::{COMPANION, IMAGE, MAC, dhcp, generic_kernel, in_private_network, lines_of_failure, make, serve};

const ADDRESS: &str = "172.16.0.1";
/// The least that dnsmasq grants.
const LEASE: u64 = 120;
/// The image with every manager of the network; each test masks those that it is not about.
const RECIPE: &str = r#"
suite = "bookworm"
packages = ["systemd-sysv", "udev", "dbus", "kmod", "iproute2", "openssh-server", "network-manager", "ifupdown", "isc-dhcp-client"]
services = ["systemd-networkd"]
ssh_authorized_keys = ["keys/lab.pub"]
hostname = "dhcp"

[[files]]
from = "files/patience.conf"
to = "/etc/systemd/system.conf.d/patience.conf"
"#;

// F17
#[test]
fn systemd_networkd_goes_on_with_the_lease() {
    stage_2_keeps_its_address(&["NetworkManager", "networking"], "/run/systemd/network/zz-rootstream.network");
}

// F17
#[test]
fn network_manager_goes_on_with_the_lease() {
    let profile = "/run/NetworkManager/system-connections/rootstream-eth0.nmconnection";
    stage_2_keeps_its_address(&["systemd-networkd", "networking"], profile);
}

// F17
#[test]
fn ifupdown_goes_on_with_the_lease() {
    stage_2_keeps_its_address(&["systemd-networkd", "NetworkManager"], "/etc/network/interfaces.d/rootstream");
}

// F63
#[test]
fn a_card_that_appears_after_its_bus_is_found() {
    let (kernel, initramfs) = generic_kernel(Some("auto cdc_ether xhci-pci ehci-pci\n"));
    in_private_network(move || {
        let _dhcp = dhcp();
        let _http = serve(|stream| answer(stream, "404 Not Found", &[], b""));
        let node = Node::new("n1").memory(512).card("usb-net", "tap0", MAC);
        let parameters = format!("{IMAGE} rootstream.retry=2s");
        let lines = lines_of_failure(node, (&kernel, &initramfs), &parameters, |_| ());
        let at = |words: &str| {
            let found = lines.iter().position(|line| line.contains(words));
            found.unwrap_or_else(|| panic!("{words}: {lines:#?}"))
        };
        assert!(at("xhci_pci for pci:") < at("cdc_ether for usb:"), "{lines:#?}");
        assert!(at("cdc_ether for usb:") < at("lease 172.16.0.1/24"), "{lines:#?}");
    });
}

/// Boots the image with all managers of the network but the `masked` ones, and follows an ssh session through two
/// renewals of the lease. `written` is the file that hand-over is to leave.
fn stage_2_keeps_its_address(masked: &[&str], written: &str) {
    let (kernel, initramfs) = generic_kernel(None);
    let image = fs::read(image()).unwrap();
    let overlay = masking(masked);
    let key = build_dir().join("lab/site/keys/lab");
    let (log, leases) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let acks = || fs::read_to_string(log.path()).unwrap().matches(" DHCPACK(").count();
    in_private_network(|| {
        let dhcp = format!(
            "--keep-in-foreground --conf-file=/dev/null --user=root --port=0 --no-resolv --no-hosts --log-dhcp \
             --log-facility={} --dhcp-leasefile={} --interface=tap0 --bind-interfaces \
             --dhcp-range=172.16.0.1,172.16.0.99,255.255.255.0,{LEASE}s --dhcp-host={MAC},{ADDRESS},n1",
            log.path().display(),
            leases.path().display()
        );
        let _dhcp = Bound::start("dnsmasq", |c| c.args(dhcp.split_whitespace())).unwrap();
        let address = "172.16.0.254:80".parse().unwrap();
        let _http = Server::start_at(address, move |request, stream| {
            let body = if request.path == "/o.tar" { &overlay } else { &image };
            answer(stream, "200 OK", &[], body)
        });
        let folder = tempfile::tempdir().unwrap();
        let transcript = Transcript::default();
        let cmdline = format!(
            "console=ttyS0,115200 net.ifnames=0 rootstream.onfail=poweroff {IMAGE} \
             rootstream.overlay=http://172.16.0.254/o.tar"
        );
        let node = Node::new("n1").memory(2048).card("e1000e", "tap0", MAC).direct(&kernel, &initramfs, &cmdline);
        let mut machine = node.power_on(folder.path(), &transcript).unwrap();
        machine.wait_for("rootstream: switch_root: ").unwrap();
        machine.wait_for("login:").unwrap();
        let record = ssh::run(&key, ADDRESS, "cat /run/rootstream/boot.json").unwrap();
        assert!(record.contains(written), "{record}");

        let before = acks();
        let mut session = Command::new("ssh");
        session.args(ssh::arguments(&key, ADDRESS)).arg("while sleep 1; do cut -d' ' -f1 /proc/uptime; done");
        let mut session = session.stdout(Stdio::piped()).spawn().unwrap();
        let (started, long) = (Instant::now(), Duration::from_secs(3 * LEASE));
        while acks() < before + 2 && started.elapsed() < long {
            assert_eq!(session.try_wait().unwrap(), None, "the session ended; {}", machine.last_words());
            thread::sleep(Duration::from_secs(1));
        }
        let dhcp = fs::read_to_string(log.path()).unwrap();
        assert!(acks() >= before + 2, "no two renewals in {} s:\n{dhcp}", long.as_secs());
        // One client for the server, and one address, from the first to the last.
        let lines = dhcp.lines().filter(|line| line.contains("DHCPACK(tap0)"));
        assert!(lines.clone().all(|line| line.contains(&format!(" {ADDRESS} {MAC}"))), "{dhcp}");
        let lease = fs::read_to_string(leases.path()).unwrap();
        assert!(lease.lines().count() == 1 && lease.trim_end().ends_with(&format!(" 01:{MAC}")), "{lease}");
        let addresses = ssh::run(&key, ADDRESS, "ip -4 -o addr show scope global").unwrap();
        assert!(addresses.lines().count() == 1 && addresses.contains(&format!("inet {ADDRESS}/24")), "{addresses}");
        assert_eq!(session.try_wait().unwrap(), None, "the session ended; {}", machine.last_words());
        session.kill().unwrap();
        session.wait().unwrap();
    });
}

/// An overlay that masks units.
fn masking(units: &[&str]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for unit in units {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        let path = format!("etc/systemd/system/{unit}.service");
        archive.append_link(&mut header, path, "/dev/null").unwrap();
    }
    archive.into_inner().unwrap()
}

/// The image, built in the lab's site once.
fn image() -> std::path::PathBuf {
    make("site");
    let site = build_dir().join("lab/site");
    fs::write(site.join("images/managers.toml"), RECIPE).unwrap();
    let mut build = Command::new(COMPANION);
    build.arg("--site").arg(&site).args(["image", "build", "managers"]);
    assert!(build.status().unwrap().success());
    Path::new(&site).join("built/managers.tar")
}
