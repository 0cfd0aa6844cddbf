//! What goes on top of the image: in which order, with which right, and never outside the root. Needs root, as stage 1
//! has it.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;

use common::published::publish;
use common::signer::Signer;
use rootstream::cmdline;
use rootstream::facts::{Fact, NodeFacts};
use rootstream::failure::Failure;
use rootstream::image::manifest::Media;
use rootstream::image::{Anchors, Settings, Tally, Trust, Unpack, VerifiedRoot};
use rootstream_lab::faulty::{Server, answer, head};
use sha2::{Digest as _, Sha256};
use tar::EntryType;
use tempfile::TempDir;

const UNPACK: Unpack<'static> = Unpack { owners: true, workers: 2, mount: None };

/// An archive of these members: files (`path`, content), folders (`path/`) and links (`path`, `-> target`, or `=> target`
/// for hard ones).
fn archive(members: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        // Written as it is: a builder would refuse what a hostile archive has.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let link = content.strip_prefix("-> ").map(|to| (to, EntryType::Symlink));
        if let Some((target, kind)) = link.or(content.strip_prefix("=> ").map(|to| (to, EntryType::Link))) {
            header.set_entry_type(kind);
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        } else if path.ends_with('/') {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(u32::from_str_radix(content, 8).unwrap());
        } else {
            header.set_size(content.len() as u64);
        }
        header.set_cksum();
        let data = if header.size().unwrap() > 0 { content.as_bytes() } else { &[] };
        tar.append(&header, data).unwrap();
    }
    tar.into_inner().unwrap()
}

/// An image with merged /usr.
fn image() -> Vec<u8> {
    archive(&[
        ("etc/", "755"),
        ("etc/motd", "image"),
        ("etc/resolv.conf", "-> ../run/resolv.conf"),
        ("etc/passwd", "root"),
        ("etc/passwd-", "=> etc/passwd"),
        ("run/", "755"),
        ("run/resolv.conf", "of the running system"),
        ("usr/", "755"),
        ("usr/lib/", "755"),
        ("usr/lib/libc.so", "libc"),
        ("usr/sbin/", "755"),
        ("lib", "-> usr/lib"),
        ("sbin", "-> /usr/sbin"),
        ("dangling", "-> nowhere"),
    ])
}

type Files = Vec<(&'static str, Vec<u8>)>;

/// A server of the image as /i.tar and of these files; what is not among them is 404, /forbidden is 403.
fn server(files: Files) -> Server {
    let mut files: HashMap<String, Vec<u8>> = files.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect();
    files.entry("/i.tar".to_owned()).or_insert_with(image);
    Server::start(move |request, stream| match files.get(&request.path) {
        Some(bytes) => answer(stream, "200 OK", &[("ETag", "\"1\"")], bytes),
        None if request.path == "/forbidden" => answer(stream, "403 Forbidden", &[], b""),
        None if request.path == "/gone" => answer(stream, "410 Gone", &[], b""),
        None => answer(stream, "404 Not Found", &[], b"<html>"),
    })
    .unwrap()
}

/// Settings for the image and these overlays, each a path, with `?` before it perhaps.
fn settings(server: &Server, overlays: &[&str]) -> Settings {
    let url = |path: &&str| match path.strip_prefix('?') {
        Some(path) => format!("?{}", server.url(path)),
        None => server.url(path),
    };
    let overlays: Vec<String> = overlays.iter().map(url).collect();
    let line = format!("rootstream.image={} rootstream.overlay={}", server.url("/i.tar"), overlays.join(","));
    let image = cmdline::parse(&line).check().unwrap().image;
    Settings { overlays: image.overlays, ..common::settings(&image.urls) }
}

fn node() -> NodeFacts {
    let mut node = NodeFacts::default();
    node.set(Fact::Mac, "52:54:00:AC:10:01");
    node.set(Fact::Hostname, "n1");
    node
}

fn install_as(settings: &Settings, anchors: &Anchors) -> anyhow::Result<(TempDir, VerifiedRoot)> {
    let root = tempfile::tempdir()?;
    let verified = common::install_on(settings, anchors, &node(), UNPACK, root.path(), &mut Tally::default())?;
    Ok((root, verified))
}

fn install(server: &Server, overlays: &[&str]) -> (TempDir, VerifiedRoot) {
    install_as(&settings(server, overlays), &Anchors::default()).unwrap()
}

fn refused_as(settings: &Settings, anchors: &Anchors) -> String {
    Failure::from_error(&install_as(settings, anchors).expect_err("overlays that must be refused")).to_string()
}

fn refused(server: &Server, overlays: &[&str]) -> String {
    refused_as(&settings(server, overlays), &Anchors::default())
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

fn link(root: &Path, path: &str) -> String {
    fs::read_link(root.join(path)).unwrap().into_os_string().into_string().unwrap()
}

#[test]
fn overlays_go_on_in_order_and_into_the_record() {
    let first = archive(&[("etc/motd", "first"), ("etc/first", "1"), ("etc/", "750"), ("opt/site/x", "x")]);
    let second = zstd::bulk::compress(&archive(&[("./etc/motd", "second")]), 3).unwrap();
    let server = server(vec![("/a.tar", first.clone()), ("/n1/52-54-00-ac-10-01.tar.zst", second)]);
    let (root, verified) = install(&server, &["/a.tar", "/${hostname}/${mac}.tar.zst"]);
    assert_eq!(read(root.path(), "etc/motd"), "second");
    assert_eq!(read(root.path(), "etc/first"), "1");
    assert_eq!(read(root.path(), "usr/lib/libc.so"), "libc");
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("etc"), mode("opt"), mode("opt/site")), (0o750, 0o755, 0o755));
    let [one, two] = verified.overlays() else { panic!("{:?}", verified.overlays()) };
    assert_eq!((one.url.as_str(), one.bytes, one.media), (server.url("/a.tar").as_str(), first.len() as u64, "tar"));
    let digest: String = Sha256::digest(&first).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((one.sha256.as_str(), one.trust, one.entries), (digest.as_str(), Trust::None, 4));
    assert_eq!((two.media, two.url.ends_with("/n1/52-54-00-ac-10-01.tar.zst")), ("tar+zstd", true));
}

// F43
#[test]
fn a_merged_usr_stays_merged() {
    let overlay = archive(&[
        ("lib/", "700"),
        ("lib/firmware/", "711"),
        ("lib/firmware/card.bin", "firmware"),
        ("lib/libc.so", "a newer one"),
        ("sbin/tune", "#!/bin/sh"),
    ]);
    let server = server(vec![("/o.tar", overlay)]);
    let (root, _) = install(&server, &["/o.tar"]);
    assert_eq!((link(root.path(), "lib"), link(root.path(), "sbin")), ("usr/lib".to_owned(), "/usr/sbin".to_owned()));
    assert_eq!(read(root.path(), "usr/lib/firmware/card.bin"), "firmware");
    assert_eq!(read(root.path(), "usr/lib/libc.so"), "a newer one");
    assert_eq!(read(root.path(), "usr/sbin/tune"), "#!/bin/sh");
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().mode() & 0o7777;
    // The link's entry says nothing of what the link leads to.
    assert_eq!((mode("usr/lib"), mode("usr/lib/firmware")), (0o755, 0o711));
}

// F43: a file system image is the lower layer of the kernel's own overlay, and what goes on top goes into the upper one.
#[test]
fn a_mounted_image_takes_overlays_too() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    let top = at("top");
    for path in ["lower", "top", "root"] {
        fs::create_dir(at(path)).unwrap();
    }
    mount(None::<&str>, &top, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::create_dir(at("top/upper")).unwrap();
    fs::create_dir(at("top/work")).unwrap();
    let plain = server(vec![]);
    common::install(&common::settings(&[plain.url("/i.tar")]), true, &at("lower")).unwrap();
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("top/upper").display(),
        at("top/work").display()
    );
    mount(None::<&str>, &at("root"), Some("overlay"), MsFlags::empty(), Some(layers.as_str())).unwrap();

    let overlay = archive(&[
        ("lib/", "755"),
        ("lib/libc.so", "a newer one"),
        ("etc/", "750"),
        ("etc/resolv.conf", "the overlay's"),
        ("etc/passwd", "the overlay's"),
        ("etc/again", "=> usr/sbin/tool"),
    ]);
    let files = vec![("/i.tar", archive(&[("usr/sbin/tool", "x")])), ("/o.tar", overlay)];
    let server = server(files);
    let settings = settings(&server, &["/o.tar"]);
    let (anchors, mut tally) = (Anchors::default(), Tally::default());
    common::install_on(&settings, &anchors, &node(), UNPACK, &at("root"), &mut tally).unwrap();
    let root = at("root");
    assert_eq!((link(&root, "lib").as_str(), read(&root, "usr/lib/libc.so").as_str()), ("usr/lib", "a newer one"));
    assert_eq!((read(&root, "etc/passwd").as_str(), read(&root, "etc/passwd-").as_str()), ("the overlay's", "root"));
    assert_eq!(read(&root, "run/resolv.conf"), "of the running system");
    assert_eq!(read(&root, "etc/again"), "x");
    assert_eq!(fs::metadata(root.join("etc")).unwrap().mode() & 0o777, 0o750);
    assert_eq!(read(&at("lower"), "etc/passwd"), "root", "the image stays as it is");
}

// F43
#[test]
fn an_overlay_changes_nothing_outside_the_root() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    let outside_path = outside.path().to_str().unwrap();
    let to_outside = format!("-> {outside_path}");
    let up = "-> ../../../../../../../..";
    let hostile = archive(&[
        ("out", &to_outside),
        ("out/", "777"),
        ("up", up),
        ("up/escaped", "x"),
        ("/etc/absolute", "x"),
        ("etc/up", "-> ../../../../etc"),
        ("etc/up/inside", "x"),
    ]);
    let server = server(vec![
        ("/hostile.tar", hostile),
        ("/dots.tar", archive(&[("etc/../../x", "x")])),
        ("/through.tar", archive(&[("out", &to_outside), ("out/x", "x")])),
    ]);
    let (root, verified) = install(&server, &["/hostile.tar"]);
    // As if the root were /, the link leads nowhere, so a folder takes its place.
    assert!(fs::symlink_metadata(root.path().join("out")).unwrap().is_dir());
    assert_eq!(read(root.path(), "escaped"), "x");
    assert_eq!(read(root.path(), "etc/inside"), "x");
    assert!(verified.overlays()[0].warnings[0].contains("leading /"), "{:?}", verified.overlays());
    assert!(refused(&server, &["/dots.tar"]).contains(".. component"));
    refused(&server, &["/through.tar"]);
    assert_eq!(fs::metadata(outside.path()).unwrap().mode() & 0o777, 0o700);
    let left: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["kept"]);
}

// F43, F50
#[test]
fn what_is_replaced_is_not_written_through() {
    let overlay = archive(&[
        ("etc/resolv.conf", "the overlay's"),
        ("etc/passwd", "the overlay's"),
        ("dangling/", "755"),
        ("etc/again", "=> usr/lib/libc.so"),
    ]);
    let server = server(vec![
        ("/o.tar", overlay),
        ("/file.tar", archive(&[("usr/lib", "a file")])),
        ("/link.tar", archive(&[("usr", "-> other")])),
    ]);
    let (root, _) = install(&server, &["/o.tar"]);
    assert!(fs::symlink_metadata(root.path().join("etc/resolv.conf")).unwrap().is_file());
    assert_eq!(read(root.path(), "run/resolv.conf"), "of the running system");
    assert_eq!(
        (read(root.path(), "etc/passwd"), read(root.path(), "etc/passwd-")),
        ("the overlay's".to_owned(), "root".to_owned())
    );
    assert!(fs::symlink_metadata(root.path().join("dangling")).unwrap().is_dir());
    // Links may lead to what the image has.
    let inode = |path: &str| fs::metadata(root.path().join(path)).unwrap().ino();
    assert_eq!(inode("etc/again"), inode("usr/lib/libc.so"));
    for path in ["/file.tar", "/link.tar"] {
        let why = refused(&server, &[path]);
        assert!(why.contains("replacing what has the same name") && why.contains(path), "{why}");
    }
}

#[test]
fn only_what_is_optional_may_be_missing() {
    let good = archive(&[("etc/motd", "overlay")]);
    let server = server(vec![
        ("/good.tar", good.clone()),
        ("/garbage", b"<html>it works</html>".repeat(60)),
        ("/cut.tar", good[..600].to_vec()),
        ("/empty", Vec::new()),
        ("/squashfs", [&b"hsqs"[..], &[0; 4000]].concat()),
    ]);
    let (root, verified) = install(&server, &["?/none.tar", "?/gone", "?/${serial}.tar", "?/good.tar"]);
    assert_eq!((read(root.path(), "etc/motd").as_str(), verified.overlays().len()), ("overlay", 1));
    for (overlay, why) in [
        ("/none.tar", "404"),
        ("/${serial}.tar", "this node has no ${serial}"),
        ("?/garbage", "<html>"),
        ("?/cut.tar", "ends"),
        ("?/empty", "the file is empty"),
        ("?/squashfs", "a squashfs file system, which cannot be unpacked"),
        // 403 says that it may not be had, not that there is none.
        ("?/forbidden", "403"),
        ("/${build}.tar", "only a published image has one"),
    ] {
        let message = refused(&server, &[overlay]);
        assert!(message.contains(why) && message.contains("overlay"), "{overlay}: {message}");
    }
    // One that fails is the end, whatever would come after it.
    refused(&server, &["?/garbage", "/good.tar"]);
}

// F34
#[test]
fn overlays_are_signed_like_images() {
    let signer = Signer::new();
    let own = archive(&[("etc/hostname", "n1")]);
    let others = archive(&[("etc/hostname", "n2")]);
    let files = |path: &'static str, bytes: &[u8], signature: Option<Vec<u8>>| -> Files {
        let mut files = vec![("/i.tar.minisig", signer.sign(&image(), "i.tar")), (path, bytes.to_vec())];
        files.extend(signature.map(|signature| ("/n1.tar.minisig", signature)));
        files
    };
    let anchors = signer.anchors();
    let good = server(files("/n1.tar", &own, Some(signer.sign(&own, "n1.tar"))));
    let (root, verified) = install_as(&settings(&good, &["/n1.tar"]), &anchors).unwrap();
    assert_eq!((read(root.path(), "etc/hostname").as_str(), verified.trust()), ("n1", Trust::Signed));
    let (_, verified) = install_as(&settings(&good, &["?/n2.tar"]), &anchors).unwrap();
    assert_eq!(verified.overlays().len(), 0);

    for (case, signature, why) in [
        ("missing", None, "it has no signature: the server answered 404"),
        ("wrong key", Some(Signer::new().sign(&own, "n1.tar")), "not made with the trusted key"),
        ("other bytes", Some(signer.sign(&others, "n1.tar")), "not of these bytes"),
        ("another node's", Some(signer.sign(&own, "n2.tar")), "of \"n2.tar\", not of \"n1.tar\""),
        ("truncated", Some(signer.sign(&own, "n1.tar")[..100].to_vec()), "cut short"),
    ] {
        let server = server(files("/n1.tar", &own, signature));
        for overlay in ["/n1.tar", "?/n1.tar"] {
            let message = refused_as(&settings(&server, &[overlay]), &anchors);
            assert!(message.contains(why) && message.contains("/n1.tar"), "{case}: {message}");
        }
    }
    // All is as little worth as its least part.
    let half = server(files("/n1.tar", &own, None));
    let unsigned = Settings { unsigned: true, ..settings(&half, &["/n1.tar"]) };
    let (_, verified) = install_as(&unsigned, &anchors).unwrap();
    assert_eq!(verified.trust(), Trust::None);
    let warned = |facts: &rootstream::image::Facts| facts.warnings.iter().any(|w| w.contains("rootstream.unsigned"));
    assert!(warned(verified.facts()) && warned(&verified.overlays()[0]));
    // The image's digest says nothing about what goes on top of it.
    let digest = Settings { sha256: Some(Sha256::digest(image()).into()), ..settings(&half, &["/n1.tar"]) };
    let (_, verified) = install_as(&digest, &Anchors::default()).unwrap();
    assert_eq!((verified.facts().trust, verified.trust()), (Trust::Digest, Trust::None));
}

// F27
#[test]
fn an_overlay_that_changes_on_the_way_is_refused() {
    let overlay = archive(&[("etc/motd", &"x".repeat(300_000))]);
    let server = Server::start(move |request, stream| match (request.path.as_str(), request.number) {
        ("/i.tar", _) => answer(stream, "200 OK", &[], &image()),
        (_, 1) => {
            head(stream, "200 OK", &[("ETag", "\"1\"")], Some(overlay.len()))?;
            std::io::Write::write_all(stream, &overlay[..200_000])
        }
        _ => answer(stream, "200 OK", &[("ETag", "\"2\"")], &overlay),
    })
    .unwrap();
    let why = refused(&server, &["/o.tar"]);
    assert!(why.contains("changed while it was fetched") && why.contains("/o.tar"), "{why}");
}

#[test]
fn a_published_image_names_its_build() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("usr/lib")).unwrap();
    fs::write(folder.path().join("usr/lib/x"), "image").unwrap();
    symlink("usr/lib", folder.path().join("lib")).unwrap();
    let options = ["-c", "--format=pax", "--sort=name", "--numeric-owner", "-C"];
    let tar = std::process::Command::new("tar").args(options).arg(folder.path()).arg(".").output().unwrap();
    let mut files = publish(&tar.stdout, Media::TarZstd, 32_768).store();
    files.insert("/o/b.tar".to_owned(), archive(&[("lib/x", "overlay")]));
    let server = Server::start(move |request, stream| common::published::from_store(&files, request, stream)).unwrap();
    let overlays = settings(&server, &["/o/${build}.tar"]).overlays;
    let settings = Settings { overlays, ..common::settings(&[server.url("/c/b.json")]) };
    let (root, verified) = install_as(&settings, &Anchors::default()).unwrap();
    assert_eq!(read(root.path(), "usr/lib/x"), "overlay");
    assert_eq!(link(root.path(), "lib"), "usr/lib");
    assert_eq!(verified.overlays()[0].url, server.url("/o/b.tar"));
}
