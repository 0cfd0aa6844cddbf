//! Virtual nodes that boot: one all the way from its firmware to ssh, and some that must not get that far.
//!
//! The failures start the kernel directly, with the initramfs that the lab's site serves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use common::published::from_store_at_most;
use rootstream::handover::Elf;
use rootstream_lab::bound::Bound;
use rootstream_lab::faulty::{Server, answer, head};
use rootstream_lab::machine::Machine;
use rootstream_lab::namespace::enter_private_network;
use rootstream_lab::network::tap_with;
use rootstream_lab::node::Node;
use rootstream_lab::packages::build_dir;
use rootstream_lab::transcript::Transcript;
use rootstream_lab::tree::{compare_trees, walk};

/// The timeline of a whole boot, in the order a node takes it.
const STEPS: [&str; 11] =
    ["power-on", "DHCP", "TFTP", "kernel", "/init", "modules", "lease", "image", "switch_root", "login", "ssh"];

const MAC: &str = "52:54:00:ac:10:01";
/// The last line of every message here.
const NOW: &str = "  now: switching off (rootstream.onfail=)";
/// The agent that `make init` builds and the lab's nodes boot.
const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/x86_64-unknown-linux-musl/release/init");
/// Served without a signature, which these nodes would ask for.
const IMAGE: &str = "rootstream.image=http://172.16.0.254/i.tar rootstream.unsigned";

#[test]
fn a_node_boots_from_firmware_to_ssh() {
    let output = make("boot");
    let steps: Vec<&str> = output.lines().filter_map(|line| line.split_once(" s  ")?.1.split(' ').next()).collect();
    assert_eq!(steps, STEPS);
    let (values, seconds) = output.lines().last().unwrap().split_once(" seconds=").unwrap();
    let expected = "boot: ok firmware=bios servers=rootstream nodes=1 power=lab trust=signed net=tap accel=tcg";
    assert_eq!(values, expected);
    assert!(seconds.parse::<u32>().unwrap() > 0);
}

// The image is a squashfs then, published, verified, and mounted under an overlay in the node.
#[test]
fn a_node_boots_from_a_squashfs() {
    let output = make("boot IMAGE=squashfs");
    let line = output.lines().last().unwrap();
    assert!(line.starts_with("boot: ok ") && line.contains(" image=squashfs "), "{line}");
}

// F2
#[test]
fn without_a_dhcp_server_a_node_says_so() {
    let message = in_private_network(|| boot_failure(&format!("{IMAGE} rootstream.dhcp=10s"), |_| ()));
    let [what, why, todo, now] = message.try_into().unwrap();
    assert_eq!(what, format!("boot failed: no DHCP server answered on eth0 ({MAC})"));
    assert!(why.starts_with(&format!("  why: eth0 ({MAC}, virtio_net): carrier after ")), "{why}");
    assert!(why.ends_with(" DISCOVERs sent, 0 DHCP frames received, servers seen: none"), "{why}");
    let expected = format!(
        "  what to do: check that a DHCP server runs for this network and knows {MAC}, that the switch port is in \
         the right VLAN and forwards at once (spanning tree); rootstream.dhcp= waits longer than 10 s"
    );
    assert_eq!((todo, now), (expected, NOW.into()));
}

// F21
#[test]
fn an_image_that_is_not_there_is_named() {
    let message = in_private_network(|| {
        let _dhcp = dhcp();
        let _http = serve(|stream| answer(stream, "404 Not Found", &[], b""));
        boot_failure(&format!("{IMAGE} rootstream.retry=5s"), |_| ())
    });
    let expected = [
        "boot failed: installing the image http://172.16.0.254/i.tar",
        "  why: fetching http://172.16.0.254/i.tar: the server answered 404 Not Found",
        "  what to do: check the URL, the server and the network to it; tried for 5 s (rootstream.retry=)",
        NOW,
    ];
    assert_eq!(message, expected);
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
        let _http = serve(move |stream| answer(stream, "200 OK", &[], &archive));
        boot_failure(IMAGE, |_| ())
    });
    let expected = [
        "boot failed: the image http://172.16.0.254/i.tar has no usable init at /sbin/init",
        "  why: /sbin/init is not there: No such file or directory (os error 2)",
        "  what to do: put an init into the image (package systemd-sysv, say), or name another with init=",
        NOW,
    ];
    assert_eq!(message, expected);
}

// F56
#[test]
fn a_worker_that_the_kernel_kills_is_reported() {
    let message = in_private_network(|| {
        let _dhcp = dhcp();
        let (asked, request) = mpsc::channel();
        // The image is held back: the worker waits for it when it dies.
        let _http = serve(move |stream| {
            head(stream, "200 OK", &[], Some(1 << 20))?;
            asked.send(stream.try_clone()?).map_err(std::io::Error::other)
        });
        boot_failure(&format!("{IMAGE} sysrq_always_enabled"), |machine| {
            let _held = request.recv_timeout(Duration::from_secs(300)).unwrap();
            // The kernel's out-of-memory killer, by hand.
            machine.sysrq(b'f').unwrap();
            machine.wait_for("boot failed").unwrap();
        })
    });
    let [what, why, todo, now] = message.try_into().unwrap();
    assert_eq!(what, "boot failed: the process that boots the node died");
    let start = "  why: it was killed (SIGKILL), most likely because memory ran out; MemTotal: ";
    assert!(why.starts_with(start) && why.ends_with(" kB"), "{why}");
    let expected = "  what to do: give the node more memory, or make the image smaller; \
        the kernel log above shows what it killed";
    assert_eq!((todo.as_str(), now.as_str()), (expected, NOW));
}

#[test]
fn the_agent_is_static_and_small() {
    make("site");
    let agent = fs::File::open(AGENT).unwrap();
    assert_eq!(Elf::read(&agent).unwrap().interpreter, None, "it needs a dynamic loader");
    assert!(agent.metadata().unwrap().len() <= 4 << 20, "{} bytes", agent.metadata().unwrap().len());
    let initramfs = fs::metadata(bootstrap().1).unwrap().len();
    assert!(initramfs <= 4 << 20, "the initramfs has {initramfs} bytes");
}

// F24, F51, F52, F55
#[test]
fn rehearsing_the_debian_image_gives_what_gnu_tar_gives() {
    make("site");
    let site = build_dir().join("lab/site");
    let archive = site.join("built/compute.tar");
    let expected = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]).arg(&archive);
    assert!(tar.arg("-C").arg(expected.path()).status().unwrap().success());
    // A Debian without these would prove little.
    assert!(expected.path().join("usr/bin/su").exists() && expected.path().join("usr/lib/modules").exists());
    let published = find(&site.join("store/compute"), |name| name.ends_with(".tar.zst"));
    // Other tools read what is published.
    let theirs = tempfile::tempdir().unwrap();
    let mut pipe = Command::new("sh");
    pipe.args(["-c", "zstd -dc \"$1\" | tar --numeric-owner --xattrs --xattrs-include='*' -xpf - -C \"$2\"", "sh"]);
    assert!(pipe.arg(&published).arg(theirs.path()).status().unwrap().success());
    let differences = compare_trees(expected.path(), theirs.path()).unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let expected = walk(expected.path()).unwrap();
    drop(theirs);

    let other_site = site_with_gzip(&site);
    let gzipped = find(&other_site.path().join("store/compute"), |name| name.ends_with(".tar.gz"));
    let (zstd, gzip) = (files(&published), files(&gzipped));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = usize::MAX;
    for (files, image, workers, most, bounded) in [
        (&zstd, "latest.json".to_owned(), 1, CUT, true),
        (&zstd, "latest.json".to_owned(), 2, whole, true),
        (&zstd, "latest.json".to_owned(), 8, whole, false),
        (&gzip, "latest.json".to_owned(), 2, whole, true),
        (&gzip, "latest.json".to_owned(), 8, CUT, false),
        (&zstd, name(&published), 2, whole, true),
        (&gzip, name(&gzipped), 2, CUT, true),
    ] {
        let ours = tempfile::tempdir_in("/dev/shm").unwrap();
        let peak = rehearse(files, &image, workers, most, ours.path());
        let what = format!("{image} with {workers} workers, cut: {}: peak {peak} KiB", most == CUT);
        println!("{what}");
        let ours = walk(ours.path()).unwrap();
        let differing = expected.iter().filter(|(path, entry)| ours.get(*path) != Some(entry));
        let differing: Vec<_> = differing.map(|(path, entry)| (path, entry, ours.get(path))).collect();
        assert!(differing.is_empty() && ours.len() == expected.len(), "{what}: {differing:#?}");
        assert!(!bounded || peak <= 16 * 1024, "{what}");
    }
}

/// Where some transfers are cut, again and again.
const CUT: usize = 5_000_000;

/// A site with the same image, which publishes it as gzip: the lab's own nodes go on with theirs.
fn site_with_gzip(site: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["site.toml", "images", "built", "files"] {
        std::os::unix::fs::symlink(site.join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("nodes.toml"), "").unwrap();
    let mut publish = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/debug/rootstream"));
    publish.arg("--site").arg(folder.path());
    publish.args(["image", "publish", "compute", "--format", "tar.gz", "--level", "1", "--allow-secrets"]);
    assert!(publish.status().unwrap().success());
    folder
}

/// What a store holds of the build whose file is `file`, by path.
fn files(file: &Path) -> HashMap<String, Vec<u8>> {
    let folder = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| format!("/compute/{}", path.file_name().unwrap().to_str().unwrap());
    let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    folder.filter(|path| path == file || json(path)).map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

/// Rehearses an image with the agent that nodes boot, from a server that breaks off after `most` bytes, and returns
/// its peak memory in KiB.
fn rehearse(files: &HashMap<String, Vec<u8>>, image: &str, workers: usize, most: usize, root: &Path) -> u64 {
    let store = files.clone();
    let server = Server::start(move |request, stream| from_store_at_most(&store, request, stream, most)).unwrap();
    let url = server.url(&format!("/compute/{image}"));
    let mut rehearse = Command::new(AGENT);
    rehearse.args(["rehearse", "--cmdline", &format!("rootstream.image={url}"), "--workers", &workers.to_string()]);
    let mut child = rehearse.arg("--root").arg(root).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(end) = child.try_wait().unwrap() {
            assert!(end.success());
            let size = files.values().map(Vec::len).max().unwrap();
            assert!(server.requests().len() > size / most, "{} requests", server.requests().len());
            return peak;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let high_water =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        peak = peak.max(high_water.unwrap_or(0));
        thread::sleep(Duration::from_millis(5));
    }
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

/// An HTTP server on the master's address.
fn serve(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Server {
    let address = SocketAddr::from(([172, 16, 0, 254], 80));
    Server::start_at(address, move |_, stream| answer(stream)).unwrap()
}

/// The kernel and the initramfs that the lab's nodes boot.
fn bootstrap() -> (&'static Path, &'static Path) {
    static FILES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let (kernel, initramfs) = FILES.get_or_init(|| {
        make("site");
        let folder = build_dir().join("lab/site/tftp/compute");
        let starting = |start: &'static str| find(&folder, move |name| name.starts_with(start));
        (starting("vmlinuz-"), starting("initramfs-"))
    });
    (kernel, initramfs)
}

/// The last file of a folder, by name, whose name is a wanted one.
fn find(folder: &Path, wanted: impl Fn(&str) -> bool) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let named = files.filter(|entry| wanted(&entry.file_name().to_string_lossy())).map(|entry| entry.path());
    named.max().unwrap_or_else(|| panic!("what the lab needs is not in {}", folder.display()))
}

/// Runs a target of the Makefile, with variables perhaps, as a user would; passes on what it prints and returns its stdout.
fn make(target: &str) -> String {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).args(target.split(' ')).stdout(Stdio::piped());
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
