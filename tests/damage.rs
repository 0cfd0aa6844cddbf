//! Any bit flipped anywhere in what a server holds ends in a refusal or in the right tree, never in a wrong one.
//!
//! Every bit of manifest and signature goes through the very functions that an installation asks. Some of them, and of
//! those of the pointer and the files, others in each run, go through whole installations from a server on loopback. That
//! bits of the file and of an unsigned manifest make no other tree is also tested below HTTP, in
//! `src/image/fuzzing/tests.rs`.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use common::published::{Image, from_store, gzip, publish, zstd};
use minisign::KeyPair;
use rootstream::image::manifest::{Manifest, Media};
use rootstream::image::trust::{Keys, SignatureFile};
use rootstream::image::{Anchors, Settings, Tally, Trust, Unpack, VerifiedRoot};
use rootstream_lab::faulty::{Request, Server};
use rootstream_lab::tree::compare_trees;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const MANIFEST: &str = "/c/b.json";
const SIGNATURE: &str = "/c/b.json.minisig";
const POINTER: &str = "/c/latest.json";

fn tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at("usr/lib")).unwrap();
    for (name, length) in [("usr/lib/a", 900), ("usr/lib/b", 5000), ("usr/lib/c", 0), ("usr/d", 700)] {
        let bytes: Vec<u8> = (0..length).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
        fs::write(at(name), bytes).unwrap();
    }
    fs::hard_link(at("usr/lib/a"), at("usr/lib/a2")).unwrap();
    symlink("usr/lib", at("lib")).unwrap();
    // As much as the shortest headers hold.
    let touch = ["-depth", "-exec", "touch", "-h", "-d", "@1600000000", "{}", "+"];
    assert!(Command::new("find").arg(folder.path()).args(touch).status().unwrap().success());
    folder
}

fn archive(tree: &Path) -> Vec<u8> {
    let options = ["-c", "--format=ustar", "--sort=name", "--numeric-owner", "-b1", "-C"];
    let output = Command::new("tar").args(options).arg(tree).arg(".").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A key pair, the public one as the agent has it.
fn keys() -> (KeyPair, Keys) {
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("site.pub"), pair.pk.to_box().unwrap().to_string()).unwrap();
    let keys = Keys::in_folder(folder.path()).unwrap();
    (pair, keys)
}

fn sign(pair: &KeyPair, bytes: &[u8]) -> Vec<u8> {
    minisign::sign(Some(&pair.pk), &pair.sk, Cursor::new(bytes), Some("c b"), None).unwrap().to_string().into_bytes()
}

/// A server whose store a test changes as it likes.
struct Store {
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    server: Server,
}

impl Store {
    fn new(files: HashMap<String, Vec<u8>>) -> Self {
        let files = Arc::new(Mutex::new(files));
        let served = Arc::clone(&files);
        let answer = move |request: &Request, stream: &mut std::net::TcpStream| {
            let store = served.lock().unwrap().clone();
            from_store(&store, request, stream)
        };
        Self { files, server: Server::start(answer).unwrap() }
    }

    /// Runs `work` while a bit of a file is flipped.
    fn flipped<T>(&self, path: &str, bit: usize, work: impl FnOnce() -> T) -> T {
        let flip = || self.files.lock().unwrap().get_mut(path).unwrap()[bit / 8] ^= 1 << (bit % 8);
        flip();
        let done = work();
        flip();
        done
    }

    fn bits(&self, path: &str) -> usize {
        self.files.lock().unwrap()[path].len() * 8
    }
}

fn install(settings: &Settings, keys: &Keys) -> anyhow::Result<(TempDir, VerifiedRoot)> {
    let root = tempfile::tempdir_in("/dev/shm")?;
    let anchors = Anchors { keys: keys.clone(), ..Anchors::default() };
    let unpack = Unpack { owners: true, workers: 2, mount: None };
    let verified = common::install_trusting(&anchors, settings, unpack, root.path(), &mut Tally::default())?;
    Ok((root, verified))
}

/// Every bit at this distance. Each run begins at another one, so that in time all are tried; a failure names its bit.
fn sample(bits: usize, step: usize) -> impl Iterator<Item = usize> {
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() as usize % step;
    (first..bits).step_by(step)
}

/// What flips led to.
#[derive(Default)]
struct Outcomes {
    refused: usize,
    right: usize,
}

impl Outcomes {
    fn note(&mut self, expected: &Path, installed: anyhow::Result<(TempDir, VerifiedRoot)>, what: &str) {
        match installed {
            Ok((root, _)) => {
                let differences = compare_trees(expected, root.path()).unwrap();
                assert!(differences.is_empty(), "{what}: {}", differences.join("\n"));
                self.right += 1;
            }
            Err(error) => {
                assert!(!format!("{error:#}").contains("panicked"), "{what}: {error:#}");
                self.refused += 1;
            }
        }
    }
}

/// A signed image of a few chunks, as it stands in a store.
fn published(tree: &Path, pair: &KeyPair) -> (Image, HashMap<String, Vec<u8>>) {
    packed(tree, pair, Media::TarZstd)
}

fn packed(tree: &Path, pair: &KeyPair, media: Media) -> (Image, HashMap<String, Vec<u8>>) {
    let image = publish(&archive(tree), media, 2500);
    assert!((4..9).contains(&image.manifest.chunks.len()), "{}", image.manifest.chunks.len());
    let mut files = image.store();
    files.insert(SIGNATURE.to_owned(), sign(pair, &image.json()));
    (image, files)
}

// F34
#[test]
fn every_flipped_bit_of_manifest_and_signature_is_refused() {
    let (pair, keys) = keys();
    let (image, files) = published(tree().path(), &pair);
    let (json, signature) = (image.json(), &files[SIGNATURE]);
    let believe = |json: &[u8], signature: &[u8]| -> anyhow::Result<Manifest> {
        keys.verify(json, &SignatureFile::parse(signature)?)?;
        Manifest::parse(json)
    };
    assert_eq!(believe(&json, signature).unwrap(), image.manifest);
    let mut flipped = json.clone();
    for bit in 0..json.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(believe(&flipped, signature).is_err(), "bit {bit}: {}", String::from_utf8_lossy(&flipped));
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    // The first line of a signature is a comment that nobody signs; whatever it says, it is about these bytes.
    let comment = signature.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut flipped = signature.clone();
    let mut taken = Vec::new();
    for bit in 0..signature.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(manifest) = believe(&json, &flipped) {
            assert_eq!(manifest, image.manifest);
            taken.push(bit);
        }
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    let inside: Vec<&usize> = taken.iter().filter(|bit| **bit >= comment * 8).collect();
    // Line ends may be others.
    assert!(inside.len() <= 8, "{inside:?}");
}

// F33, F34
#[test]
fn a_flipped_bit_anywhere_in_a_store_makes_no_other_tree() {
    let tree = tree();
    let (pair, keys) = keys();
    let (image, files) = published(tree.path(), &pair);
    let file = format!("/c/{}", image.manifest.file);
    let digest: [u8; 32] = Sha256::digest(image.json()).into();
    let store = Store::new(files);
    let newest = common::settings(&[store.server.url(POINTER)]);
    let asked = Settings { sha256: Some(digest), ..common::settings(&[store.server.url(MANIFEST)]) };
    let untrusting = Keys::default();
    for (settings, keys, trust) in [(&newest, &keys, Trust::Signed), (&asked, &untrusting, Trust::Digest)] {
        let (root, verified) = install(settings, keys).unwrap();
        assert!(compare_trees(tree.path(), root.path()).unwrap().is_empty());
        assert_eq!(verified.facts().trust, trust);
    }
    for (path, step, settings, keys) in [
        (POINTER, 3, &newest, &keys),
        (SIGNATURE, 41, &newest, &keys),
        (MANIFEST, 157, &newest, &keys),
        (file.as_str(), 157, &newest, &keys),
        (MANIFEST, 157, &asked, &untrusting),
        (file.as_str(), 157, &asked, &untrusting),
    ] {
        let mut outcomes = Outcomes::default();
        for bit in sample(store.bits(path), step) {
            let installed = store.flipped(path, bit, || install(settings, keys));
            outcomes.note(tree.path(), installed, &format!("{path}, bit {bit}"));
        }
        let Outcomes { refused, right } = outcomes;
        println!("{path}: {refused} refused, {right} made no difference");
        assert!(refused > 20, "{path}: {refused}");
        assert!(right == 0 || path == SIGNATURE || path == POINTER, "{path}: {right}");
    }
}

// F33, F38
#[test]
fn a_flipped_bit_in_chunks_of_gzip_makes_no_other_tree() {
    let tree = tree();
    let (pair, keys) = keys();
    let (image, files) = packed(tree.path(), &pair, Media::TarGzip);
    let file = format!("/c/{}", image.manifest.file);
    let store = Store::new(files);
    let settings = common::settings(&[store.server.url(MANIFEST)]);
    let (root, _) = install(&settings, &keys).unwrap();
    assert!(compare_trees(tree.path(), root.path()).unwrap().is_empty());
    let mut outcomes = Outcomes::default();
    for bit in sample(store.bits(&file), 401) {
        let installed = store.flipped(&file, bit, || install(&settings, &keys));
        outcomes.note(tree.path(), installed, &format!("{file}, bit {bit}"));
    }
    let Outcomes { refused, right } = outcomes;
    println!("{file}: {refused} refused, {right} made no difference");
    assert!(refused > 20 && right == 0, "{refused} refused, {right} made no difference");
}

// F33
#[test]
fn a_bit_flipped_on_the_way_once_costs_a_chunk_and_no_more() {
    let tree = tree();
    let (pair, keys) = keys();
    let (image, files) = published(tree.path(), &pair);
    for bit in sample(image.file.len() * 8, 701) {
        let mut bad = files.clone();
        bad.get_mut(&format!("/c/{}", image.manifest.file)).unwrap()[bit / 8] ^= 1 << (bit % 8);
        let good = files.clone();
        let server = Server::start(move |request, stream| {
            from_store(if request.headers.contains_key("range") { &good } else { &bad }, request, stream)
        })
        .unwrap();
        let (root, _) = install(&common::settings(&[server.url(MANIFEST)]), &keys).unwrap();
        let differences = compare_trees(tree.path(), root.path()).unwrap();
        assert!(differences.is_empty(), "bit {bit}: {}", differences.join("\n"));
        assert_eq!(server.requests().len(), 4, "manifest, signature, file and one chunk");
    }
}

// F33, F35, F38
#[test]
fn a_flipped_bit_of_a_plain_image_is_refused_by_its_digest() {
    let tree = tree();
    let archive = archive(tree.path());
    for (name, packed) in [("/i.tar.gz", gzip(&archive)), ("/i.tar.zst", zstd(&archive))] {
        let digest: [u8; 32] = Sha256::digest(&packed).into();
        let store = Store::new(HashMap::from([(name.to_owned(), packed)]));
        let settings = Settings { sha256: Some(digest), ..common::settings(&[store.server.url(name)]) };
        install(&settings, &Keys::default()).unwrap();
        let mut outcomes = Outcomes::default();
        for bit in sample(store.bits(name), 19) {
            let installed = store.flipped(name, bit, || install(&settings, &Keys::default()));
            outcomes.note(tree.path(), installed, &format!("{name}, bit {bit}"));
        }
        println!("{name}: {} refused, {} made no difference", outcomes.refused, outcomes.right);
        assert_eq!(outcomes.right, 0, "{name}");
    }
}
