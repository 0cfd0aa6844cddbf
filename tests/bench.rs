//! A short run of `make bench` on a small image: every way works and brings every entry, every row is there. How
//! fast they are is for `make bench` to tell.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use rootstream_bench::comparison::{Comparison, enclose};
use rootstream_bench::images::{Built, Image, Workshop};
use rootstream_bench::machine;
use rootstream_bench::page::Page;
use rootstream_bench::sizes::{Sizes, digest_seconds};
use rootstream_bench::targets;
use rootstream_bench::ways::{Packing, WAYS};
use tar::EntryType;

const AGENT: &str = env!("CARGO_BIN_EXE_init");

/// An image of a few chunks, as if the companion had built it.
fn build(workshop: &Workshop) -> Built {
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: EntryType, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, path, data).unwrap();
    };
    for folder in ["./", "./etc/", "./sbin/", "./srv/"] {
        put(folder, EntryType::Directory, b"");
    }
    put("./sbin/init", EntryType::Regular, &fs::read("/bin/busybox").unwrap());
    for number in 0..300 {
        put(&format!("./etc/{number}.conf"), EntryType::Regular, format!("number {number}\n").repeat(99).as_bytes());
    }
    let noise: Vec<u8> = (0..6_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    put("./srv/data", EntryType::Regular, &noise);
    let folder = workshop.site().join("built");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("small.tar");
    fs::write(&file, tar.into_inner().unwrap()).unwrap();
    let bytes = fs::metadata(&file).unwrap().len();
    let record = format!(r#"{{"inputs":"","created":"2026-11-22T18:00:00Z","arch":"amd64","bytes":{bytes}}}"#);
    fs::write(folder.join("small.json"), record).unwrap();
    Built { name: "small".to_owned(), tar: file }
}

fn packed(folder: &Path) -> (Workshop, Image) {
    let workshop = Workshop::open(folder, &Path::new(AGENT).with_file_name("rootstream")).unwrap();
    let image = workshop.pack(&build(&workshop)).unwrap();
    enclose().unwrap();
    (workshop, image)
}

#[test]
fn every_way_brings_every_entry() {
    let folder = tempfile::tempdir().unwrap();
    let (workshop, image) = packed(folder.path());
    assert_eq!(image.entries, 305);
    let comparison = Comparison::of(&image, Path::new(AGENT), workshop.folder(), 1, false).unwrap();
    let digest = digest_seconds(&image.packed(Packing::PublishedZstd).unwrap().file).unwrap();
    for way in WAYS {
        let median = comparison.median(way.name, |run| run.wall);
        assert!(median > 0.0 && comparison.median(way.name, |run| run.peak_kib) > 500.0, "{}: {median}", way.name);
    }
    let facts = machine::machine().into_iter().chain(machine::programs()).collect();
    let sizes = targets::of_sizes(Sizes { init: 1, initramfs: 1 });
    let page = Page { facts, comparisons: vec![(comparison, digest)], sizes }.text();
    for way in WAYS {
        assert!(page.contains(&format!("\n| {} | ", way.name)), "{}: {page}", way.name);
    }
    let judged = page.lines().filter(|line| line.ends_with("| met |") || line.ends_with("| **not met** |")).count();
    assert_eq!(judged, 16, "{page}");
    assert!(!page.contains("inf"), "a run left no record: {page}");
}

#[test]
fn a_way_that_leaves_something_out_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (workshop, mut image) = packed(folder.path());
    image.entries += 1;
    let error = Comparison::of(&image, Path::new(AGENT), workshop.folder(), 1, false).unwrap_err();
    assert!(format!("{error:#}").contains("305 entries came out, not 306"), "{error:#}");
}
