//! Images that are file systems, made by their own tools, served, verified, mounted under an overlay. In mount
//! namespaces of their own, with this machine's kernel: root, loop devices, squashfs, erofs and overlayfs are needed.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use common::published::from_store;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use rootstream::cmdline::{self, Config};
use rootstream::facts::NodeFacts;
use rootstream::failure::Failure;
use rootstream::image::manifest::{Chunk, Digest, FORMAT, Manifest, Media};
use rootstream::image::{
    self, Anchors, MOUNTED_IMAGE, Machine, Mounting, Settings, Sources, Tally, Trust, Unpack, VerifiedRoot,
};
use rootstream_lab::faulty::{Server, answer};
use rootstream_lab::tree::compare_trees;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const KINDS: [Media; 2] = [Media::Squashfs, Media::Erofs];

/// A tree with one of everything, with times that squashfs can hold; each test's has a length of its own, by which it
/// knows its loop devices.
fn tree(number: u32) -> TempDir {
    let tree = TempDir::new().unwrap();
    let at = |path: &str| tree.path().join(path);
    for folder in ["sbin", "etc/deep/er", "dev", "big"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("sbin/init"), "#!/bin/sh\n").unwrap();
    fs::hard_link(at("sbin/init"), at("sbin/also")).unwrap();
    symlink("../nowhere", at("etc/link")).unwrap();
    fs::write(at("big/noise"), noise(1_000_001 + number * 50_000)).unwrap();
    fs::File::create(at("big/hole")).unwrap().set_len(10_000_000).unwrap();
    mknod(&at("dev/null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    mkfifo(&at("dev/fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    xattr::set(at("sbin/init"), "security.capability", capability).unwrap();
    xattr::set(at("etc"), "trusted.origin", b"lab").unwrap();
    xattr::set(at(""), "trusted.root", b"yes").unwrap();
    std::os::unix::fs::chown(at("etc/deep"), Some(1000), Some(70_000)).unwrap();
    for (path, mode) in [("sbin/init", 0o4751), ("etc/deep", 0o555), ("dev/null", 0o622), ("", 0o711)] {
        fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    assert!(
        Command::new("find")
            .arg(tree.path())
            .args(["-exec", "touch", "-hd", "@1500000000", "{}", "+"])
            .status()
            .unwrap()
            .success()
    );
    tree
}

/// Bytes that do not compress.
fn noise(length: u32) -> Vec<u8> {
    let mut state = 2_463_534_242_u32;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..length).map(|_| step()).collect()
}

/// The tree as a file system, made by the tool for it.
fn packed(kind: Media, tree: &Path) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("image");
    let mut tool = match kind {
        Media::Squashfs => {
            let mut tool = Command::new("mksquashfs");
            tool.arg(tree).arg(&file).args(["-quiet", "-no-progress", "-comp", "zstd"]);
            tool
        }
        _ => {
            let mut tool = Command::new("mkfs.erofs");
            tool.args(["--quiet", "-zlz4hc", "-C65536"]).arg(&file).arg(tree);
            tool
        }
    };
    let output = tool.output().unwrap();
    assert!(output.status.success(), "{tool:?}: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(file).unwrap()
}

/// A node: its new root, which is a tmpfs, and its /run, in a mount namespace of the calling thread's.
struct Node {
    folder: TempDir,
}

impl Node {
    fn new(size: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let node = Self { folder: TempDir::new().unwrap() };
        for (target, data) in [(node.root(), format!("size={size}")), (node.run(), "size=1M".to_owned())] {
            fs::create_dir(&target).unwrap();
            mount(Some("t"), &target, Some("tmpfs"), MsFlags::empty(), Some(data.as_str())).unwrap();
        }
        node
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// What a boot does: plan, install, mount.
    fn boot(&self, settings: &Settings) -> anyhow::Result<VerifiedRoot> {
        let resolver = common::resolver();
        let anchors = Anchors::default();
        let node = NodeFacts::default();
        let sources = Sources { settings, anchors: &anchors, resolver: &resolver, node: &node };
        let mut tally = Tally::default();
        let (run, options) = (self.run(), Config::default().tmpfs);
        let mount = Some(Mounting { run: &run, options: &options });
        let plan = image::plan(sources, &Machine::default(), &mut tally)?;
        let installed = plan.install(Unpack { owners: true, workers: 2, mount }, &self.root(), &mut tally)?;
        installed.root().context("the image was not mounted")
    }

    fn refusal(&self, server: &Server) -> String {
        let error = self.boot(&common::settings(&[server.url("/image")])).expect_err("an image that must be refused");
        Failure::from_error(&error).to_string()
    }

    /// The mounts below this node's folder: place, kind, and options of the mount and the file system.
    fn mounts(&self) -> Vec<(String, String, String)> {
        let own = format!("{}/", self.folder.path().display());
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let below = fields.filter_map(|fields| {
            let dash = fields.iter().position(|field| *field == "-")?;
            let place = fields[4].strip_prefix(&own)?.to_owned();
            Some((place, fields[dash + 1].to_owned(), format!("{} {}", fields[5], fields[dash + 3])))
        });
        below.collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        while !self.mounts().is_empty() {
            for (place, ..) in self.mounts() {
                let _ = umount2(&self.folder.path().join(place), MntFlags::MNT_DETACH);
            }
        }
    }
}

/// How many loop devices show a file of this length.
fn loops(bytes: u64) -> usize {
    let devices = fs::read_dir("/sys/block").unwrap().flatten().filter(|device| device.path().join("loop").exists());
    let sectors = |path: PathBuf| fs::read_to_string(path.join("size")).unwrap_or_default().trim().parse().unwrap_or(0);
    devices.filter(|device| sectors(device.path()) * 512 == bytes.next_multiple_of(4096)).count()
}

fn wait_for_no_loops(bytes: u64) {
    let began = Instant::now();
    while loops(bytes) > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "a loop device is left over");
        thread::sleep(Duration::from_millis(20));
    }
}

// F42
#[test]
fn a_plain_file_system_becomes_the_root() {
    for kind in KINDS {
        let source = tree(0);
        let file = packed(kind, source.path());
        let bytes = file.len() as u64;
        let digest: [u8; 32] = Sha256::digest(&file).into();
        // The suffix says nothing, and servers send what they like.
        let server = Server::start(move |_, stream| answer(stream, "200 OK", &[("Content-Type", "text/html")], &file));
        let server = server.unwrap();
        // Too small for the image, as rootstream.tmpfs=size= can make it: that is for what the node writes.
        let node = Node::new("64k");
        let mut settings = common::settings(&[server.url("/image.tar.gz")]);
        settings.sha256 = Some(digest);
        let root = node.boot(&settings).unwrap();
        assert_eq!(root.path(), node.root());
        let facts = root.facts();
        assert_eq!((facts.media, facts.trust, facts.bytes, facts.entries), (kind.name(), Trust::Digest, bytes, 1));
        assert_eq!(compare_trees(source.path(), root.path()).unwrap(), Vec::<String>::new(), "{}", kind.name());

        // One device, as tools expect that stay on one file system.
        let device = |path: &str| fs::symlink_metadata(root.path().join(path)).unwrap().dev();
        assert_eq!(device("sbin/init"), device(""));
        fs::write(root.path().join("sbin/init"), "new").unwrap();
        fs::remove_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 0);

        // In sight are the root and the file, which nobody can write to or delete, and which is not in use there.
        let mounts = node.mounts();
        let places: Vec<(&str, &str)> = mounts.iter().map(|(place, kind, _)| (place.as_str(), kind.as_str())).collect();
        let image = format!("run/{MOUNTED_IMAGE}");
        assert_eq!(places, [("run", "tmpfs"), (image.as_str(), "tmpfs"), ("root", "overlay")]);
        let kept = node.run().join(MOUNTED_IMAGE);
        assert_eq!(fs::read_dir(node.run().join("rootstream")).unwrap().count(), 1);
        let name = kept.join(format!("image.{}", kind.name()));
        assert_eq!(fs::metadata(&name).unwrap().len(), bytes.next_multiple_of(4096));
        assert_eq!(fs::metadata(&name).unwrap().mode() & 0o777, 0o400);
        for refused in [fs::remove_file(&name), fs::write(&name, ""), fs::write(kept.join("new"), "")] {
            assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        }
        umount2(&kept, MntFlags::empty()).unwrap();
        assert!(fs::read(root.path().join("big/noise")).unwrap() == noise(1_000_001));

        // Unmounted, it takes no memory and no loop device any more.
        assert!(loops(bytes) > 0);
        umount2(&node.root(), MntFlags::empty()).unwrap();
        wait_for_no_loops(bytes);
    }
}

/// A manifest as the companion writes it, with slices of this size.
fn manifest(kind: Media, file: &[u8], slice: usize) -> Manifest {
    let digest = |bytes: &[u8]| Digest(Sha256::digest(bytes).into());
    let chunk = |(index, bytes): (usize, &[u8])| {
        let size = bytes.len() as u64;
        Chunk { offset: (index * slice) as u64, size, unpacked: size, sha256: digest(bytes), continues: None }
    };
    Manifest {
        format: FORMAT,
        name: "c".to_owned(),
        build: "b".to_owned(),
        created: "2026-11-22T18:00:00Z".to_owned(),
        arch: "amd64".to_owned(),
        kernels: Vec::new(),
        media: kind,
        file: format!("b.{}", kind.suffix()),
        size: file.len() as u64,
        sha256: digest(file),
        unpacked_bytes: 13_000_011,
        unpacked_pages: 800,
        inodes: 12,
        largest_file: 10_000_000,
        init: Some("/sbin/init".to_owned()),
        chunks: file.chunks(slice).enumerate().map(chunk).collect(),
    }
}

// F33
#[test]
fn a_published_file_system_is_checked_slice_by_slice() {
    for kind in KINDS {
        let source = tree(1);
        let file = packed(kind, source.path());
        let manifest = manifest(kind, &file, 100_000);
        let image = common::published::Image { manifest, file };
        let mut store = image.store();
        let good = store.clone();
        let node = Node::new("64k");
        // Damaged on the way, once.
        let path = format!("/c/{}", image.manifest.file);
        store.get_mut(&path).unwrap()[250_000] ^= 1;
        let bad = store.clone();
        let first = path.clone();
        let server = Server::start(move |request, stream| {
            let damaged = request.path == first && !request.headers.contains_key("range");
            from_store(if damaged { &bad } else { &good }, request, stream)
        });
        let server = server.unwrap();
        let root = node.boot(&common::settings(&[server.url("/c/latest.json")])).unwrap();
        assert_eq!(compare_trees(source.path(), root.path()).unwrap(), Vec::<String>::new(), "{}", kind.name());
        assert_eq!((root.facts().media, root.facts().bytes), (kind.name(), image.manifest.size));
        drop(node);

        // Damaged at the server.
        let node = Node::new("64k");
        let server = Server::start(move |request, stream| from_store(&store, request, stream)).unwrap();
        let error = node.boot(&common::settings(&[server.url("/c/b.json")])).unwrap_err();
        let message = Failure::from_error(&error).to_string();
        assert!(message.contains("bytes 200000-299999 of") && message.contains("fetched 4 times"), "{message}");
        assert_eq!(node.mounts().len(), 2, "nothing was mounted");
    }
}

// F35, F54
#[test]
fn what_cannot_be_mounted_is_refused_before_it_is() {
    for kind in KINDS {
        let source = tree(2);
        let good = packed(kind, source.path());
        let (length_at, huge) =
            if kind == Media::Squashfs { (40, &[0xff; 6][..]) } else { (1024 + 36, &[0xff; 4][..]) };
        let patched = |at: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        let name = kind.name();
        // Where nothing in the file shows the damage, the kernel may find it.
        let kernels = if kind == Media::Squashfs { patched(48, &[0xee; 8]) } else { patched(1024 + 48, b"x") };
        for (what, file, why, requests) in [
            ("cut", good[..good.len() - 5000].to_vec(), "it was cut", 1),
            ("more", [&good[..], &[0; 5000], b"x"].concat(), "bytes follow the end", 1),
            (
                "no superblock",
                good[..1030].to_vec(),
                if kind == Media::Squashfs { "it was cut" } else { "cut short" },
                1,
            ),
            ("too large", patched(length_at, huge), "does not fit into this node's memory", 1),
            ("unmountable", kernels, "the kernel log above says what it dislikes", 1),
        ] {
            let node = Node::new("64k");
            let bytes = file.len() as u64;
            let server = Server::start(move |_, stream| answer(stream, "200 OK", &[], &file)).unwrap();
            let message = node.refusal(&server);
            assert!(message.contains(why), "{name}, {what}: {message}");
            assert_eq!(server.requests().len(), requests, "{name}, {what}");
            let left: Vec<String> = node.mounts().into_iter().map(|(place, ..)| place).collect();
            let rest = if what == "unmountable" { vec!["run"] } else { vec!["root", "run"] };
            assert_eq!(left, rest, "{name}, {what}");
            wait_for_no_loops(bytes);
        }
    }
}

#[test]
fn an_overlay_goes_on_top_of_a_file_system() {
    let source = tree(5);
    let file = packed(Media::Squashfs, source.path());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o600);
    archive.append_data(&mut header, "sbin/init", &b"n1"[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let server = Server::start(move |request, stream| {
        answer(stream, "200 OK", &[], if request.path == "/image" { &file } else { &archive })
    });
    let server = server.unwrap();
    let line = format!("rootstream.image={} rootstream.overlay={}", server.url("/image"), server.url("/n1.tar"));
    let overlays = cmdline::parse(&line).check().unwrap().image.overlays;
    let node = Node::new("64k");
    let root = node.boot(&Settings { overlays, ..common::settings(&[server.url("/image")]) }).unwrap();
    assert_eq!((root.facts().media, root.overlays().len()), ("squashfs", 1));
    let init = root.path().join("sbin/init");
    assert_eq!((fs::read_to_string(&init).unwrap(), fs::metadata(init).unwrap().mode() & 0o7777), ("n1".into(), 0o600));
    // The image's other name of that file keeps what it had.
    assert_eq!(fs::read_to_string(root.path().join("sbin/also")).unwrap(), "#!/bin/sh\n");
}

// F27
#[test]
fn a_file_system_that_is_replaced_on_the_way_is_stored_anew() {
    let (one, other) = (tree(3), tree(4));
    fs::write(other.path().join("etc/other"), "other").unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    fs::File::open(other.path().join("etc/other")).unwrap().set_modified(time).unwrap();
    let files = [&one, &other].map(|tree| packed(Media::Squashfs, tree.path()));
    let server = Server::start(move |request, stream| {
        if request.number > 0 {
            return answer(stream, "200 OK", &[("ETag", "\"2\"")], &files[1]);
        }
        rootstream_lab::faulty::head(stream, "200 OK", &[("ETag", "\"1\"")], Some(files[0].len()))?;
        std::io::Write::write_all(stream, &files[0][..600_000])
    });
    let node = Node::new("64k");
    let root = node.boot(&common::settings(&[server.unwrap().url("/image")])).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("etc/other")).unwrap(), "other");
}
