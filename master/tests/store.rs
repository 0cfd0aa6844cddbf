//! Builds in the store: verified, shown, listed, removed.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use common::{RELEASE, TestSite, image, noise, stderr};
use rootstream::image::manifest::{Chunk, Continued, Digest, FORMAT, Latest, Manifest, Media};
use sha2::{Digest as _, Sha256};

fn site(more: &[(&str, &[u8])]) -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/24");
    site.built("compute", &image(more));
    site
}

/// Publishes and returns the name of the build.
fn publish(site: &TestSite, words: &[&str]) -> String {
    let file = site.done(&[&["image", "publish", "compute"], words].concat());
    file.trim().rsplit('/').next().unwrap().split('.').next().unwrap().to_owned()
}

fn refused(site: &TestSite, words: &[&str], why: &str) {
    let output = site.run(words);
    assert_eq!(output.status.code(), Some(1), "{why}: {}", stderr(&output));
    assert!(stderr(&output).contains(why), "{why}: {}", stderr(&output));
}

fn in_store(site: &TestSite, build: &str, suffix: &str) -> PathBuf {
    site.path(&format!("store/compute/{build}.{suffix}"))
}

const VERIFY: [&str; 3] = ["image", "verify", "compute"];

// F33, F34
#[test]
fn every_byte_of_a_build_is_verified() {
    let site = site(&[("big", &noise(5_000_000)), ("etc/x", b"x")]);
    for format in ["tar.gz", "tar.zst"] {
        let build = publish(&site, &["--format", format, "--level", "1"]);
        site.done(&VERIFY);
        site.done(&[&VERIFY[..], &[&build]].concat());
        let file = in_store(&site, &build, format);
        let whole = fs::read(&file).unwrap();
        for at in [0, 20, whole.len() / 3, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            fs::write(&file, damaged).unwrap();
            refused(&site, &VERIFY, "why: chunk ");
            refused(&site, &VERIFY, "its sha256 is ");
        }
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        refused(&site, &VERIFY, &format!("has {} bytes, its manifest says {}", whole.len() - 1, whole.len()));
        fs::remove_file(&file).unwrap();
        refused(&site, &VERIFY, &format!("opening {}: No such file", file.display()));
        fs::write(&file, whole).unwrap();
    }
    refused(&site, &[&VERIFY[..], &["nothing"]].concat(), "the image compute has no build nothing");
    refused(&site, &["image", "verify", "other"], "the image other is not published");
}

// F34
#[test]
fn the_manifest_is_verified_against_key_and_content() {
    let site = site(&[("big", &noise(5_000_000))]);
    let build = publish(&site, &[]);
    let path = in_store(&site, &build, "json");
    let text = fs::read_to_string(&path).unwrap();
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    let lie = |change: &dyn Fn(&mut Manifest), why: &str| {
        let mut lying = manifest.clone();
        change(&mut lying);
        fs::write(&path, serde_json::to_vec(&lying).unwrap()).unwrap();
        refused(&site, &VERIFY, why);
    };
    lie(&|m| m.unpacked_bytes += 1, "bytes unpacked, its manifest says");
    lie(&|m| m.unpacked_pages += 1, "pages unpacked, its manifest says");
    lie(&|m| m.inodes -= 1, "inodes, its manifest says");
    lie(&|m| m.largest_file = 1, "it has 5000000 bytes in its largest file, its manifest says 1");
    lie(&|m| m.kernels.clear(), "it has modules for the kernels");
    lie(&|m| m.init = None, "its manifest says None");
    lie(&|m| m.sha256 = Digest([7; 32]), "its sha256 is");
    lie(&|m| m.chunks[1].sha256 = Digest([7; 32]), "chunk 1, bytes ");
    let last = format!("chunk {}, bytes ", manifest.chunks.len() - 1);
    lie(&|m| m.chunks.last_mut().unwrap().unpacked -= 512, &last);
    let rename = |m: &mut Manifest| {
        m.chunks.iter_mut().filter_map(|chunk| chunk.continues.as_mut()).for_each(|file| file.path = "bog".to_owned());
    };
    lie(&rename, "the manifest says otherwise");
    lie(&|m| m.name = "other".to_owned(), "is of the image other");
    fs::write(&path, &text).unwrap();
    site.done(&VERIFY);

    site.done(&["key", "new"]);
    refused(&site, &VERIFY, "it is not signed");
    let build = publish(&site, &[]);
    site.done(&VERIFY);
    let path = in_store(&site, &build, "json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"amd64\"", "\"arm64\"")).unwrap();
    refused(&site, &VERIFY, "the signature is not of these bytes");
}

/// A chunk: bytes unpacked, and what it continues.
type Forged<'a> = (usize, Option<(&'a str, u64, u64)>);

/// Puts an archive into the store, cut into chunks of these lengths, as if somebody else had published it.
fn forge(site: &TestSite, archive: &[u8], chunks: &[Forged<'_>]) {
    let mut manifest = Manifest {
        format: FORMAT,
        name: "compute".to_owned(),
        build: "b".to_owned(),
        created: "2026-11-22T18:00:00Z".to_owned(),
        arch: "amd64".to_owned(),
        kernels: Vec::new(),
        media: Media::TarZstd,
        file: "b.tar.zst".to_owned(),
        size: 0,
        sha256: Digest([0; 32]),
        unpacked_bytes: 0,
        unpacked_pages: 0,
        inodes: 0,
        largest_file: 0,
        init: None,
        chunks: Vec::new(),
    };
    let (mut file, mut at) = (Vec::new(), 0_usize);
    for (length, continues) in chunks {
        let plain = &archive[at..at.saturating_add(*length).min(archive.len())];
        at = at.saturating_add(*length);
        let packed = zstd::bulk::compress(plain, 1).unwrap();
        manifest.chunks.push(Chunk {
            offset: file.len() as u64,
            size: packed.len() as u64,
            unpacked: plain.len() as u64,
            sha256: Digest(Sha256::digest(&packed).into()),
            continues: continues.map(|(path, offset, total)| Continued { path: path.to_owned(), offset, total }),
        });
        file.extend(packed);
    }
    manifest.size = file.len() as u64;
    manifest.sha256 = Digest(Sha256::digest(&file).into());
    let latest =
        Latest { format: FORMAT, name: "compute".to_owned(), build: "b".to_owned(), manifest: "b.json".to_owned() };
    fs::create_dir_all(site.path("store/compute")).unwrap();
    fs::write(in_store(site, "b", "tar.zst"), file).unwrap();
    fs::write(in_store(site, "b", "json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    fs::write(site.path("store/compute/latest.json"), serde_json::to_vec(&latest).unwrap()).unwrap();
}

/// An archive of entries: name, type flag, target or length of data.
fn archive(entries: &[(&str, u8, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, flag, what) in entries {
        let mut header = tar::Header::new_ustar();
        let size = if *flag == b'0' { what.parse().unwrap_or(0) } else { 0 };
        header.set_size(size);
        header.set_mode(0o755);
        header.set_entry_type(tar::EntryType::new(*flag));
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(flag, b'1' | b'2') {
            header.set_link_name(what).unwrap();
        }
        if *flag == b'g' {
            header.set_size(13);
        }
        header.set_cksum();
        bytes.extend(header.as_bytes());
        if *flag == b'g' {
            bytes.extend(b"13 comment=x\n");
        }
        bytes.extend(vec![b'x'; size as usize]);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn what_is_not_canonical_is_named() {
    let site = site(&[]);
    let root = ("./", b'5', "");
    for (entries, why) in [
        (&[root, ("a", b'0', "1"), ("a", b'0', "2")][..], "the entry \"a\": it comes twice"),
        (&[("a/", b'5', ""), root], "the entry \"a/\": its directory did not come before it"),
        (&[root, ("a/", b'5', ""), ("./", b'5', "")], "the root is not the first"),
        (&[root, ("a/b", b'0', "1")], "the entry \"a/b\": its directory did not come"),
        (&[root, ("a", b'2', "b"), ("a/b", b'0', "1")], "the entry \"a/b\": its directory did not come"),
        (&[root, ("./a", b'0', "1")], "it would be written \"a\""),
        (&[root, ("/a", b'0', "1")], "it would be written \"a\""),
        (&[root, ("a", b'5', "")], "it would be written \"a/\""),
        (&[root, ("a/../b", b'0', "1")], ".. component"),
        (&[root, ("a", b'1', "b"), ("b", b'0', "1")], "the entry \"a\": it is a hard link to \"b\""),
        (&[root, ("a", b'0', "1"), ("b", b'1', "a"), ("c", b'1', "b")], "the entry \"c\": it is a hard link to \"b\""),
        (&[root, ("b/", b'5', ""), ("c", b'1', "b")], "the entry \"c\": it is a hard link to \"b\""),
        (&[root, ("", b'g', ""), ("a", b'0', "1")], "a global header"),
        (&[root, ("a", b'Q', "")], "1 entries are of unknown types"),
        (&[], "the archive holds nothing"),
    ] {
        forge(&site, &archive(entries), &[(usize::MAX, None)]);
        refused(&site, &VERIFY, why);
    }
    let good = archive(&[root, ("a", b'0', "9000"), ("b", b'0', "1")]);
    let whole = good.len();
    forge(&site, &good[..whole - 1024], &[(usize::MAX, None)]);
    refused(&site, &VERIFY, "no end mark");
    // `a` begins at byte 512, its data at 1024, its padding at 10024, `b` at 10240, the end mark at 11264.
    let a = |offset| Some(("a", offset, 9000));
    for (chunks, why) in [
        (&[(512, None), (usize::MAX, None)][..], "bytes unpacked, its manifest says 0"),
        (&[(1024 + 4096, None), (usize::MAX, a(4096))], "bytes unpacked, its manifest says 0"),
        (&[(10240, None), (usize::MAX, None)], "bytes unpacked, its manifest says 0"),
        (&[(700, None), (usize::MAX, None)], "chunk 1 begins at byte 700, which is neither"),
        (&[(1024, None), (usize::MAX, None)], "chunk 1 begins at byte 1024, which is neither"),
        (&[(10100, None), (usize::MAX, None)], "chunk 1 begins at byte 10100, which is neither"),
        (&[(11264, None), (usize::MAX, None)], "a chunk begins in the archive's end mark"),
        (
            &[(1024 + 4096, None), (usize::MAX, None)],
            "chunk 1 begins 4096 bytes into it, and the manifest says otherwise",
        ),
        (&[(1024 + 4096, None), (usize::MAX, Some(("b", 4096, 9000)))], "and the manifest says otherwise"),
        (&[(1024 + 4096, None), (usize::MAX, a(4095))], "and the manifest says otherwise"),
        (&[(1024 + 512, None), (usize::MAX, a(512))], "chunk 1 begins within a page of it"),
        (&[(10240, None), (usize::MAX, Some(("b", 1, 2)))], "said to be inside a file"),
    ] {
        forge(&site, &good, chunks);
        refused(&site, &VERIFY, why);
    }
}

#[test]
fn builds_are_listed_and_shown() {
    let site = site(&[("hole", &[0; 1_000_000])]);
    let first = publish(&site, &["--level", "1"]);
    site.done(&["key", "new"]);
    site.built("compute", &image(&[("more", b"x")]));
    let second = publish(&site, &["--format", "tar.gz"]);
    let listed = site.done(&["image", "list", "compute"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    let line = |build: &str| *lines.iter().find(|line| line.starts_with(build)).unwrap();
    assert!(line(&first).contains("tar+zstd") && line(&first).contains(" no "), "{listed}");
    assert!(line(&second).contains("tar+gzip") && line(&second).contains(" yes "), "{listed}");
    assert!(line(&second).ends_with("(newest)") && !line(&first).ends_with("(newest)"), "{listed}");
    let json: serde_json::Value = serde_json::from_str(&site.done(&["image", "list", "compute", "--json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);

    let shown = site.done(&["image", "show", "compute", &first]);
    for part in
        ["image     compute", &format!("kernels   {RELEASE}"), "signed    no", "in 1 chunks", "init      /sbin/init"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&site.done(&["image", "show", "compute", "--json"])).unwrap();
    assert_eq!((json["build"].as_str(), json["signed"].as_bool()), (Some(second.as_str()), Some(true)));
    assert_eq!(json["chunks"], 1);
}

#[test]
fn a_build_that_nodes_may_boot_is_not_removed_by_mistake() {
    let site = site(&[]);
    let first = publish(&site, &["--level", "1"]);
    let second = publish(&site, &["--level", "2"]);
    let third = publish(&site, &["--level", "3"]);
    site.done(&["node", "add", "n1", "--mac", "52:54:00:ac:10:01", "--ip", "172.16.0.1"]);
    fs::create_dir_all(site.path("tftp/pxelinux.cfg")).unwrap();
    let menu = format!("APPEND rootstream.image=http://m/images/compute/{first}.json\n");
    fs::write(site.path("tftp/pxelinux.cfg/01-52-54-00-ac-10-01"), menu).unwrap();
    let rm = |build: &str| ["image", "rm", "compute", build].map(str::to_owned);
    let words = rm(&first);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    refused(&site, &words, "is in the boot menus of n1");
    refused(&site, &["image", "rm", "compute", &third], "is the newest");
    refused(&site, &["image", "rm", "compute", "nothing"], "has no build nothing");
    site.done(&["image", "rm", "compute", &second]);
    assert!(!in_store(&site, &second, "json").exists() && !in_store(&site, &second, "tar.zst").exists());
    let forced = site.run(&["image", "rm", "compute", &third, "--force"]);
    assert!(stderr(&forced).contains(&format!("the newest is {first}")), "{}", stderr(&forced));
    site.done(&VERIFY);
    let forced = site.run(&["image", "rm", "compute", &first, "--force"]);
    assert!(stderr(&forced).contains("n1 cannot boot until"), "{}", stderr(&forced));
    assert!(!site.path("store/compute/latest.json").exists());
    refused(&site, &VERIFY, "is not published");
}

// M7
#[test]
fn what_killed_commands_left_is_cleared_away() {
    let site = site(&[]);
    let good = publish(&site, &[]);
    let left = in_store(&site, "20200101-000000-00112233", "tar.zst");
    let foreign = site.path("store/compute/README.txt");
    for path in [&left, &foreign] {
        fs::File::create(path).unwrap().write_all_at(b"x", 0).unwrap();
    }
    publish(&site, &["--level", "1"]);
    assert!(!left.exists() && foreign.exists() && in_store(&site, &good, "tar.zst").exists());
}
