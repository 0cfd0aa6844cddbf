//! Signatures of plain images: what is believed, what is refused, and that nothing is believed in its place. Needs root,
//! as stage 1 has it.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::HashMap;

use common::published::{from_store, publish};
use common::signer::Signer;
use rootstream::facts::NodeFacts;
use rootstream::failure::Failure;
use rootstream::image::manifest::Media;
use rootstream::image::{Anchors, Settings, Tally, Trust, Unpack, VerifiedRoot};
use rootstream_lab::faulty::{Server, answer};
use sha2::{Digest as _, Sha256};

const UNPACK: Unpack<'static> = Unpack { owners: true, workers: 2, mount: None };

fn image(content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "etc/motd", content).unwrap();
    zstd::bulk::compress(&tar.into_inner().unwrap(), 3).unwrap()
}

/// A server of these files; what is not among them is 404.
fn server(files: &[(&str, &[u8])]) -> Server {
    let files: HashMap<String, Vec<u8>> =
        files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
    Server::start(move |request, stream| match files.get(&request.path) {
        Some(bytes) => answer(stream, "200 OK", &[("ETag", "\"1\"")], bytes),
        None => answer(stream, "404 Not Found", &[], b"<html>"),
    })
    .unwrap()
}

fn settings(urls: &[String]) -> Settings {
    common::settings(urls)
}

fn install(settings: &Settings, anchors: &Anchors) -> Result<VerifiedRoot, String> {
    let root = tempfile::tempdir().unwrap();
    common::install_on(settings, anchors, &NodeFacts::default(), UNPACK, root.path(), &mut Tally::default())
        .map_err(|error| Failure::from_error(&error).to_string())
}

fn refused(urls: &[String], anchors: &Anchors) -> String {
    install(&settings(urls), anchors).unwrap_err()
}

// F34
#[test]
fn a_signed_plain_image_is_verified_while_it_streams() {
    let (signer, image) = (Signer::new(), image(&[7; 3_000_000]));
    let signature = signer.sign(&image, "i.tar.zst");
    let server = server(&[("/i.tar.zst", &image), ("/i.tar.zst.minisig", &signature)]);
    let urls = [server.url("/i.tar.zst")];
    let root = install(&settings(&urls), &signer.anchors()).unwrap();
    assert_eq!((root.trust(), root.facts().trust), (Trust::Signed, Trust::Signed));
    // The signature first: without one there is no download.
    let paths: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/i.tar.zst.minisig", "/i.tar.zst"]);

    // Where a digest is asked for too, both must hold.
    let digest = |bytes: &[u8]| Settings { sha256: Some(Sha256::digest(bytes).into()), ..settings(&urls) };
    assert_eq!(install(&digest(&image), &signer.anchors()).unwrap().trust(), Trust::Signed);
    let why = install(&digest(b"other"), &signer.anchors()).unwrap_err();
    assert!(why.contains("the image's sha256 is"), "{why}");
    // Nobody trusts any key: nobody asks.
    assert_eq!(install(&settings(&urls), &Anchors::default()).unwrap().trust(), Trust::None);
}

// F34
#[test]
fn what_is_not_signed_by_a_trusted_key_is_refused() {
    let (signer, other, image) = (Signer::new(), Signer::new(), image(b"hello"));
    let good = signer.sign(&image, "i.tar.zst");
    let mut flipped = image.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut comment = good.clone();
    let at = comment.windows(9).position(|window| window == b"timestamp").unwrap();
    comment[at + 10] = b'2';
    let cases: [(&str, Option<Vec<u8>>, &str); 8] = [
        ("missing", None, "it has no signature: the server answered 404 Not Found to http://"),
        ("wrong key", Some(other.sign(&image, "i.tar.zst")), "not made with the trusted key"),
        ("truncated", Some(good[..good.len() / 2].to_vec()), "damaged or cut short"),
        ("empty", Some(Vec::new()), "damaged or cut short"),
        ("no signature at all", Some(b"<html>".to_vec()), "damaged or cut short"),
        ("of other bytes", Some(signer.sign(b"other", "i.tar.zst")), "not of these bytes"),
        ("of another file", Some(signer.sign(&image, "old.tar.zst")), "of \"old.tar.zst\", not of \"i.tar.zst\""),
        ("changed comment", Some(comment), "not of these bytes"),
    ];
    for (case, signature, expected) in cases {
        let mut files = vec![("/i.tar.zst", image.as_slice())];
        files.extend(signature.iter().map(|signature| ("/i.tar.zst.minisig", signature.as_slice())));
        let server = server(&files);
        let why = refused(&[server.url("/i.tar.zst")], &signer.anchors());
        assert!(why.contains(expected) && why.contains("what to do: sign"), "{case}: {why}");
        // A digest on the command line takes no signature's place.
        let digest = Settings { sha256: Some(Sha256::digest(&image).into()), ..settings(&[server.url("/i.tar.zst")]) };
        let why = install(&digest, &signer.anchors()).unwrap_err();
        assert!(why.contains(expected), "{case}: {why}");
    }
    // A single flipped byte of the image. zstd may notice first, or nobody but the signature.
    let server = server(&[("/i.tar.zst", &flipped), ("/i.tar.zst.minisig", &good)]);
    refused(&[server.url("/i.tar.zst")], &signer.anchors());
}

// F34
#[test]
fn bytes_that_only_the_signature_covers_count() {
    // A plain tar whose content is changed: well-formed, of the same length, and wrong.
    let signer = Signer::new();
    let tar = |content: &[u8]| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "etc/motd", content).unwrap();
        tar.into_inner().unwrap()
    };
    let signature = signer.sign(&tar(b"hello"), "i.tar");
    let server = server(&[("/i.tar", &tar(b"hellp")), ("/i.tar.minisig", &signature)]);
    let why = refused(&[server.url("/i.tar")], &signer.anchors());
    assert!(why.contains("the signature is not of these bytes"), "{why}");
}

// F34
#[test]
fn another_mirrors_signature_will_do() {
    let (signer, image) = (Signer::new(), image(b"hello"));
    let (good, other) = (signer.sign(&image, "i.tar.zst"), Signer::new().sign(&image, "i.tar.zst"));
    let bad = server(&[("/i.tar.zst", &image), ("/i.tar.zst.minisig", &other)]);
    let none = server(&[("/i.tar.zst", &image)]);
    let right = server(&[("/i.tar.zst", &image), ("/i.tar.zst.minisig", &good)]);
    let urls = |servers: &[&Server]| servers.iter().map(|server| server.url("/i.tar.zst")).collect::<Vec<_>>();
    for servers in [[&bad, &none, &right], [&none, &right, &bad]] {
        let root = install(&settings(&urls(&servers)), &signer.anchors()).unwrap();
        assert_eq!(root.trust(), Trust::Signed);
    }
    let why = refused(&urls(&[&bad, &none]), &signer.anchors());
    assert!(why.contains("is refused"), "{why}");
}

// F34
#[test]
fn unsigned_is_said_aloud() {
    let (signer, image) = (Signer::new(), image(b"hello"));
    let server = server(&[("/i.tar.zst", &image)]);
    let settings = Settings { unsigned: true, ..settings(&[server.url("/i.tar.zst")]) };
    let root = install(&settings, &signer.anchors()).unwrap();
    assert_eq!(root.trust(), Trust::None);
    assert!(root.facts().warnings.iter().any(|warning| warning.contains("rootstream.unsigned")));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x"), "x").unwrap();
    let options = ["-c", "--format=pax", "--sort=name", "--numeric-owner", "-C"];
    let tar = std::process::Command::new("tar").args(options).arg(folder.path()).arg(".").output().unwrap();
    let store = publish(&tar.stdout, Media::TarZstd, 32_768).store();
    let published = Server::start(move |request, stream| from_store(&store, request, stream)).unwrap();
    let of_published = Settings { unsigned: true, ..common::settings(&[published.url("/c/b.json")]) };
    let root = install(&of_published, &signer.anchors()).unwrap();
    assert!(root.facts().warnings.iter().any(|warning| warning.contains("rootstream.unsigned")));
    // Where nothing is trusted there is nothing to say.
    let root = install(&settings, &Anchors::default()).unwrap();
    assert!(root.facts().warnings.is_empty());
}

// F36
#[test]
fn a_plain_image_cannot_say_that_it_is_new_enough() {
    let server = server(&[("/i.tar.zst", &image(b"hello"))]);
    let settings =
        Settings { not_before: Some("2026-11-22T00:00:00Z".to_owned()), ..settings(&[server.url("/i.tar.zst")]) };
    let why = install(&settings, &Anchors::default()).unwrap_err();
    assert!(why.contains("is a plain image") && why.contains("2026-11-22T00:00:00Z"), "{why}");
    assert!(server.requests().is_empty());
}
