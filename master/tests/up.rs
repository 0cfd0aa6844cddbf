//! The master's services on a private network, and their end.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{RELEASE, TestSite, image, shell, stderr};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rootstream_lab::namespace::{enter_private_network, ip};

const MASTER: &str = "172.16.0.254";
/// A busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A private network with the master's bridge, and on it the port of node n1.
fn network() {
    enter_private_network().unwrap();
    for words in [
        "link add br0 type bridge",
        "addr add 172.16.0.254/24 dev br0",
        "addr add fd00:ac10::1/64 dev br0 nodad",
        "link add port type veth peer name n1",
        "link set port master br0",
        "link set n1 address 52:54:00:ac:10:01",
        "link set br0 up",
        "link set port up",
        "link set n1 up",
    ] {
        ip(words).unwrap();
    }
}

fn site() -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/24");
    site.done(&["node", "add", "n1", "--mac", "52:54:00:ac:10:01", "--ip", "172.16.0.1", "--parameters", "own=1"]);
    site.done(&["node", "add", "n2", "--mac", "52:54:00:AC:10:02", "--ip", "172.16.0.2", "--image", "other"]);
    site.built("compute", &image(&[]));
    site.done(&["image", "publish", "compute"]);
    fs::write(site.path("agent"), "agent").unwrap();
    site.done(&["bootstrap", "compute", "--init", site.path("agent").to_str().unwrap()]);
    let optional = ["ipv6_prefix", "gateway", "dns", "domain"];
    let config = site.read("site.toml");
    let config = optional.iter().fold(config, |text, key| text.replace(&format!("# {key} ="), &format!("{key} =")));
    fs::write(site.path("site.toml"), config).unwrap();
    site
}

/// A running `up`; killed with the test that fails.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Up {
    /// Starts it and waits for its line.
    fn start(site: &TestSite) -> Self {
        Self::start_by(site, site.command())
    }

    fn start_by(site: &TestSite, mut command: Command) -> Self {
        let log = fs::File::create(site.path("up.err")).unwrap();
        let child = command.arg("up").stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut up = Self(child);
        let mut line = String::new();
        BufReader::new(up.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(
            line,
            "up: ready dhcp=br0 tftp=172.16.0.254:69 http=http://172.16.0.254:80/ nodes=2\n",
            "{}",
            site.read("up.err")
        );
        up
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// The time that it has computed, in hundredths of a second (proc_pid_stat(5)).
    fn cpu(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    fn children(&self) -> Vec<String> {
        let pid = self.0.id();
        let mut all = Vec::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().map(str::to_owned));
        }
        all
    }
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The name of the build whose file publishing printed.
fn build(file: &str) -> &str {
    file.trim().rsplit('/').next().unwrap().split('.').next().unwrap()
}

fn is_alive(pid: &str) -> bool {
    // A zombie has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn curl(url: &str) -> String {
    let output = Command::new("curl").args(["-sS", "-f", "-m", "20", url]).output().unwrap();
    assert!(output.status.success(), "{url}: {}", stderr(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Takes a lease as a BIOS network card does; returns what the client learnt, `name=value` a line.
fn udhcpc(script: &Path, lease: &Path) -> String {
    let output = Command::new("busybox")
        .args(["udhcpc", "-i", "n1", "-n", "-q", "-f", "-t", "20", "-T", "1", "-x", "0x5d:0000", "-V", "PXEClient"])
        .args(["-O", "hostname", "-s"])
        .arg(script)
        .env("LEASE", lease)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    fs::read_to_string(lease).unwrap()
}

// F17, M19
#[test]
fn dhcp_tftp_and_http_answer_and_all_of_it_ends_cleanly() {
    network();
    let site = site();
    let mut up = Up::start(&site);

    // dnsmasq's own opinion of what we wrote.
    let test = shell("PATH=$PATH:/usr/sbin dnsmasq --test --conf-file=\"$1\" 2>&1", &site.path("run/dnsmasq.conf"));
    assert!(test.contains("syntax check OK"), "{test}");
    // The system's own dnsmasq, if it has one, is told by this file.
    let recorded = fs::read_to_string("/run/dnsmasq.pid").unwrap_or_default();
    assert!(!up.children().iter().any(|pid| pid == recorded.trim()), "{recorded}");

    // How `up` found out that it answers is nothing to worry about.
    eventually("the sign of life", || site.read("log/dnsmasq.log").contains("pxelinux.cfg/default to 172.16.0.254"));
    let log = site.read("log/dnsmasq.log");
    assert!(!log.contains("fail") && !log.contains("error"), "{log}");

    // DHCP: a real client on n1's port gets n1's address and name, and the name of the boot loader.
    let script = site.path("lease.sh");
    fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && env > \"$LEASE\"\nexit 0\n").unwrap();
    shell("chmod +x \"$1\"", &script);
    let lease = site.path("lease");
    let leased = udhcpc(&script, &lease);
    for line in ["ip=172.16.0.1", "hostname=n1", "subnet=255.255.255.0", "router=172.16.0.254", "lease=3600"] {
        assert!(leased.lines().any(|l| l == line), "{line} is not in {leased}");
    }
    assert!(leased.contains("boot_file=pxelinux.0") && leased.contains("siaddr=172.16.0.254"), "{leased}");
    assert!(site.read("log/dnsmasq.log").contains("DHCPACK(br0) 172.16.0.1 52:54:00:ac:10:01 n1"));

    // DNS, as the site names the master for it.
    let asked = Command::new("busybox").args(["nslookup", "n2.cluster.example.org", MASTER]).output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stdout).contains("Address: 172.16.0.2\n"), "{asked:?}");

    // TFTP: the loader, the menus, the kernel.
    let tftp = |path: &str| curl(&format!("tftp://{MASTER}/{path}"));
    assert!(tftp("pxelinux.0").len() > 10_000);
    assert!(tftp("ldlinux.c32").len() > 10_000);
    let menu = tftp("pxelinux.cfg/01-52-54-00-ac-10-01");
    assert!(menu.starts_with("SERIAL 0 115200\nDEFAULT linux\n"), "{menu}");
    assert!(menu.contains(&format!("KERNEL compute/vmlinuz-{RELEASE}\n")), "{menu}");
    assert!(menu.contains("console=ttyS0,115200 net.ifnames=0 own=1\n  IPAPPEND 2\n"), "{menu}");
    assert_eq!(tftp(&format!("compute/vmlinuz-{RELEASE}")), "kernel".repeat(1000));
    assert!(!tftp("pxelinux.cfg/default").contains("own=1"));
    let other = tftp("pxelinux.cfg/01-52-54-00-ac-10-02");
    assert!(other.contains("SAY rootstream: node n2: the image other is not published"), "{other}");

    // HTTP: the very URL of the menu.
    let url = menu.split_whitespace().find_map(|word| word.strip_prefix("rootstream.image=")).unwrap();
    let digest = menu.split_whitespace().find_map(|word| word.strip_prefix("rootstream.sha256=")).unwrap();
    let image = site.path("downloaded");
    let output = Command::new("curl").args(["-sSf", "-m", "20", url, "-o"]).arg(&image).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(shell("sha256sum < \"$1\"", &image).split_whitespace().next(), Some(digest));

    // SIGHUP: a node more, a build more; a mistake changes nothing.
    site.done(&["node", "add", "n3", "--mac", "52:54:00:ac:10:03", "--ip", "172.16.0.3"]);
    let newer = site.done(&["image", "publish", "compute"]);
    up.signal(Signal::SIGHUP);
    eventually("it reads its nodes again", || site.read("up.err").contains("read again: 3 nodes"));
    assert!(tftp("pxelinux.cfg/01-52-54-00-ac-10-03").contains(&format!("/{}.json ", build(&newer))));
    ip("link set n1 address 52:54:00:ac:10:03").unwrap();
    eventually("n3 gets its address", || udhcpc(&script, &lease).contains("ip=172.16.0.3\n"));
    fs::write(site.path("nodes.toml"), "[[nod]]\n").unwrap();
    up.signal(Signal::SIGHUP);
    eventually("the mistake is shown", || site.read("up.err").contains("nodes.toml:1: unknown field `nod`"));
    assert!(tftp("pxelinux.cfg/01-52-54-00-ac-10-03").starts_with("SERIAL"));

    // Without a signal, too: what changed is noticed, and again a mistake changes nothing.
    fs::write(
        site.path("nodes.toml"),
        "[[node]]\nname = 'n4'\nmac = '52:54:00:ac:10:04'\nip = '172.16.0.4'\nimage = 'compute'\n",
    )
    .unwrap();
    let fourth = || site.path("tftp/pxelinux.cfg/01-52-54-00-ac-10-04");
    eventually("it notices", || fourth().exists() && !site.path("tftp/pxelinux.cfg/01-52-54-00-ac-10-03").exists());
    let newest = site.done(&["image", "publish", "compute"]);
    eventually("it notices a build", || fs::read_to_string(fourth()).unwrap().contains(build(&newest)));
    let configured = site.read("site.toml");
    fs::write(site.path("site.toml"), configured.replace("172.16.0.254/24", "172.16.0.253/24")).unwrap();
    eventually("it says what it cannot change", || {
        site.read("up.err").contains("[network] and [http] are read at the start only")
    });
    fs::write(site.path("site.toml"), format!("# only a comment\n{configured}")).unwrap();
    eventually("it is content again", || site.read("up.err").trim_end().ends_with("read again: 1 nodes"));

    // The end: exit 0, dnsmasq gone, ports free.
    let children = up.children();
    assert_eq!(children.len(), 1, "{children:?}");
    up.signal(Signal::SIGTERM);
    assert_eq!(up.0.wait().unwrap().code(), Some(0), "{}", site.read("up.err"));
    assert!(!is_alive(&children[0]));
    let left = Command::new("ss").args(["-Hlntu"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "nothing listens any more");
}

// F34
#[test]
fn nodes_with_a_key_get_signed_builds_only() {
    network();
    let site = site();
    let up = Up::start(&site);
    let menu = || curl(&format!("tftp://{MASTER}/pxelinux.cfg/01-52-54-00-ac-10-01"));
    // It may have noticed by itself before the signal.
    let again = || {
        let said = || site.read("up.err").matches("read again").count();
        let before = said();
        up.signal(Signal::SIGHUP);
        eventually("it reads again", || said() > before);
        menu()
    };
    assert!(menu().contains(" rootstream.sha256="), "{}", menu());
    site.done(&["key", "new"]);
    assert!(again().contains(" rootstream.sha256="), "the initramfs has no key yet");
    assert!(site.read("up.err").contains("does not have the keys that are in keys/"), "{}", site.read("up.err"));
    site.done(&["bootstrap", "compute", "--init", site.path("agent").to_str().unwrap()]);
    let refusal = again();
    assert!(refusal.contains("it is not signed") && refusal.contains("LOCALBOOT"), "{refusal}");
    let file = site.done(&["image", "publish", "compute"]);
    let signed = again();
    let url = format!("http://{MASTER}/images/compute/{}.json", build(&file));
    assert!(signed.contains(&format!("rootstream.image={url} ")) && !signed.contains("sha256"), "{signed}");
    let folder = site.path("downloaded");
    fs::create_dir(&folder).unwrap();
    for name in ["m.json", "m.json.minisig"] {
        fs::write(folder.join(name), curl(&format!("{url}{}", name.strip_prefix("m.json").unwrap()))).unwrap();
    }
    shell("minisign -V -p \"$1/../keys/site.pub\" -m \"$1/m.json\"", &folder);
}

#[test]
fn a_killed_master_leaves_no_dnsmasq_behind() {
    network();
    let site = site();
    let up = Up::start(&site);
    let children = up.children();
    assert!(is_alive(&children[0]));
    up.signal(Signal::SIGKILL);
    eventually("dnsmasq ends with its master", || !is_alive(&children[0]));
}

#[test]
fn a_dead_dnsmasq_ends_the_services_with_its_message() {
    network();
    let site = site();
    let mut up = Up::start(&site);
    kill(Pid::from_raw(up.children()[0].parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(up.0.wait().unwrap().code(), Some(1));
    let said = site.read("up.err");
    assert!(said.contains("dnsmasq ended (signal: 9"), "{said}");
}

#[test]
fn taken_ports_and_missing_ports_are_named() {
    network();
    let site = site();
    let fails = |site: &TestSite| {
        let output = site.run(&["up"]);
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let taken = std::net::TcpListener::bind((MASTER, 80)).unwrap();
    let said = fails(&site);
    assert!(said.contains("listening on 172.16.0.254:80 for HTTP"), "{said}");
    // A process that another test starts at this moment may hold it too, until its own program begins.
    assert!(said.contains("stop its holder (\"") && said.contains(",pid="), "who holds it: {said}");
    drop(taken);
    let taken = std::net::UdpSocket::bind("0.0.0.0:67").unwrap();
    let said = fails(&site);
    assert!(said.contains("starting DHCP on br0") && said.contains("Address already in use"), "{said}");
    assert!(!site.path("tftp/pxelinux.cfg").exists(), "another's menus are not touched");
    drop(taken);
    ip("address del 172.16.0.254/24 dev br0").unwrap();
    let said = fails(&site);
    assert!(said.contains("ip address add 172.16.0.254/PREFIX dev br0"), "{said}");
    ip("link del br0").unwrap();
    let said = fails(&site);
    assert!(said.contains("there is no network interface br0, which site.toml names"), "{said}");
    assert!(said.contains("ip link add br0 type bridge && ip address add 172.16.0.254/24 dev br0"), "{said}");
}

// M4-5
#[test]
fn without_file_descriptors_it_neither_spins_nor_stops() {
    network();
    let site = site();
    // Fewer than for the least number of connections and all that are told to come back.
    let mut command = Command::new("prlimit");
    command.arg("--nofile=140:140").arg(common::program()).arg("--site").arg(site.path(""));
    let up = Up::start_by(&site, command);
    let held: Vec<_> = (0..300).map(|_| std::net::TcpStream::connect((MASTER, 80)).unwrap()).collect();
    let log = site.path("up.err");
    eventually("it has none left", || fs::read_to_string(&log).unwrap().contains("Too many open files"));
    let before = up.cpu();
    std::thread::sleep(Duration::from_secs(1));
    let took = up.cpu() - before;
    assert!(took < 50, "{took} hundredths of a second");
    drop(held);
    let url = format!("http://{MASTER}/images/compute/latest.json");
    let answers = || Command::new("curl").args(["-sf", "-m", "5", "-o", "/dev/null", &url]).status().unwrap().success();
    eventually("it answers again", answers);
}

// M6
#[test]
fn a_transfer_under_way_may_end_before_the_server_does() {
    network();
    let site = site();
    fs::create_dir_all(site.path("store/slow")).unwrap();
    fs::write(site.path("store/slow/image"), vec![7; 30_000_000]).unwrap();
    let mut up = Up::start(&site);
    let mut stream = std::net::TcpStream::connect((MASTER, 80)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /images/slow/image HTTP/1.1\r\nHost: m\r\n\r\n").unwrap();
    let mut first = [0; 100];
    stream.read_exact(&mut first).unwrap();
    up.signal(Signal::SIGTERM);
    let log = site.path("up.err");
    eventually("it says that it stops", || fs::read_to_string(&log).unwrap().contains("stopping"));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > 30_000_000, "{}", rest.len());
    assert_eq!(up.0.wait().unwrap().code(), Some(0));
    assert!(Path::new(&site.path("log/http.log")).exists());
    assert!(site.read("log/http.log").contains(" 200 30000000 "));
}
