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
mod vm;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::published::from_store_at_most;
use rootstream::handover::Elf;
use rootstream_lab::faulty::{Server, answer, head};
use rootstream_lab::node::Node;
use rootstream_lab::packages::build_dir;
use rootstream_lab::tree::{compare_trees, walk};
use vm::{
    AGENT, IMAGE, MAC, NOW, boot_failure, bootstrap, dhcp, find, generic_kernel, in_private_network, lines_of_failure,
    make, serve,
};

/// The timeline of a whole boot, in the order a node takes it.
const STEPS: [&str; 11] =
    ["power-on", "DHCP", "TFTP", "kernel", "/init", "modules", "lease", "image", "switch_root", "login", "ssh"];

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

// F63
#[test]
fn a_card_is_found_by_what_it_says_of_itself_or_named_with_its_module() {
    let (kernel, initramfs) = generic_kernel(None);
    let node = || Node::new("n1").memory(768).card("e1000e", "tap0", MAC);
    in_private_network(move || {
        let _dhcp = dhcp();
        let _http = serve(|stream| answer(stream, "404 Not Found", &[], b""));
        let boot = |parameters: &str| {
            let parameters = format!("{IMAGE} rootstream.retry=2s {parameters}");
            lines_of_failure(node(), (&kernel, &initramfs), &parameters, |_| ())
        };
        let lines = boot("");
        let has = |words: &str| lines.iter().any(|line| line.contains(words));
        assert!(has("modules: e1000e for pci:v00008086d000010D3"), "{lines:#?}");
        assert!(has(&format!("net: eth0 ({MAC}, e1000e) is up")), "{lines:#?}");
        assert!(has("boot failed: installing the image"), "{lines:#?}");

        let lines = boot("rootstream.modules.deny=e1000e rootstream.carrier=2s");
        let message: Vec<&String> = lines.iter().skip_while(|line| !line.starts_with("boot failed: ")).collect();
        let [what, why, todo, now] = message.try_into().unwrap();
        assert!(what.starts_with("boot failed: no network card of this machine has a driver in the kernel "), "{what}");
        assert!(why.contains(" (8086:10d3): its module e1000e is in this initramfs; e1000e not loaded: "), "{why}");
        assert!(todo.contains("rootstream.modules.deny="), "{todo}");
        assert_eq!(now, NOW);
    });
}

// F2
#[test]
fn without_a_dhcp_server_a_node_says_so() {
    let message = in_private_network(|| boot_failure(&format!("{IMAGE} rootstream.dhcp=6s"), |_| ()));
    let [what, why, todo, now] = message.try_into().unwrap();
    assert_eq!(what, format!("boot failed: no DHCP server answered on eth0 ({MAC})"));
    assert!(why.starts_with(&format!("  why: eth0 ({MAC}, virtio_net): carrier after ")), "{why}");
    assert!(why.ends_with(" DISCOVERs sent, 0 DHCP frames received, servers seen: none"), "{why}");
    let expected = format!(
        "  what to do: check that a DHCP server runs for this network and knows {MAC}, that the switch port is in \
         the right VLAN and forwards at once (spanning tree); rootstream.dhcp= waits longer than 6 s"
    );
    assert_eq!((todo, now), (expected, NOW.into()));
}

// F21
#[test]
fn an_image_that_is_not_there_is_named() {
    let message = in_private_network(|| {
        let _dhcp = dhcp();
        let _http = serve(|stream| answer(stream, "404 Not Found", &[], b""));
        boot_failure(&format!("{IMAGE} rootstream.retry=2s"), |_| ())
    });
    let expected = [
        "boot failed: installing the image http://172.16.0.254/i.tar",
        "  why: fetching http://172.16.0.254/i.tar: the server answered 404 Not Found",
        "  what to do: check the URL, the server and the network to it; tried for 2 s (rootstream.retry=)",
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
        (&zstd, "latest.json".to_owned(), 2, CUT, true),
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
