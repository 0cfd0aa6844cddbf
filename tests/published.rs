//! Published images: chunks in any order, from servers and manifests that are not always what they should be. Needs
//! root, as stage 1 has it.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::published::{Image, from_store, from_store_at_most, publish, zstd};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rootstream::failure::Failure;
use rootstream::image::manifest::{Digest, Media};
use rootstream::image::{Settings, Trust, VerifiedRoot};
use rootstream_lab::faulty::{Request, Server, answer};
use rootstream_lab::tree::compare_trees;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Bytes that do not compress, different for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| step()).collect()
}

/// A tree with what matters to chunks: files of all sizes around them, holes, links, closed directories.
fn tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    for path in ["etc", "usr/lib/deep/er", "usr/bin", "closed/inner", "empty"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    for (index, size) in [0, 1, 511, 512, 513, 4096, 30_000, 32_768, 65_536, 131_072, 200_000].into_iter().enumerate() {
        fs::write(at(&format!("usr/lib/deep/er/f{index}")), noise(index as u64, size)).unwrap();
    }
    let mut holes = vec![0; 300_000];
    holes[150_000..150_010].fill(7);
    fs::write(at("usr/lib/holes"), &holes).unwrap();
    fs::write(at("usr/lib/ends-in-zeros"), [noise(50, 70_000), vec![0; 90_000]].concat()).unwrap();
    fs::write(at("usr/bin/setuid"), noise(60, 150_000)).unwrap();
    fs::set_permissions(at("usr/bin/setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at("usr/bin/setuid"), at("closed/inner/again")).unwrap();
    fs::hard_link(at("usr/bin/setuid"), at("a-name-before-it")).unwrap();
    symlink("usr/lib", at("lib")).unwrap();
    for name in 0..40 {
        fs::write(at(&format!("etc/{name}")), noise(name, 3000)).unwrap();
    }
    let odd = folder.path().join(OsStr::from_bytes(b"usr/lib/b\xffytes %25\n"));
    fs::write(&odd, noise(70, 70_000)).unwrap();
    mknod(&at("etc/null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    mknod(&at("etc/pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0).unwrap();
    for (path, uid) in [(at("usr/bin"), 33), (at("lib"), 7), (odd, 3_000_000)] {
        lchown(path, Some(uid), Some(uid + 1)).unwrap();
    }
    fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    xattr::set(at("usr/bin/setuid"), "trusted.of", b"value").unwrap();
    folder
}

/// An archive that is canonical but for the `./` before its names, which is taken off.
fn archive(tree: &Path) -> Vec<u8> {
    let options = ["-c", "--format=pax", "--sort=name", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C"];
    let output = Command::new("tar").args(options).arg(tree).arg(".").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn serve(store: HashMap<String, Vec<u8>>) -> Server {
    Server::start(move |request, stream| from_store(&store, request, stream)).unwrap()
}

fn install_with(settings: &Settings, workers: usize) -> anyhow::Result<(TempDir, VerifiedRoot)> {
    let root = tempfile::tempdir()?;
    let verified = common::install_by(settings, true, workers, root.path())?;
    Ok((root, verified))
}

fn install(server: &Server, workers: usize) -> anyhow::Result<(TempDir, VerifiedRoot)> {
    install_with(&common::settings(&[server.url("/c/b.json")]), workers)
}

fn refusal(image: &Image) -> String {
    let server = serve(image.store());
    Failure::from_error(&install(&server, 2).expect_err("an image that must be refused")).to_string()
}

fn assert_same(expected: &Path, root: &Path) {
    let differences = compare_trees(expected, root).unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

// F48, F49, F51, F52
#[test]
fn any_number_of_workers_makes_the_tree_that_was_published() {
    let tree = tree();
    let archive = archive(tree.path());
    for (media, most) in [(Media::TarZstd, 32_768), (Media::TarGzip, 100_000), (Media::TarZstd, 4 << 20)] {
        let server = serve(publish(&archive, media, most).store());
        for workers in [1, 2, 8] {
            let (root, verified) = install(&server, workers).unwrap();
            assert_same(tree.path(), root.path());
            let holes = fs::metadata(root.path().join("usr/lib/holes")).unwrap();
            assert!(holes.blocks() * 512 <= 8192, "{} bytes on disk", holes.blocks() * 512);
            let facts = verified.facts();
            assert_eq!((facts.media, facts.trust, facts.retries), (media.name(), Trust::None, 0));
            assert_eq!(facts.build.as_ref().unwrap().name, "c");
        }
    }
}

// F24
#[test]
fn a_transfer_that_breaks_again_and_again_goes_on_where_it_was() {
    let tree = tree();
    let image = publish(&archive(tree.path()), Media::TarZstd, 32_768);
    let store = image.store();
    let server = Server::start(move |request, stream| from_store_at_most(&store, request, stream, 400_000)).unwrap();
    let patient = Settings { retry: Duration::from_secs(60), ..common::settings(&[server.url("/c/b.json")]) };
    let (root, verified) = install_with(&patient, 2).unwrap();
    assert_same(tree.path(), root.path());
    assert!(verified.facts().retries as usize >= image.file.len() / 400_000, "{:?}", verified.facts());
}

// F33
#[test]
fn a_damaged_chunk_is_fetched_again_from_the_other_mirror() {
    let tree = tree();
    let image = publish(&archive(tree.path()), Media::TarZstd, 32_768);
    let chunk = image.manifest.chunks[3].clone();
    let mut bad = image.clone();
    bad.file[chunk.offset as usize + 100] ^= 4;
    let (good, bad) = (serve(image.store()), serve(bad.store()));
    // Wherever it begins, the tree is right.
    for urls in [[&good, &bad], [&bad, &good]] {
        let urls = urls.map(|server| server.url("/c/b.json"));
        let (root, _) = install_with(&common::settings(&urls), 2).unwrap();
        assert_same(tree.path(), root.path());
    }
    let (root, _) = install(&good, 2).unwrap();
    assert_same(tree.path(), root.path());
    // With the damaged one alone there is an end.
    let start = Instant::now();
    let patient = Settings { retry: Duration::from_secs(128), ..common::settings(&[bad.url("/c/b.json")]) };
    let error = Failure::from_error(&install_with(&patient, 2).unwrap_err()).to_string();
    let range = format!("bytes {}-{}", chunk.offset, chunk.offset + chunk.size - 1);
    assert!(error.contains(&range) && error.contains("fetched 4 times"), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(3), "one server is not asked again at once: {:?}", start.elapsed());
    let asked =
        bad.requests().iter().filter(|r| r.headers.get("range").is_some_and(|r| r.ends_with(&range[6..]))).count();
    assert!(asked >= 3, "{asked}");
}

// F18-20
#[test]
fn a_mirror_with_half_a_build_does_not_use_up_the_patience() {
    let tree = tree();
    let image = publish(&archive(tree.path()), Media::TarZstd, 32_768);
    let half = |times: usize| {
        let (store, asked) = (image.store(), AtomicUsize::new(0));
        let failing = move |request: &Request, stream: &mut TcpStream| {
            if request.path == "/c/b.json" && asked.fetch_add(1, Ordering::SeqCst) < times {
                return answer(stream, "500 Internal Server Error", &[], b"");
            }
            from_store(&store, request, stream)
        };
        Server::start(failing).unwrap()
    };
    let installed = |urls: &[String]| {
        let settings = Settings { retry: Duration::from_secs(60), ..common::settings(urls) };
        let start = Instant::now();
        let (root, _) = install_with(&settings, 2).unwrap();
        assert_same(tree.path(), root.path());
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    };
    let (bad, good) = (half(usize::MAX), serve(image.store()));
    let urls = [&bad, &good].map(|server| server.url("/c/latest.json"));
    while bad.requests().is_empty() {
        installed(&urls);
    }
    let manifests = bad.requests().iter().filter(|request| request.path == "/c/b.json").count();
    assert_eq!(manifests, 2);
    // Where nothing better is to be had it is waited for.
    let (late, nobody) = (half(5), serve(HashMap::new()).url("/c/latest.json"));
    installed(&[late.url("/c/latest.json"), nobody]);
}

// F33
#[test]
fn a_damaged_chunk_is_waited_for_where_the_other_mirror_is_busy() {
    let tree = tree();
    let image = publish(&archive(tree.path()), Media::TarZstd, 32_768);
    let mut bad = image.clone();
    bad.file[image.manifest.chunks[3].offset as usize + 100] ^= 4;
    let (store, busy) = (image.store(), AtomicUsize::new(0));
    let good = Server::start(move |request, stream| {
        if !request.path.ends_with(".json") && busy.fetch_add(1, Ordering::SeqCst) < 2 {
            return answer(stream, "503 Service Unavailable", &[("Retry-After", "1")], b"");
        }
        from_store(&store, request, stream)
    })
    .unwrap();
    let bad = serve(bad.store());
    let urls = [&good, &bad].map(|server| server.url("/c/b.json"));
    let patient = Settings { retry: Duration::from_secs(60), ..common::settings(&urls) };
    let (root, _) = install_with(&patient, 2).unwrap();
    assert_same(tree.path(), root.path());
    assert!(bad.requests().iter().all(|request| !request.headers.contains_key("range")), "asked for the same damage");
}

// F33
#[test]
fn damage_on_the_way_costs_one_chunk() {
    let tree = tree();
    let image = publish(&archive(tree.path()), Media::TarZstd, 32_768);
    let (store, chunk) = (image.store(), image.manifest.chunks[5].clone());
    let mut bad = image.clone();
    bad.file[chunk.offset as usize] ^= 1;
    let bad = bad.store();
    let server = Server::start(move |request, stream| {
        let store = if request.headers.contains_key("range") { &store } else { &bad };
        from_store(store, request, stream)
    })
    .unwrap();
    let (root, _) = install(&server, 2).unwrap();
    assert_same(tree.path(), root.path());
    let ranges: Vec<_> = server.requests().iter().filter_map(|r| r.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [format!("bytes={}-{}", chunk.offset, chunk.offset + chunk.size - 1)]);
}

// F35
#[test]
fn a_file_that_is_longer_or_shorter_than_its_manifest_says_is_refused() {
    let image = publish(&archive(tree().path()), Media::TarZstd, 100_000);
    let mut longer = image.clone();
    longer.file.push(0);
    let error = refusal(&longer);
    assert!(error.contains(&format!("{} bytes instead of {}", longer.file.len(), image.file.len())), "{error}");
    let mut shorter = image.clone();
    shorter.file.pop();
    assert!(refusal(&shorter).contains("bytes instead of"));
}

#[test]
fn the_pointer_leads_to_the_newest_build() {
    let tree = tree();
    let image = publish(&archive(tree.path()), Media::TarZstd, 100_000);
    let server = serve(image.store());
    let (root, _) = install_with(&common::settings(&[server.url("/c/latest.json")]), 2).unwrap();
    assert_same(tree.path(), root.path());
    // A pointer is not signed: it must not lead to another image.
    let mut other = image.store();
    let manifest = String::from_utf8(image.json()).unwrap().replace(r#""name":"c""#, r#""name":"d""#);
    other.insert("/c/b.json".to_owned(), manifest.into_bytes());
    let error = format!("{:#}", install_with(&common::settings(&[serve(other).url("/c/latest.json")]), 2).unwrap_err());
    assert!(error.contains("it is about d build b, not c build b"), "{error}");
}

// F36
#[test]
fn a_mirror_that_lags_behind_is_left_for_one_that_does_not() {
    let tree = tree();
    let new = publish(&archive(tree.path()), Media::TarZstd, 100_000);
    let mut old = new.clone();
    old.manifest.created = "2026-11-21T18:00:00Z".to_owned();
    let (old, new) = (serve(old.store()), serve(new.store()));
    let settings = |servers: &[&Server]| {
        let urls: Vec<String> = servers.iter().map(|server| server.url("/c/latest.json")).collect();
        Settings { not_before: Some("2026-11-22T00:00:00Z".to_owned()), ..common::settings(&urls) }
    };
    for servers in [[&old, &new], [&new, &old]] {
        let (root, _) = install_with(&settings(&servers), 2).unwrap();
        assert_same(tree.path(), root.path());
    }
    let error = Failure::from_error(&install_with(&settings(&[&old]), 2).unwrap_err()).to_string();
    assert!(error.contains("before 2026-11-22T00:00:00Z"), "{error}");
}

// F55
#[test]
fn directories_that_are_all_attributes_are_refused_before_they_fill_the_memory() {
    let mut archive = Vec::new();
    for index in 0..3000 {
        let value = vec![b'x'; 60_000];
        let record = |length: usize| [format!("{length} SCHILY.xattr.user.x=").as_bytes(), &value, b"\n"].concat();
        let record = record(record(60_000).len());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_path("x").unwrap();
        header.set_size(record.len() as u64);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend(record);
        archive.resize(archive.len().next_multiple_of(512), 0);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_path(format!("d{index}")).unwrap();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
    }
    let error = refusal(&publish(&archive, Media::TarZstd, 1 << 20));
    assert!(error.contains("carry more than 64 MiB"), "{error}");
}

#[test]
fn the_digest_of_the_manifest_is_the_image_s() {
    let tree = tree();
    let image = publish(&archive(tree.path()), Media::TarZstd, 100_000);
    let server = serve(image.store());
    let mut settings = common::settings(&[server.url("/c/b.json")]);
    settings.sha256 = Some(Sha256::digest(image.json()).into());
    let (root, verified) = install_with(&settings, 2).unwrap();
    assert_same(tree.path(), root.path());
    assert_eq!(verified.facts().trust, Trust::Digest);
    settings.sha256 = Some([0; 32]);
    let error = format!("{:#}", install_with(&settings, 2).unwrap_err());
    assert!(error.contains("rootstream.sha256="), "{error}");
    assert_eq!(server.requests().last().unwrap().path, "/c/b.json", "nothing else was asked for");
}

// F41
#[test]
fn a_chunk_that_unpacks_to_more_than_it_should_is_refused() {
    let mut image = publish(&archive(tree().path()), Media::TarZstd, 100_000);
    let bomb = zstd(&vec![0; 300 << 20]);
    let last = image.manifest.chunks.last_mut().unwrap();
    image.file.truncate(last.offset as usize);
    image.file.extend(&bomb);
    (last.size, last.sha256) = (bomb.len() as u64, Digest(Sha256::digest(&bomb).into()));
    image.manifest.size = image.file.len() as u64;
    assert!(refusal(&image).contains("decoding zstd"), "{}", refusal(&image));
}

// F43, F50, F53: archives whose digests are right, and that are not what an image may be.
#[test]
fn what_is_not_canonical_is_refused() {
    let file = |name: &str, size: usize| {
        let mut header = tar::Header::new_ustar();
        // The crate would refuse `..`.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_entry_type(if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(noise(1, size));
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let link = |name: &str, target: &str, kind| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_size(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let (symlink, hard) = (tar::EntryType::Symlink, tar::EntryType::Link);
    for (members, why) in [
        (vec![file("a/", 0), file("a/x", 600), file("a/x", 600)], "a/x twice"),
        (vec![file("a/", 0), file("a/", 0)], "a twice"),
        (vec![file("a/x", 600)], "has things in a, but not the directory"),
        (vec![link("a", "b", symlink), file("b/", 0), file("a/x", 600)], "below a link"),
        (vec![file("b/", 0), file("a/x", 600), link("a", "b", symlink)], "below a link"),
        (vec![link("a", "/nowhere", hard)], "leads to nowhere"),
        (vec![file("a/", 0), file("a/../x", 1)], ".."),
        (vec![file("a/", 0), link("odd", "", tar::EntryType::new(b'Q'))], "unknown type"),
    ] {
        let archive = [file("./", 0), members.concat()].concat();
        // One chunk for all, and one for each member.
        for most in [1 << 20, 512] {
            let error = refusal(&publish(&archive, Media::TarZstd, most));
            assert!(error.contains(why), "{why}: {error}");
        }
    }
    let error = refusal(&publish(&file("a", 600), Media::TarZstd, 1 << 20));
    assert!(error.contains("does not have its root"), "{error}");
}

/// A member without anything but what its name, kind and link say.
fn plain(name: &str, kind: tar::EntryType, link: &str, size: usize) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o640 });
    header.set_mtime(1_600_000_000);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_size(size as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(noise(size as u64 + 1, size));
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

// F43, F50
#[test]
fn what_a_publisher_gets_wrong_is_refused_or_becomes_what_tar_makes_of_it() {
    use tar::EntryType as Type;
    let mut state = 7u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let names = ["a", "a/x", "a/y", "b/x", "b", "c", "l", "l/x", "n/o"];
    let (mut refused, mut same) = (0, 0);
    for round in 0..150 {
        let mut members: Vec<(bool, Vec<u8>)> = vec![(false, plain("./", Type::Directory, "", 0))];
        members.extend(["a/", "b/"].map(|name| (false, plain(name, Type::Directory, "", 0))));
        for _ in 0..1 + below(3) {
            let name = names[below(names.len())];
            let other = ["a", "a/x", "b/x", "c", "../c", "/c", "l"][below(7)];
            let member = match below(12) {
                0..4 => plain(name, Type::Regular, "", [0, 10, 700, 1500][below(4)]),
                4 => plain(&format!("{name}/"), Type::Directory, "", 0),
                5 | 6 => plain(name, Type::Symlink, other, 0),
                7 | 8 => plain(name, Type::Link, other, 0),
                9 => plain(name, Type::Fifo, "", 0),
                10 => plain(&format!("./{name}"), Type::Regular, "", 5),
                _ => {
                    let mut global = plain("g", Type::XGlobalHeader, "", 0)[..512].to_vec();
                    global[124..136].copy_from_slice(b"00000000024\0");
                    let mut global = tar::Header::from_byte_slice(&global).clone();
                    global.set_cksum();
                    let mut record = b"20 mtime=1500000000\n".to_vec();
                    record.resize(512, 0);
                    [global.as_bytes().as_slice(), &record].concat()
                }
            };
            // Links can be made when all else is there: in which order chunks come nobody knows.
            let at = 1 + below(members.len() - usize::from(member[156] == b'g'));
            members.insert(at, (member[156] == b'1', member));
        }
        let archive: Vec<u8> = members.iter().flat_map(|(_, member)| member.clone()).collect();
        let server = serve(publish(&archive, Media::TarZstd, [512, 2048, 1 << 20][round % 3]).store());
        let Ok((root, _)) = install(&server, 1 + round % 2) else {
            refused += 1;
            continue;
        };
        members.sort_by_key(|(link, _)| *link);
        let mut sorted: Vec<u8> = members.into_iter().flat_map(|(_, member)| member).collect();
        sorted.resize(sorted.len() + 1024, 0);
        let expected = tempfile::tempdir().unwrap();
        let file = expected.path().with_extension("tar");
        fs::write(&file, sorted).unwrap();
        let mut tar = Command::new("tar");
        // Without it, members that come back to a directory change its time.
        tar.args(["--numeric-owner", "--delay-directory-restore", "-xpf"]).arg(&file).arg("-C").arg(expected.path());
        let output = tar.output().unwrap();
        fs::remove_file(&file).unwrap();
        assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        assert_same(expected.path(), root.path());
        same += 1;
    }
    assert!(refused > 25 && same > 25, "{refused} refused, {same} the same");
}
