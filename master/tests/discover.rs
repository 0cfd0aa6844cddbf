//! Machines that nobody knows become nodes, with a real dnsmasq that they ask.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{TestSite, stderr};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rootstream_lab::namespace::{enter_private_network, ip};

/// A busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
const PXE: &str = "PXEClient:Arch:00007:UNDI:003016";

/// A running program; killed with the test that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn network() {
    enter_private_network().unwrap();
    for words in [
        "link add br0 type bridge",
        "addr add 172.16.0.254/24 dev br0",
        "link add port type veth peer name n1",
        "link set port master br0",
        "link set br0 up",
        "link set port up",
        "link set n1 up",
    ] {
        ip(words).unwrap();
    }
}

/// A site whose DHCP serves known machines only, and its `up`.
fn up() -> (TestSite, Running) {
    let site = TestSite::new("br0", "172.16.0.254/24");
    let config = site.read("site.toml").replace("\nrange =", "\n# range =").replace("# dns =", "dns =");
    fs::write(site.path("site.toml"), config).unwrap();
    let log = fs::File::create(site.path("up.err")).unwrap();
    let mut up = Running(site.command().arg("up").stdout(Stdio::piped()).stderr(log).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(up.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("up: ready"), "{}", site.read("up.err"));
    (site, up)
}

/// Asks for an address from the port `mac`; returns what the server gave.
fn asks(mac: &str, vendor_class: &str) -> Option<String> {
    ip(&format!("link set n1 address {mac}")).unwrap();
    let output = Command::new("busybox")
        .args(["udhcpc", "-i", "n1", "-n", "-q", "-f", "-t", "2", "-T", "1", "-s", "/bin/true", "-V", vendor_class])
        .output()
        .unwrap();
    let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    let lease = said.split("lease of ").nth(1)?;
    lease.split_whitespace().next().map(|word| word.trim_end_matches(',').to_owned())
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn macs(site: &TestSite) -> Vec<(String, String)> {
    let nodes: serde_json::Value = serde_json::from_str(&site.done(&["node", "list", "--json"])).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    nodes.as_array().unwrap().iter().map(|node| (text(&node["name"]), text(&node["mac"]))).collect()
}

#[test]
fn unknown_machines_become_nodes_in_the_order_in_which_they_asked() {
    network();
    let (site, up) = up();
    let bmc = "52:54:00:ac:20:01";
    assert_eq!(asks(bmc, "udhcp 1.35.0"), None);
    assert_eq!(asks("52:54:00:ac:10:0b", PXE), None);
    assert_eq!(asks("52:54:00:ac:10:0a", "PXEClient:Arch:00000:UNDI:002001"), None);

    let listed = site.done(&["node", "discover", "--json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    let seen: Vec<&str> = listed.iter().map(|one| one["mac"].as_str().unwrap()).collect();
    assert_eq!(seen, [bmc, "52:54:00:ac:10:0b", "52:54:00:ac:10:0a"]);
    assert_eq!((&listed[1]["count"], &listed[1]["vendor_class"]), (&2.into(), &PXE.into()));
    let table = site.done(&["node", "discover"]);
    assert!(table.contains("UEFI") && table.contains("BIOS") && table.contains("udhcp 1.35.0"), "{table}");

    // Nobody is there to confirm.
    let output = site
        .command()
        .args(["node", "discover", "--add", "n1", "--ip", "172.16.0.1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(stderr(&output).contains("no terminal to ask on"), "{}", stderr(&output));
    // What cannot be is said at once.
    let output = site.run(&["node", "discover", "--add", "n[1-2]", "--ip", "172.16.0.253", "--yes"]);
    assert!(stderr(&output).contains("172.16.0.254 of n2 is the master's own"), "{}", stderr(&output));
    assert_eq!(macs(&site), []);

    // Two of the three nodes: one is there without a MAC; the BMC does not ask to boot.
    site.done(&["node", "add", "n1", "--ip", "172.16.0.11", "--bmc-ip", "172.16.0.101"]);
    let output = site.run(&["node", "discover", "--add", "n[1-3]", "--ip", "172.16.0.1", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("n3 got no MAC"), "{}", stderr(&output));
    let expected =
        [("n1", "52:54:00:ac:10:0b"), ("n2", "52:54:00:ac:10:0a")].map(|(n, m)| (n.to_owned(), m.to_owned()));
    assert_eq!(macs(&site), expected);
    let added = site.done(&["node", "discover", "--add", "n1", "--bmc", "--yes"]);
    assert_eq!(added, format!("n1: {bmc}, the BMC 172.16.0.101\n"));
    assert_eq!(site.done(&["node", "discover"]).lines().count(), 1, "nobody is unknown any more");

    // A running `up` gives them their addresses, and their names.
    kill(Pid::from_raw(up.0.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
    eventually("it reads its nodes again", || site.read("up.err").contains("read again: 2 nodes"));
    eventually("n1 has its address", || asks("52:54:00:ac:10:0b", PXE).as_deref() == Some("172.16.0.11"));
    assert_eq!(asks("52:54:00:ac:10:0a", PXE).as_deref(), Some("172.16.0.2"));
    assert_eq!(asks(bmc, "udhcp 1.35.0").as_deref(), Some("172.16.0.101"));
    let asked = Command::new("busybox").args(["nslookup", "n1-bmc", "172.16.0.254"]).output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stdout).contains("Address: 172.16.0.101\n"), "{asked:?}");
    assert!(site.path("tftp/pxelinux.cfg/01-52-54-00-ac-10-0b").exists());
    assert!(!site.path("tftp/pxelinux.cfg/01-52-54-00-ac-20-01").exists());
}

#[test]
fn a_terminal_confirms_each_and_waits_for_those_who_come() {
    network();
    let (site, _up) = up();
    asks("52:54:00:ac:10:0a", PXE);
    let line = format!(
        "{} --site {} node discover --add n[1-2] --ip 172.16.0.1 --watch --new",
        common::program().display(),
        site.path("").display()
    );
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stderr(Stdio::null());
    let said = fs::File::create(site.path("said")).unwrap();
    let mut child = Running(script.stdout(said).spawn().unwrap());
    let mut keys = child.0.stdin.take().unwrap();
    // A machine that asks before that is not new.
    eventually("it waits", || site.read("said").contains("waiting for machines"));
    for (mac, question, answer) in [
        ("52:54:00:ac:10:0b", "0b (UEFI, first asked", "n\n"),
        ("52:54:00:ac:10:0c", "0c (UEFI, first asked", "y\n"),
        ("52:54:00:ac:10:0d", "is n2? yes, no or quit", "\n"),
    ] {
        asks(mac, PXE);
        eventually(question, || site.read("said").contains(question));
        keys.write_all(answer.as_bytes()).unwrap();
    }
    assert!(child.0.wait().unwrap().success(), "{}", site.read("said"));
    let expected =
        [("n1", "52:54:00:ac:10:0c"), ("n2", "52:54:00:ac:10:0d")].map(|(n, m)| (n.to_owned(), m.to_owned()));
    assert_eq!(macs(&site), expected);
    assert!(!site.read("said").contains("10:0a"), "it asked before");
}
