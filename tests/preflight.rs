//! Published images that this machine cannot hold or run: refused before their first byte where the manifest tells,
//! otherwise with the sizes. Needs root, for file systems of a known size.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use common::published::{Image, from_store, publish};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rootstream::facts::NodeFacts;
use rootstream::failure::Failure;
use rootstream::image::manifest::Media;
use rootstream::image::{self, Anchors, Machine, Sources, Tally, Unpack, VerifiedRoot};
use rootstream_lab::faulty::{Server, answer};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// An archive of the root and one file.
fn archive(size: usize) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    append(&mut archive, "./", EntryType::Directory, &[]);
    append(&mut archive, "file", EntryType::Regular, &vec![7; size]);
    archive.into_inner().unwrap()
}

fn append(archive: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, data: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(data.len() as u64);
    header.set_cksum();
    archive.append(&header, data).unwrap();
}

fn serve(image: &Image) -> Server {
    let store = image.store();
    Server::start(move |request, stream| from_store(&store, request, stream)).unwrap()
}

fn install(server: &Server, machine: &Machine, root: &Path) -> anyhow::Result<VerifiedRoot> {
    install_from(&[server.url("/c/b.json")], machine, root)
}

fn install_from(urls: &[String], machine: &Machine, root: &Path) -> anyhow::Result<VerifiedRoot> {
    let settings = common::settings(urls);
    let (anchors, mut tally) = (Anchors::default(), Tally::default());
    let (resolver, node) = (common::resolver(), NodeFacts::default());
    let sources = Sources { settings: &settings, anchors: &anchors, resolver: &resolver, node: &node };
    let unpack = Unpack { owners: true, workers: 2, mount: None };
    image::plan(sources, machine, &mut tally)?.install(unpack, root, &mut tally)?.root().context("it is an archive")
}

fn refusal(server: &Server, machine: &Machine, root: &Path) -> String {
    Failure::from_error(&install(server, machine, root).expect_err("an image that must be refused")).to_string()
}

/// Nothing but the manifest was asked for.
fn assert_untouched(server: &Server) {
    let paths: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/c/b.json"]);
}

/// A tmpfs that only this thread sees.
fn tmpfs(options: &str) -> TempDir {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let root = tempfile::tempdir().unwrap();
    mount(Some("tmpfs"), root.path(), Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
    root
}

// F37
#[test]
fn an_image_for_another_kernel_is_refused_before_its_first_byte() {
    let image = publish(&archive(100), Media::TarZstd, 1 << 20);
    let root = tempfile::tempdir().unwrap();
    let machine =
        |release: &str, arch: &str| Machine { release: Some(release.to_owned()), arch: Some(arch.to_owned()) };
    let server = serve(&image);
    let message = refusal(&server, &machine("6.12.1", "x86_64"), root.path());
    assert!(message.contains("modules for kernel 6.1.0-41-amd64, but the kernel is 6.12.1"), "{message}");
    assert!(message.contains("rootstream bootstrap c"), "{message}");
    assert_untouched(&server);
    let server = serve(&image);
    let message = refusal(&server, &machine("6.1.0-41-amd64", "aarch64"), root.path());
    assert!(message.contains("for x86_64 (amd64), but the machine is aarch64"), "{message}");
    assert_untouched(&server);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    install(&server, &machine("6.1.0-41-amd64", "x86_64"), root.path()).unwrap();
}

// F54
#[test]
fn an_image_without_room_is_refused_before_its_first_byte() {
    let root = tmpfs("size=1m,nr_inodes=20");
    let small = publish(&archive(100), Media::TarZstd, 1 << 20);
    for (pages, inodes, megabytes) in [(300, 2, "1.2"), (1, 21, "0.0")] {
        let mut image = small.clone();
        (image.manifest.unpacked_pages, image.manifest.inodes) = (pages, inodes);
        let server = serve(&image);
        let message = refusal(&server, &Machine::default(), root.path());
        let needs = format!("it needs {megabytes} MB and {inodes} inodes;");
        assert!(message.contains(&needs) && message.contains("has 1.0 MB and"), "{message}");
        assert!(message.contains("rootstream.tmpfs="), "{message}");
        assert_untouched(&server);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
    install(&serve(&small), &Machine::default(), root.path()).unwrap();
}

// F41, F54
#[test]
fn an_image_larger_than_its_manifest_says_stops_at_the_tmpfs_with_sizes() {
    let root = tmpfs("size=1m");
    // Three megabytes, and a manifest that says one page.
    let image = publish(&archive(3 << 20), Media::TarZstd, 512 << 10);
    let message = refusal(&serve(&image), &Machine::default(), root.path());
    assert!(message.contains("does not fit into") && message.contains("it holds 1.0 MB"), "{message}");
}

// F54
#[test]
fn another_mirror_is_not_asked_for_an_image_that_has_no_room_here() {
    let root = tmpfs("size=1m");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &archive(3 << 20)).unwrap();
    let bomb = bomb.finish().unwrap();
    let servers: Vec<Server> = (0..2)
        .map(|_| {
            let bomb = bomb.clone();
            Server::start(move |_, stream| answer(stream, "200 OK", &[], &bomb)).unwrap()
        })
        .collect();
    let urls: Vec<String> = servers.iter().map(|server| server.url("/image.tar.gz")).collect();
    let error = install_from(&urls, &Machine::default(), root.path()).expect_err("an image that has no room");
    let message = Failure::from_error(&error).to_string();
    assert!(message.contains("does not fit into") && message.contains("it holds 1.0 MB"), "{message}");
    assert_eq!(servers.iter().map(|server| server.requests().len()).sum::<usize>(), 1);
}

// F41, F48
#[test]
fn a_petabyte_of_holes_in_a_published_image_costs_nothing() {
    let root = tmpfs("size=1m");
    let mut archive = Builder::new(Vec::new());
    append(&mut archive, "./", EntryType::Directory, &[]);
    let petabyte = (1u64 << 50).to_string();
    let records = [("GNU.sparse.size", petabyte.as_bytes()), ("GNU.sparse.map", &b"0,3"[..])];
    archive.append_pax_extensions(records).unwrap();
    append(&mut archive, "hole", EntryType::Regular, b"end");
    let image = publish(&archive.into_inner().unwrap(), Media::TarGzip, 1 << 20);
    install(&serve(&image), &Machine::default(), root.path()).unwrap();
    let metadata = fs::metadata(root.path().join("hole")).unwrap();
    assert_eq!((metadata.len(), metadata.blocks()), (1 << 50, 8));
}

// F42
#[test]
fn what_a_file_is_called_says_nothing_about_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    let mut image = publish(&archive(100), Media::TarZstd, 1 << 20);
    image.manifest.file = "b.tar.gz".to_owned();
    let store = image.store();
    let server = Server::start(move |request, stream| {
        answer(stream, "200 OK", &[("Content-Type", "text/html")], &store[&request.path])
    })
    .unwrap();
    install(&server, &Machine::default(), root.path()).unwrap();
    assert_eq!(fs::read(root.path().join("file")).unwrap(), [7; 100]);
    // A manifest that is wrong about it is refused, not believed.
    image.manifest.media = Media::TarGzip;
    let other = tempfile::tempdir().unwrap();
    let message = refusal(&serve(&image), &Machine::default(), other.path());
    assert!(message.contains("chunk 0") && message.contains("gzip"), "{message}");
}
