//! Virtual nodes that boot: one all the way from its firmware to ssh, and some that must not get that far.
//!
//! The failures start the kernel directly, with the initramfs that the lab's site serves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

use rootstream_lab::bound::Bound;
use rootstream_lab::machine::Machine;
use rootstream_lab::namespace::enter_private_network;
use rootstream_lab::network::tap_with;
use rootstream_lab::node::Node;
use rootstream_lab::packages::build_dir;
use rootstream_lab::transcript::Transcript;

/// The timeline of a whole boot, in the order a node takes it.
const STEPS: [&str; 11] =
    ["power-on", "DHCP", "TFTP", "kernel", "/init", "modules", "lease", "image", "switch_root", "login", "ssh"];

const MAC: &str = "52:54:00:ac:10:01";
const IMAGE: &str = "rootstream.image=http://172.16.0.254/i.tar";

#[test]
fn a_node_boots_from_firmware_to_ssh() {
    let output = make("boot");
    let steps: Vec<&str> = output.lines().filter_map(|line| line.split_once(" s  ")?.1.split(' ').next()).collect();
    assert_eq!(steps, STEPS);
    let (values, seconds) = output.lines().last().unwrap().split_once(" seconds=").unwrap();
    let expected = "boot: ok firmware=bios servers=rootstream nodes=1 power=lab trust=digest net=tap accel=tcg";
    assert_eq!(values, expected);
    assert!(seconds.parse::<u32>().unwrap() > 0);
}

// F2
#[test]
fn without_a_dhcp_server_a_node_says_so() {
    let message = in_private_network(|| boot_failure(&format!("{IMAGE} rootstream.dhcp=10s"), |_| ()));
    assert_eq!(message, [""]);
}

// F21
#[test]
fn an_image_that_is_not_there_is_named() {
    let message = in_private_network(|| {
        let _dhcp = dhcp();
        serve(|stream| respond(stream, "404 Not Found", b""));
        boot_failure(&format!("{IMAGE} rootstream.retry=5s"), |_| ())
    });
    assert_eq!(message, [""]);
}

// F61
#[test]
fn an_image_without_init_is_refused() {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o644);
    archive.append_data(&mut header, "etc/hostname", &b"n1"[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let message = in_private_network(move || {
        let _dhcp = dhcp();
        serve(move |stream| respond(stream, "200 OK", &archive));
        boot_failure(IMAGE, |_| ())
    });
    assert_eq!(message, [""]);
}

// F56
#[test]
fn a_worker_that_the_kernel_kills_is_reported() {
    let message = in_private_network(|| {
        let _dhcp = dhcp();
        let (asked, request) = mpsc::channel();
        // The image is held back: the worker waits for it when it dies.
        serve(move |stream| {
            let head = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
            head.and_then(|()| asked.send(stream.try_clone()?).map_err(std::io::Error::other)).unwrap();
        });
        boot_failure(&format!("{IMAGE} sysrq_always_enabled"), |machine| {
            let _held = request.recv().unwrap();
            // The kernel's out-of-memory killer, by hand.
            machine.sysrq(b'f').unwrap();
            machine.wait_for("boot failed").unwrap();
        })
    });
    assert_eq!(message, [""]);
}

/// Boots a node that powers off when it fails, runs `act` meanwhile, and returns the lines of its final
/// message.
fn boot_failure(parameters: &str, act: impl FnOnce(&mut Machine)) -> Vec<String> {
    let (kernel, initramfs) = bootstrap();
    let folder = tempfile::tempdir().unwrap();
    let transcript = Transcript::default();
    let cmdline = format!("console=ttyS0,115200 rootstream.onfail=poweroff {parameters}");
    let node = Node::new("n1").memory(512).nic("tap0", MAC).direct(kernel, initramfs, &cmdline);
    let mut machine = node.power_on(folder.path(), &transcript).unwrap();
    act(&mut machine);
    machine.wait_for("rootstream:   now: ").unwrap();
    machine.wait_for_end().unwrap();
    let lines =
        transcript.lines("n1").into_iter().filter_map(|line| Some(line.text.split_once("rootstream: ")?.1.to_owned()));
    lines.skip_while(|line| !line.starts_with("boot failed: ")).collect()
}

/// Runs `work` in a network namespace with the wire of one node, on a thread of its own: this one stays
/// in the machine's network.
fn in_private_network<T: Send>(work: impl FnOnce() -> T + Send) -> T {
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

/// A DHCP server for the node.
fn dhcp() -> Bound {
    let words = "--keep-in-foreground --conf-file=/dev/null --user=root --port=0 --no-resolv --no-hosts \
        --log-facility=/dev/null --dhcp-leasefile=/dev/null --interface=tap0 --bind-interfaces \
        --dhcp-range=172.16.0.1,172.16.0.1,255.255.255.0,1h";
    Bound::start("dnsmasq", |c| c.args(words.split_whitespace())).unwrap()
}

/// An HTTP server on the master's address whose every answer is `answer`'s, after the request was read.
fn serve(answer: impl Fn(&mut TcpStream) + Send + 'static) {
    let listener = TcpListener::bind("172.16.0.254:80").unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let head = BufReader::new(stream.try_clone().unwrap()).lines();
            assert!(head.map(Result::unwrap).any(|line| line.is_empty()), "a request without an end");
            answer(&mut stream);
        }
    });
}

fn respond(stream: &mut TcpStream, status: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
}

/// The kernel and the initramfs that the lab's nodes boot.
fn bootstrap() -> (&'static Path, &'static Path) {
    static FILES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let (kernel, initramfs) = FILES.get_or_init(|| {
        make("site");
        let folder = build_dir().join("lab/site/tftp/compute");
        let find = |start: &str| {
            let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(start);
            files.filter(named).max().unwrap_or_else(|| panic!("no {start}* in {}", folder.display()))
        };
        (find("vmlinuz-"), find("initramfs-"))
    });
    (kernel, initramfs)
}

/// Runs a target of the Makefile as a user would; passes on what it prints and returns its stdout.
fn make(target: &str) -> String {
    let mut make = Command::new("make");
    make.arg("--directory").arg(env!("CARGO_MANIFEST_DIR")).arg(target).stdout(Stdio::piped());
    // Of the make that runs this test, when there is one.
    let mut child = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").spawn().unwrap();
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
