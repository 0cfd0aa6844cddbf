//! What the tests with virtual nodes share.

// Each test program uses its part.
#![allow(dead_code)]

pub(crate) mod switched;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use rootstream_lab::bound::Bound;
use rootstream_lab::faulty::{Server, answer};
use rootstream_lab::generic;
use rootstream_lab::machine::Machine;
use rootstream_lab::namespace::enter_private_network;
use rootstream_lab::network::tap_with;
use rootstream_lab::node::Node;
use rootstream_lab::packages::build_dir;
use rootstream_lab::switch::Firmware;
use rootstream_lab::transcript::Transcript;
use tempfile::TempDir;

pub(crate) const MAC: &str = "52:54:00:ac:10:01";
/// The last line of the message of a boot that failed.
pub(crate) const NOW: &str = "  now: switching off (rootstream.onfail=)";
/// The agent that `make init` builds and the lab's nodes boot.
pub(crate) const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/x86_64-unknown-linux-musl/release/init");
/// The companion that `make lab` builds.
pub(crate) const COMPANION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/debug/rootstream");
/// Served without a signature, which these nodes would ask for.
pub(crate) const IMAGE: &str = "rootstream.image=http://172.16.0.254/i.tar rootstream.unsigned";

/// Boots a node that powers off when it fails, runs `act` meanwhile, and returns the lines of its final
/// message.
pub(crate) fn boot_failure(parameters: &str, act: impl FnOnce(&mut Machine)) -> Vec<String> {
    let (kernel, initramfs) = bootstrap();
    let node = Node::new("n1").memory(512).nic("tap0", MAC);
    let lines = lines_of_failure(node, (kernel, initramfs), parameters, act);
    lines.into_iter().skip_while(|line| !line.starts_with("boot failed: ")).collect()
}

/// The same for any node and kernel, with all that the agent logged.
pub(crate) fn lines_of_failure(
    node: Node,
    (kernel, initramfs): (&Path, &Path),
    parameters: &str,
    act: impl FnOnce(&mut Machine),
) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let transcript = Transcript::default();
    let cmdline = format!("console=ttyS0,115200 rootstream.onfail=poweroff {parameters}");
    let node = node.direct(kernel, initramfs, &cmdline);
    let mut machine = node.power_on(folder.path(), &transcript).unwrap();
    act(&mut machine);
    machine.wait_for("rootstream:   now: ").unwrap();
    machine.wait_for_end().unwrap();
    let lines = transcript.lines("n1").into_iter();
    lines.filter_map(|line| Some(line.text.split_once("rootstream: ")?.1.to_owned())).collect()
}

/// A node on its way into the [`small_image`].
pub(crate) struct Boot {
    pub(crate) machine: Machine,
    transcript: Transcript,
    _folder: TempDir,
}

impl Boot {
    /// Powers the node on.
    pub(crate) fn start(node: Node, (kernel, initramfs): (&Path, &Path), parameters: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let transcript = Transcript::default();
        let cmdline = format!("console=ttyS0,115200 rootstream.onfail=poweroff {parameters}");
        let node = node.direct(kernel, initramfs, &cmdline);
        let machine = node.power_on(folder.path(), &transcript).unwrap();
        Self { machine, transcript, _folder: folder }
    }

    /// Waits until the image's init has said all and switched the node off. Returns what the agent said, and what the
    /// init said.
    pub(crate) fn finish(mut self) -> (Vec<String>, Vec<String>) {
        self.machine.wait_for("stage 2: done").unwrap();
        self.machine.wait_for_end().unwrap();
        let lines = self.transcript.lines("n1");
        // Kept by libtest for tests that fail.
        lines.iter().for_each(|line| println!("{}", line.text));
        let said = |who: &str| {
            let lines = lines.iter();
            lines.filter_map(|line| Some(line.text.split_once(who)?.1.trim_end().to_owned())).collect()
        };
        (said("rootstream: "), said("stage 2: "))
    }
}

/// The seconds in the line of the agent that begins with `start`, between these words and ` s`.
pub(crate) fn seconds(lines: &[String], start: &str, before: &str) -> f32 {
    let line = lines.iter().find(|line| line.starts_with(start) && line.contains(before));
    let line = line.unwrap_or_else(|| panic!("no {start}{before}: {lines:#?}"));
    let number = line.split_once(before).unwrap().1.split(' ').next().unwrap();
    number.parse().unwrap_or_else(|_| panic!("no seconds in {line}"))
}

/// An image with no more than busybox and an init, which says what addresses and bonds stage 1 left, whether the master
/// can be reached by way of them, and switches the node off.
pub(crate) fn small_image() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, kind: tar::EntryType, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        archive.append_data(&mut header, path, data).unwrap();
    };
    for folder in ["bin", "dev", "proc", "run", "sbin", "sys"] {
        add(folder, 0o755, tar::EntryType::Directory, b"");
    }
    for program in ["bin/busybox", "bin/sh"] {
        add(program, 0o755, tar::EntryType::Regular, &fs::read("/bin/busybox").unwrap());
    }
    add("sbin/init", 0o755, tar::EntryType::Regular, INIT.as_bytes());
    archive.into_inner().unwrap()
}

const INIT: &str = r#"#!/bin/sh
# The console's own lines come between others, but whole.
say() { while read -r line; do echo "stage 2: $line"; done; }
busybox ip -o addr show scope global | say
for bond in /proc/net/bonding/*; do [ ! -e "$bond" ] || busybox cat "$bond" | say; done
master=$(busybox sed -n 's,.*rootstream.image=http://\([^/]*\)/.*,\1,p' /proc/cmdline)
busybox wget -q -O - "http://$master/hello" 2>&1 | say
echo "stage 2: done"
busybox poweroff -f
"#;

/// Serves the [`small_image`], and what its init asks for, on the master's address.
pub(crate) fn serve_small_image() -> Server {
    serve_small_image_at("172.16.0.254:80".parse().unwrap())
}

/// The same on another one.
pub(crate) fn serve_small_image_at(address: SocketAddr) -> Server {
    let image = small_image();
    Server::start_at(address, move |request, stream| {
        let body = if request.path == "/hello" { b"hello from the master\n" } else { image.as_slice() };
        answer(stream, "200 OK", &[], body)
    })
    .unwrap()
}

/// Runs `work` in a network namespace with the wire of one node, on a thread of its own: this one stays
/// in the machine's network.
pub(crate) fn in_private_network<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // Built first, where the network is.
    bootstrap();
    thread::scope(|scope| {
        let enclosed = scope.spawn(|| {
            enter_private_network().unwrap();
            tap_with("tap0", &["172.16.0.254/24"]).unwrap();
            work()
        });
        enclosed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A DHCP server for the node, which does not probe addresses first.
pub(crate) fn dhcp() -> Bound {
    let words = "--keep-in-foreground --conf-file=/dev/null --user=root --port=0 --no-resolv --no-hosts --no-ping \
        --log-facility=/dev/null --dhcp-leasefile=/dev/null --interface=tap0 --bind-interfaces \
        --dhcp-range=172.16.0.1,172.16.0.1,255.255.255.0,1h";
    Bound::start("dnsmasq", |c| c.args(words.split_whitespace())).unwrap()
}

/// An HTTP server on the master's address.
pub(crate) fn serve(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Server {
    let address = SocketAddr::from(([172, 16, 0, 254], 80));
    Server::start_at(address, move |_, stream| answer(stream)).unwrap()
}

/// The kernel and the initramfs that the lab's nodes boot.
pub(crate) fn bootstrap() -> (&'static Path, &'static Path) {
    static FILES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let (kernel, initramfs) = FILES.get_or_init(|| {
        make("site");
        let folder = build_dir().join("lab/site/tftp/compute");
        let starting = |start: &'static str| find(&folder, move |name| name.starts_with(start));
        (starting("vmlinuz-"), starting("initramfs-"))
    });
    (kernel, initramfs)
}

/// Debian's kernel for every machine, with an initramfs in which this list of modules is, or the list that comes with
/// rootstream. To be called where the network is.
pub(crate) fn generic_kernel(modules: Option<&str>) -> (PathBuf, PathBuf) {
    // One test makes it, and others that run at the same time wait for that.
    static MADE: Mutex<BTreeMap<&str, (PathBuf, PathBuf)>> = Mutex::new(BTreeMap::new());
    bootstrap();
    let name = if modules.is_some() { "generic-own" } else { "generic" };
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let folder = build_dir().join("lab").join(name);
        generic::bootstrap(Path::new(COMPANION), Path::new(AGENT), &folder, modules).unwrap()
    };
    made.entry(name).or_insert_with(make).clone()
}

/// The kernel and the initramfs of switches. To be called where the network is.
pub(crate) fn switch_firmware() -> &'static Firmware {
    static MADE: OnceLock<Firmware> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = build_dir().join("lab/switch");
        fs::create_dir_all(&folder).unwrap();
        Firmware::make(&folder).unwrap()
    })
}

/// The last file of a folder, by name, whose name is a wanted one.
pub(crate) fn find(folder: &Path, wanted: impl Fn(&str) -> bool) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = files.filter(|entry| wanted(&entry.file_name().to_string_lossy())).map(|entry| entry.path());
    named.max().unwrap_or_else(|| panic!("what the lab needs is not in {}", folder.display()))
}

/// Runs a target of the Makefile, with variables perhaps, as a user would; passes on what it prints and returns its stdout.
pub(crate) fn make(target: &str) -> String {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).args(target.split(' ')).stdout(Stdio::piped());
    // Of the make that runs this test, when there is one.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    // What cargo says about this test would make ring, and all that needs it, be built again: its build script looks
    // at that.
    let of_this_test = |name: &str| {
        ["CARGO", "OUT_DIR"].contains(&name) || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for (name, _) in std::env::vars().filter(|(name, _)| of_this_test(name)) {
        make.env_remove(name);
    }
    let mut child = make.spawn().unwrap();
    let mut output = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        println!("{line}");
        output.push_str(&line);
        output.push('\n');
    }
    assert!(child.wait().unwrap().success(), "make {target} failed");
    output
}
