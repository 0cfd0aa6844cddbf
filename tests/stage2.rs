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
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rootstream_lab::bound::Bound;
use rootstream_lab::faulty::{Request, Server, answer, head};
use rootstream_lab::machine::Machine;
use rootstream_lab::node::Node;
use rootstream_lab::packages::build_dir;
use rootstream_lab::patience::Patience;
use rootstream_lab::ssh;
use rootstream_lab::switch::Mode;
use rootstream_lab::transcript::Transcript;
use tempfile::TempDir;
use vm::switched::behind_a_switch;
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

// F10, F17
#[test]
fn systemd_networkd_goes_on_with_the_lease() {
    stage_2_keeps_its_lease(&["NetworkManager", "networking"], "/run/systemd/network/zz-rootstream.network");
}

// F17
#[test]
fn network_manager_goes_on_with_the_lease() {
    let profile = "/run/NetworkManager/system-connections/rootstream-eth0.nmconnection";
    stage_2_keeps_its_lease(&["systemd-networkd", "networking"], profile);
}

// F17
#[test]
fn ifupdown_goes_on_with_the_lease() {
    stage_2_keeps_its_lease(&["systemd-networkd", "NetworkManager"], "/etc/network/interfaces.d/rootstream");
}

// F17
#[test]
fn systemd_networkd_keeps_an_address_of_the_command_line() {
    let (kernel, initramfs) = generic_kernel(None);
    let image = fs::read(image()).unwrap();
    let overlay = masking(&["NetworkManager", "networking"]);
    in_private_network(|| {
        let _http = serve_image(image, overlay, Duration::ZERO);
        let node = Node::new("n1").memory(2048).card("e1000e", "tap0", MAC);
        let parameters = format!("ip={ADDRESS}::172.16.0.254:24:n1:eth0:none");
        let node = Debian::boot(node, (&kernel, &initramfs), &parameters);
        networkd_keeps(node, "eth0");
    });
}

// F17
#[test]
fn systemd_networkd_keeps_the_address_of_a_vlan() {
    networkd_keeps_behind_a_switch(Mode::Trunk(5), 1, "vlan=vlan5:eth0", "vlan5");
}

// F17
#[test]
fn systemd_networkd_keeps_the_address_of_a_bond() {
    let bond = "bond=bond0:eth0,eth1:mode=802.3ad,miimon=100,lacp_rate=fast";
    networkd_keeps_behind_a_switch(Mode::Lacp, 2, bond, "bond0");
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

/// Boots the image with all managers of the network but the `masked` ones, so slowly that stage 1 renews the lease, and
/// follows an ssh session through two renewals more. `written` is the file that hand-over is to leave.
fn stage_2_keeps_its_lease(masked: &[&str], written: &str) {
    let (kernel, initramfs) = generic_kernel(None);
    let image = fs::read(image()).unwrap();
    let overlay = masking(masked);
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
        // Renewal is due after half of the lease.
        let _http = serve_image(image, overlay, Duration::from_secs(LEASE * 3 / 4));
        let node = Node::new("n1").memory(2048).card("e1000e", "tap0", MAC);
        let mut node = Debian::boot(node, (&kernel, &initramfs), "");
        let before = acks();
        assert!(before >= 2, "stage 1 has not renewed its lease: {before} ACKs");
        node.machine.wait_for("login:").unwrap();
        let record = node.ssh("cat /run/rootstream/boot.json");
        assert!(record.contains(written), "{record}");

        let (mut session, before) = (Session::open(&node.key), acks());
        let (started, long) = (Instant::now(), Duration::from_secs(3 * LEASE));
        while acks() < before + 2 && started.elapsed() < long {
            session.check(&node.machine);
            thread::sleep(Duration::from_secs(1));
        }
        let dhcp = fs::read_to_string(log.path()).unwrap();
        assert!(acks() >= before + 2, "no two renewals in {} s:\n{dhcp}", long.as_secs());
        // One client for the server, and one address, from the first to the last.
        let lines = dhcp.lines().filter(|line| line.contains("DHCPACK(tap0)"));
        assert!(lines.clone().all(|line| line.contains(&format!(" {ADDRESS} {MAC}"))), "{dhcp}");
        let lease = fs::read_to_string(leases.path()).unwrap();
        assert!(lease.lines().count() == 1 && lease.trim_end().ends_with(&format!(" 01:{MAC}")), "{lease}");
        node.assert_one_address("eth0");
        session.check(&node.machine);
        println!("{} s with ssh open, {} ACKs", started.elapsed().as_secs(), acks());
    });
}

/// Boots the image behind a switch, with what it needs there made by stage 1.
fn networkd_keeps_behind_a_switch(mode: Mode, ports: u8, parameters: &str, port: &str) {
    let image = fs::read(image()).unwrap();
    let overlay = masking(&["NetworkManager", "networking"]);
    behind_a_switch(mode, ports, |switched| {
        let _dhcp = dhcp();
        let _http = serve_image(image, overlay, Duration::ZERO);
        let node = switched.node("e1000e").memory(2048);
        networkd_keeps(Debian::boot(node, switched.kernel(), parameters), port);
    });
}

/// Follows an ssh session until systemd-networkd has the port in hand, and some time longer.
fn networkd_keeps(mut node: Debian, port: &str) {
    node.machine.wait_for("login:").unwrap();
    let mut session = Session::open(&node.key);
    let started = Instant::now();
    let mut quiet = 0;
    while quiet < 5 {
        session.check(&node.machine);
        let setup = node.ssh(&format!("networkctl status {port} | grep State:"));
        assert!(started.elapsed() < Duration::from_secs(300), "{setup}");
        quiet = if setup.contains("(configured)") { quiet + 1 } else { 0 };
        thread::sleep(Duration::from_secs(1));
    }
    node.assert_one_address(port);
    let routes = node.ssh("ip -4 route show default");
    assert!(routes.contains(&format!("via 172.16.0.254 dev {port}")), "{routes}");
    session.check(&node.machine);
}

/// A node with the image's Debian.
struct Debian {
    machine: Machine,
    key: PathBuf,
    _folder: TempDir,
}

impl Debian {
    /// Powers the node on, and waits until stage 2 has it.
    fn boot(node: Node, (kernel, initramfs): (&Path, &Path), parameters: &str) -> Self {
        let (folder, transcript) = (tempfile::tempdir().unwrap(), Transcript::default());
        let cmdline = format!(
            "console=ttyS0,115200 net.ifnames=0 rootstream.onfail=poweroff {IMAGE} \
             rootstream.overlay=http://172.16.0.254/o.tar {parameters}"
        );
        let node = node.direct(kernel, initramfs, &cmdline);
        let mut machine = node.power_on(folder.path(), &transcript).unwrap();
        machine.wait_for("rootstream: switch_root: ").unwrap();
        Self { machine, key: build_dir().join("lab/site/keys/lab"), _folder: folder }
    }

    /// What a command prints in the node.
    fn ssh(&self, command: &str) -> String {
        ssh::run(&self.key, ADDRESS, command, Patience::with(1)).unwrap()
    }

    fn assert_one_address(&self, port: &str) {
        let addresses = self.ssh("ip -4 -o addr show scope global");
        assert!(addresses.lines().count() == 1, "{addresses}");
        assert!(
            addresses.contains(&format!(" {port} ")) && addresses.contains(&format!("inet {ADDRESS}/24")),
            "{addresses}"
        );
    }
}

/// An ssh session in which the node says every second that it lives, and at once when an address is taken away.
struct Session {
    ssh: Child,
    /// The lines, and when the last one came.
    heard: Arc<Mutex<(Vec<String>, Instant)>>,
}

impl Session {
    /// The longest silence of a node that is merely slow; a session whose address is gone says nothing at all.
    const SILENCE: Duration = Duration::from_secs(30);

    fn open(key: &Path) -> Self {
        let mut ssh = Command::new("ssh");
        ssh.args(ssh::arguments(key, ADDRESS));
        ssh.arg("ip -4 monitor address & while sleep 1; do cut -d' ' -f1 /proc/uptime; done");
        let mut ssh = ssh.stdout(Stdio::piped()).spawn().unwrap();
        let heard = Arc::new(Mutex::new((Vec::new(), Instant::now())));
        let (output, hears) = (ssh.stdout.take().unwrap(), Arc::clone(&heard));
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut heard = hears.lock().unwrap();
                heard.0.push(line);
                heard.1 = Instant::now();
            }
        });
        Self { ssh, heard }
    }

    /// Fails when the session has ended, hangs, or saw an address go.
    fn check(&mut self, machine: &Machine) {
        assert_eq!(self.ssh.try_wait().unwrap(), None, "the session ended; {}", machine.last_words());
        let heard = self.heard.lock().unwrap();
        assert!(heard.1.elapsed() < Self::SILENCE, "the session hangs; {}", machine.last_words());
        let gone = heard.0.iter().find(|line| line.starts_with("Deleted"));
        assert_eq!(gone, None, "{}", machine.last_words());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// Serves the image and the overlay; the image takes at least `time`.
fn serve_image(image: Vec<u8>, overlay: Vec<u8>, time: Duration) -> Server {
    const PIECES: u32 = 500;
    let address = "172.16.0.254:80".parse().unwrap();
    let serve = move |request: &Request, stream: &mut TcpStream| {
        if request.path == "/o.tar" {
            return answer(stream, "200 OK", &[], &overlay);
        }
        head(stream, "200 OK", &[], Some(image.len()))?;
        let started = Instant::now();
        for (piece, number) in image.chunks(image.len().div_ceil(PIECES as usize)).zip(1..) {
            stream.write_all(piece)?;
            thread::sleep((time * number / PIECES).saturating_sub(started.elapsed()));
        }
        Ok(())
    };
    Server::start_at(address, serve).unwrap()
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
