//! Virtual nodes that boot: one all the way from its firmware to ssh, and some that must not get that far.
//!
//! The failures start the kernel directly, with the initramfs that the lab's site serves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use rootstream::handover::Elf;
use rootstream_lab::bound::Bound;
use rootstream_lab::faulty::{Server, answer, head};
use rootstream_lab::machine::Machine;
use rootstream_lab::namespace::enter_private_network;
use rootstream_lab::network::tap_with;
use rootstream_lab::node::Node;
use rootstream_lab::packages::build_dir;
use rootstream_lab::transcript::Transcript;
use rootstream_lab::tree::compare_trees;

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

// F51, F52, F55
#[test]
fn rehearsing_the_debian_image_gives_what_gnu_tar_gives() {
    make("site");
    let site = build_dir().join("lab/site");
    let archive = site.join("built/compute.tar");
    let folder = tempfile::tempdir().unwrap();
    let gzipped = folder.path().join("image.tar.gz");
    let gzip =
        Command::new("gzip").args(["-1", "-c"]).arg(&archive).stdout(fs::File::create(&gzipped).unwrap()).status();
    assert!(gzip.unwrap().success());
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
    // As nodes fetch it, by its manifest; and as plain streams.
    let build = published.file_name().unwrap().to_str().unwrap().split('.').next().unwrap();
    for image in [published.with_file_name(format!("{build}.json")), published, gzipped] {
        let ours = tempfile::tempdir().unwrap();
        let peak = rehearse(&image, ours.path());
        let differences = compare_trees(expected.path(), ours.path()).unwrap();
        assert!(differences.is_empty(), "{}: {}", image.display(), differences.join("\n"));
        println!("{}: peak {peak} KiB", image.display());
        assert!(peak <= 16 * 1024, "{}: {peak} KiB", image.display());
    }
}

/// Rehearses an image with the agent that nodes boot, and returns its peak memory in KiB.
fn rehearse(image: &Path, root: &Path) -> u64 {
    let folder = image.parent().unwrap().to_owned();
    let server = Server::start(move |request, stream| {
        let file = request.path.rsplit('/').next().unwrap_or_default();
        answer(stream, "200 OK", &[("ETag", "\"1\"")], &fs::read(folder.join(file))?)
    });
    let server = server.unwrap();
    let url = server.url(&format!("/compute/{}", image.file_name().unwrap().to_str().unwrap()));
    let mut rehearse = Command::new(AGENT);
    rehearse.args(["rehearse", "--cmdline", &format!("rootstream.image={url}"), "--root"]).arg(root);
    let mut child = rehearse.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(end) = child.try_wait().unwrap() {
            assert!(end.success());
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

/// Runs a target of the Makefile as a user would; passes on what it prints and returns its stdout.
fn make(target: &str) -> String {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).arg(target).stdout(Stdio::piped());
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
