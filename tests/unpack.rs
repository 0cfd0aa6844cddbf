//! Archives, unpacked and compared with what GNU tar makes of them. Needs root, as stage 1 has it.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rootstream::failure::Failure;
use rootstream::image::VerifiedRoot;
use rootstream_lab::faulty::{Server, answer};
use rootstream_lab::tree::{compare_trees, walk};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

fn run(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

fn gnu_tar(arguments: &[&str], directory: &Path, archive: &Path) {
    let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    all.extend([OsStr::new("-C"), directory.as_os_str(), OsStr::new("-f"), archive.as_os_str()]);
    if arguments.contains(&"-c") {
        all.push(OsStr::new("."));
    }
    run("tar", &all);
}

/// Unpacks an archive with the agent's own code into `root`.
fn unpack_into(archive: &[u8], owners: bool, root: &Path) -> anyhow::Result<VerifiedRoot> {
    let archive = archive.to_vec();
    let server = Server::start(move |_, stream| answer(stream, "200 OK", &[], &archive))?;
    common::install(&common::settings(&[server.url("/image.tar")]), owners, root)
}

fn unpack(archive: &[u8]) -> anyhow::Result<(TempDir, VerifiedRoot)> {
    let root = tempfile::tempdir()?;
    let verified = unpack_into(archive, true, root.path())?;
    Ok((root, verified))
}

fn refusal(archive: &[u8]) -> String {
    let error = unpack(archive).expect_err("an archive that must be refused");
    Failure::from_error(&error).to_string()
}

fn same_as_gnu_tar(archive: &Path, options: &[&str]) {
    // On a disk and in RAM: the two differ in which attributes they take.
    for base in ["/tmp", "/dev/shm"] {
        let (expected, ours) = (tempfile::tempdir_in(base).unwrap(), tempfile::tempdir_in(base).unwrap());
        let mut arguments = vec!["-x", "-p", "--numeric-owner"];
        arguments.extend(options);
        gnu_tar(&arguments, expected.path(), archive);
        let verified = unpack_into(&fs::read(archive).unwrap(), true, ours.path()).unwrap();
        let differences = compare_trees(expected.path(), ours.path()).unwrap();
        assert!(differences.is_empty(), "{} in {base}:\n{}", archive.display(), differences.join("\n"));
        assert_eq!(verified.facts().warnings, [""; 0]);
    }
}

fn set_time(path: &Path, nanoseconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_600_000_000_000_000_000 + nanoseconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// One of everything that an image holds.
fn everything() -> TempDir {
    assert!(nix::unistd::geteuid().is_root(), "these tests make devices and set owners: run them as root");
    let top = tempfile::tempdir_in("/tmp").unwrap();
    let at = |name: &str| top.path().join(name);
    for (index, name) in ["bin", "dev", "etc/deep/er", "locked", "sticky", "empty"].iter().enumerate() {
        fs::create_dir_all(at(name)).unwrap();
        set_time(&at(name), index as u64 * 1_111);
    }
    for (index, size) in [0, 1, 511, 512, 513, 4096, 300_000].iter().enumerate() {
        let bytes: Vec<u8> = (0..*size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(at(&format!("etc/{size}")), bytes).unwrap();
        set_time(&at(&format!("etc/{size}")), index as u64 * 123_456_789);
    }
    fs::write(at("bin/su"), "#!").unwrap();
    fs::write(at("bin/ping"), "#!").unwrap();
    fs::write(at("locked/inside"), "x").unwrap();
    fs::hard_link(at("bin/su"), at("bin/su.too")).unwrap();
    fs::hard_link(at("bin/su"), at("etc/deep/er/su.three")).unwrap();
    symlink("../bin/su", at("etc/relative")).unwrap();
    symlink("/nowhere/at/all", at("etc/dangling")).unwrap();
    fs::hard_link(at("etc/dangling"), at("etc/dangling.too")).unwrap();
    mknod(&at("dev/null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    mknod(&at("dev/vda"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(254, 300)).unwrap();
    mknod(&at("dev/pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0).unwrap();
    for (name, uid, gid) in [("etc/512", 1000, 4321), ("dev/vda", 0, 6), ("locked", 33, 33), ("etc/relative", 7, 8)] {
        std::os::unix::fs::lchown(at(name), Some(uid), Some(gid)).unwrap();
    }
    for (name, mode) in [
        ("bin/su", 0o4755),
        ("bin/ping", 0o755),
        ("etc/1", 0o2640),
        ("etc/511", 0o000),
        ("sticky", 0o1777),
        ("locked", 0o2555),
        ("dev/null", 0o666),
        ("dev/vda", 0o660),
        ("", 0o751),
    ] {
        set_mode(&at(name), mode);
    }
    set_time(top.path(), 42);
    top
}

// F51, F52
#[test]
fn one_of_everything_in_every_format() {
    let tree = everything();
    let archive = tree.path().with_extension("tar");
    for format in ["gnu", "oldgnu", "ustar", "v7", "posix"] {
        // v7 has no devices.
        let exclude: &[&str] = if format == "v7" { &["--exclude=./dev/*"] } else { &[] };
        let format = format!("--format={format}");
        gnu_tar(&[&["-c", &format], exclude].concat(), tree.path(), &archive);
        same_as_gnu_tar(&archive, &[]);
    }
    fs::remove_file(archive).unwrap();
}

// F51
#[test]
fn extended_attributes_and_capabilities() {
    let tree = everything();
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    // user::rw-, user:1000:r--, group::r--, mask::r--, other::---
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    for (name, attribute, value) in [
        ("bin/ping", "security.capability", &capability[..]),
        ("etc/512", "user.origin", b"a\nb\0c=d"),
        ("etc/512", "trusted.secret", b"t"),
        ("etc/512", "system.posix_acl_access", acl),
        ("etc/deep", "user.on.a.directory", b""),
        ("etc/deep", "system.posix_acl_default", acl),
        ("etc/deep", "trusted.overlay.opaque", b"y"),
        ("dev/null", "trusted.on.a.device", b"d"),
    ] {
        xattr::set(tree.path().join(name), attribute, value).unwrap();
    }
    xattr::set(tree.path().join("etc/dangling"), "trusted.on.a.symlink", b"s").unwrap();
    let archive = tree.path().with_extension("xattrs.tar");
    let options = ["--xattrs", "--xattrs-include=*"];
    gnu_tar(&[&["-c", "--format=posix"], &options[..]].concat(), tree.path(), &archive);
    let names = walk(tree.path()).unwrap();
    assert_eq!(names["bin/ping"].xattrs.len(), 1);
    same_as_gnu_tar(&archive, &options);
    fs::remove_file(archive).unwrap();
}

fn holes(directory: &Path) {
    let parts: [(&str, u64, &[u64]); 6] = [
        ("tail", 5000, &[0]),
        ("middle", 3 << 20, &[0, 1 << 20]),
        ("end", 2 << 20, &[4096]),
        ("start", (2 << 20) + 10, &[2 << 20]),
        ("all", 2 << 20, &[]),
        ("many", 12 << 20, &[0; 0]),
    ];
    for (name, size, offsets) in parts {
        let file = File::create(directory.join(name)).unwrap();
        file.set_len(size).unwrap();
        for offset in offsets {
            file.write_all_at(b"data", *offset).unwrap();
        }
        if name == "many" {
            for part in 0..60u64 {
                file.write_all_at(&[7; 5000], part * 200_000).unwrap();
            }
        }
    }
}

// F48
#[test]
fn sparse_files_in_four_formats_keep_their_holes() {
    let tree = tempfile::tempdir_in("/tmp").unwrap();
    holes(tree.path());
    let archive = tree.path().with_extension("tar");
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
        // No map at all: the zeros are in the archive.
        &["--format=ustar"],
    ] {
        let sparse: &[&str] = if format == ["--format=ustar"] { &[] } else { &["--sparse"] };
        gnu_tar(&[&["-c"], format, sparse].concat(), tree.path(), &archive);
        let bytes = fs::read(&archive).unwrap();
        assert_eq!(bytes.len() < 5 << 20, !sparse.is_empty(), "{format:?} makes a sparse archive");
        same_as_gnu_tar(&archive, &[]);
        let (root, verified) = unpack(&bytes).unwrap();
        for name in ["tail", "middle", "end", "start", "all", "many"] {
            let blocks = |top: &Path| fs::metadata(top.join(name)).unwrap().blocks();
            assert!(blocks(root.path()) <= blocks(tree.path()), "{format:?} {name}");
        }
        assert!(verified.facts().unpacked < 2 << 20, "{format:?}: {}", verified.facts().unpacked);
    }
    fs::remove_file(archive).unwrap();
}

// F49
#[test]
fn long_and_odd_names_are_kept() {
    let tree = tempfile::tempdir_in("/tmp").unwrap();
    let mut deep = tree.path().to_owned();
    for _ in 0..12 {
        deep.push("d".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(255)), "deep").unwrap();
    symlink("x".repeat(3000), tree.path().join("long link")).unwrap();
    let bytes: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"not \xff utf-8\n");
    fs::write(tree.path().join(bytes), "").unwrap();
    let archive = tree.path().with_extension("tar");
    for format in ["--format=gnu", "--format=posix"] {
        gnu_tar(&["-c", format], tree.path(), &archive);
        same_as_gnu_tar(&archive, &[]);
    }
    fs::remove_file(archive).unwrap();
}

#[derive(Clone, Copy)]
struct Craft<'a> {
    name: &'a [u8],
    kind: EntryType,
    link: &'a [u8],
    data: &'a [u8],
}

fn file<'a>(name: &'a str, data: &'a str) -> Craft<'a> {
    Craft { name: name.as_bytes(), kind: EntryType::Regular, link: b"", data: data.as_bytes() }
}

fn link<'a>(kind: EntryType, name: &'a str, link: &'a str) -> Craft<'a> {
    Craft { name: name.as_bytes(), kind, link: link.as_bytes(), data: b"" }
}

fn directory(name: &str) -> Craft<'_> {
    Craft { name: name.as_bytes(), kind: EntryType::Directory, link: b"", data: b"" }
}

/// A header of exactly these bytes; the crate's own setters would refuse most of them.
fn header(craft: Craft<'_>) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..craft.name.len()].copy_from_slice(craft.name);
    header.as_old_mut().linkname[..craft.link.len()].copy_from_slice(craft.link);
    header.set_entry_type(craft.kind);
    header.set_mode(if craft.kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(craft.data.len() as u64);
    header.set_cksum();
    header
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(512), 0);
}

fn crafted(members: &[Craft<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for member in members {
        archive.extend(header(*member).as_bytes());
        archive.extend(member.data);
        pad(&mut archive);
    }
    archive.extend([0; 1024]);
    archive
}

// F43
#[test]
fn nothing_gets_out() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    set_mode(&victim, 0o600);
    set_mode(outside.path(), 0o700);
    let top = outside.path().to_str().unwrap();
    let through = |link_target: &str| {
        let archive = crafted(&[link(EntryType::Symlink, "way", link_target), file("way/victim", "broken")]);
        unpack(&archive)
    };
    // Followed as if the root were /: the target does not exist in there.
    assert!(through(top).is_err());
    assert!(through("../../../../../../../../tmp/nowhere").is_err());
    let (root, _) = unpack(&crafted(&[
        directory("inside"),
        link(EntryType::Symlink, "way", "/inside"),
        link(EntryType::Symlink, "up", "../../../inside"),
        file("way/victim", "inside"),
        file("up/other", "inside"),
    ]))
    .unwrap();
    assert_eq!(fs::read_to_string(root.path().join("inside/victim")).unwrap(), "inside");
    assert_eq!(fs::read_to_string(root.path().join("inside/other")).unwrap(), "inside");

    for name in ["../victim", "a/../../victim", "..", "inside/.."] {
        assert!(refusal(&crafted(&[directory("inside"), file(name, "broken")])).contains(".. component"), "{name}");
    }
    let full = victim.to_str().unwrap();
    let (root, verified) = unpack(&crafted(&[file(full, "absolute")])).unwrap();
    assert_eq!(fs::read_to_string(root.path().join(full.trim_start_matches('/'))).unwrap(), "absolute");
    assert_eq!(verified.facts().warnings, ["a leading / was taken off 1 name"]);

    // The last component is replaced, never followed: neither written nor changed in mode.
    let (root, _) = unpack(&crafted(&[link(EntryType::Symlink, "last", full), file("last", "mine")])).unwrap();
    assert!(root.path().join("last").symlink_metadata().unwrap().is_file());
    let (root, _) = unpack(&crafted(&[link(EntryType::Symlink, "last", top), directory("last")])).unwrap();
    assert!(root.path().join("last").symlink_metadata().unwrap().is_dir());
    // A directory gets its mode last, when a link may have taken its place.
    let (root, _) = unpack(&crafted(&[directory("last"), link(EntryType::Symlink, "last", top)])).unwrap();
    assert!(root.path().join("last").symlink_metadata().unwrap().is_symlink());

    for target in [full, "../victim"] {
        let archive = crafted(&[link(EntryType::Link, "hard", target)]);
        assert!(unpack(&archive).is_err(), "{target}");
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&victim), mode(outside.path())), (0o600, 0o700));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

// F50
#[test]
fn the_last_of_a_name_wins_and_links_need_targets() {
    let (root, _) = unpack(&crafted(&[
        file("name", "first, and longer"),
        file("name", "second"),
        directory("was-directory"),
        file("was-directory", "now a file"),
        file("was-file", "x"),
        directory("was-file"),
        file("was-file/inside", "y"),
        link(EntryType::Link, "hard", "name"),
        link(EntryType::Link, "hard", "name"),
        link(EntryType::Link, "name", "hard"),
        link(EntryType::Symlink, "soft", "a"),
        link(EntryType::Symlink, "soft", "b"),
    ]))
    .unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!(
        (read("name"), read("was-directory"), read("was-file/inside")),
        ("second".into(), "now a file".into(), "y".into())
    );
    assert_eq!(fs::metadata(root.path().join("hard")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(root.path().join("soft")).unwrap(), PathBuf::from("b"));

    let message = refusal(&crafted(&[link(EntryType::Link, "early", "later"), file("later", "")]));
    assert!(message.contains("the hard link early leads to later"), "{message}");
    let message = refusal(&crafted(&[file("full/x", ""), file("full", "")]));
    assert!(message.contains("unpacking full"), "{message}");
}

fn pax(records: &[(&str, &[u8])], member: Craft<'_>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions(records.iter().copied()).unwrap();
    let mut archive = builder.into_inner().unwrap();
    archive.truncate(archive.len() - 1024);
    archive.extend(crafted(&[member]));
    archive
}

// F44
#[test]
fn the_pax_size_wins_both_ways() {
    for told in [0o7777, 1] {
        let data = "d".repeat(700);
        let mut archive = pax(&[("size", b"700")], file("f", &data));
        let at = archive.len() - 1024 - 1024 - 512;
        let mut lying = Header::from_byte_slice(&archive[at..at + 512]).clone();
        lying.set_size(told);
        lying.set_cksum();
        archive[at..at + 512].copy_from_slice(lying.as_bytes());
        let (root, _) = unpack(&archive).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("f")).unwrap(), data);
    }
}

// F51
#[test]
fn other_writers_attributes() {
    let archive = pax(
        &[
            ("LIBARCHIVE.xattr.user.coded", b"aGVsbG8="),
            ("SCHILY.acl.access", b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---"),
            ("mtime", b"-1.25"),
            ("uid", b"3000000"),
        ],
        file("f", "x"),
    );
    let (root, _) = unpack(&archive).unwrap();
    let entry = &walk(root.path()).unwrap()["f"];
    assert_eq!(entry.xattrs["user.coded"], "hello");
    assert!(entry.xattrs.contains_key("system.posix_acl_access"));
    assert_eq!((entry.mtime, entry.uid), ((-2, 750_000_000), 3_000_000));
}

// F51
#[test]
fn attributes_that_a_file_system_cannot_hold() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let root = tempfile::tempdir().unwrap();
    // ramfs has no extended attributes at all.
    mount(Some("ramfs"), root.path(), Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
    let with = |name: &str| pax(&[(&format!("SCHILY.xattr.{name}"), b"value")], file("f", "x"));
    let verified = unpack_into(&with("user.origin"), true, root.path()).unwrap();
    let warning = "1 user extended attribute was not set: this file system holds none";
    assert_eq!(verified.facts().warnings, [warning]);
    for name in ["security.capability", "security.selinux", "system.posix_acl_access"] {
        let error = unpack_into(&with(name), true, root.path()).expect_err(name);
        let message = Failure::from_error(&error).to_string();
        assert!(message.contains("unpacking f") && message.contains("setting an extended attribute"), "{message}");
    }
}

// F35, F45, F46, F47, F48, F49
#[test]
fn damaged_archives_are_refused_by_name() {
    let good = crafted(&[file("one", "1"), file("two", "22")]);
    let patched = |at: usize, bytes: &[u8]| {
        let mut header = Header::from_byte_slice(&good[1024..1536]).clone();
        header.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        [&good[..1024], header.as_bytes(), &good[1536..]].concat()
    };
    let negative = [0xff; 12];
    let huge = [0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let mut flipped = good.clone();
    flipped[1024 + 3] ^= 1;
    let long = |flag: u8, size: u64| {
        let mut header = header(file("ext", ""));
        header.set_entry_type(EntryType::new(flag));
        header.set_size(size);
        header.set_cksum();
        [header.as_bytes(), &vec![b'a'; (size as usize).next_multiple_of(512).min(4 << 20)][..], &good[..]].concat()
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("negative size", patched(124, &negative), "\"two\""),
        ("huge size", patched(124, &huge), "\"two\""),
        ("negative owner", patched(108, &negative[..8]), "\"two\""),
        ("a digit 9", patched(124, b"00000000009\0"), "\"two\""),
        ("header checksum", flipped, "checksum"),
        ("cut in a header", good[..1024 + 100].to_vec(), "ends inside a header"),
        ("cut in data", good[..1024 + 512 + 1].to_vec(), "ends inside a member"),
        ("data after the end", [&good[..], b"x"].concat(), "data follows"),
        ("data after one zero block", [&good[..2048 + 512], &good[..]].concat(), "data follows"),
        ("an extension of 2 GiB", long(b'L', 2 << 30), "extension headers are longer"),
        ("a PAX header of 1 MiB", long(b'x', 1 << 20), "extension headers are longer"),
        ("an empty name", crafted(&[file("", "x")]), "empty name"),
        ("a NUL in a name", pax(&[("path", b"a\0b")], file("x", "")), "NUL"),
        ("a name beyond PATH_MAX", pax(&[("path", "deep/".repeat(2000).as_bytes())], file("x", "")), "name too long"),
        ("a broken PAX record", [long(b'x', 512), good.clone()].concat(), "PAX"),
        (
            "an overlapping sparse map",
            pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,1,0,1")], file("x", "ab")),
            "overlap",
        ),
        ("an extension and nothing", pax(&[("path", b"a")], file("x", ""))[..1024].to_vec(), "extension header"),
        ("nothing", vec![0; 1024], "holds nothing"),
    ];
    for (what, archive, told) in cases {
        let message = refusal(&archive);
        assert!(message.contains(told), "{what}: {message}");
    }
}

// F47, F53
#[test]
fn oddities_that_only_warn() {
    let good = crafted(&[file("one", "1"), file("two", "22")]);
    let (_root, verified) = unpack(&good[..good.len() - 1024]).unwrap();
    assert!(verified.facts().warnings[0].contains("no end mark"), "{:?}", verified.facts().warnings);
    let (root, verified) = unpack(&crafted(&[
        Craft { name: b"incremental", kind: EntryType::new(b'D'), link: b"", data: b"Yfile\0\0" },
        Craft { name: b"odd", kind: EntryType::new(b'Q'), link: b"", data: b"skipped" },
        file("after", "here"),
    ]))
    .unwrap();
    assert!(root.path().join("incremental").is_dir());
    assert!(!root.path().join("odd").exists());
    assert_eq!(fs::read_to_string(root.path().join("after")).unwrap(), "here");
    assert_eq!(verified.facts().warnings, ["1 member was left out: of unknown type"]);
}

#[test]
fn without_owners_what_cannot_be_done_is_counted() {
    let tree = everything();
    xattr::set(tree.path().join("bin/ping"), "trusted.x", b"y").unwrap();
    let archive = tree.path().with_extension("tar");
    gnu_tar(&["-c", "--format=posix", "--xattrs", "--xattrs-include=*"], tree.path(), &archive);
    let root = tempfile::tempdir().unwrap();
    let verified = unpack_into(&fs::read(&archive).unwrap(), false, root.path()).unwrap();
    let warnings = verified.facts().warnings.join("\n");
    for expected in ["owners were not set", "1 privileged extended", "3 setuid and setgid", "2 devices were not made"] {
        assert!(warnings.contains(expected), "{expected}: {warnings}");
    }
    let entries = walk(root.path()).unwrap();
    assert_eq!(entries["bin/su"].mode, 0o755);
    assert_eq!(entries["etc/512"].uid, 0);
    fs::remove_file(archive).unwrap();
}

// F41, F54
#[test]
fn a_full_file_system_is_told_with_sizes() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let root = tempfile::tempdir().unwrap();
    mount(Some("tmpfs"), root.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m,nr_inodes=20")).unwrap();
    let data = "x".repeat(32 << 20);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&crafted(&[file("big", &data)])).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    // Packed larger than the room is refused before anything is unpacked.
    let error = unpack_into(&crafted(&[file("big", &data)]), true, root.path()).unwrap_err();
    let message = Failure::from_error(&error).to_string();
    assert!(message.contains("is 33.5 MB, but only 1.0 MB are free where it goes"), "{message}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    let error = unpack_into(&bomb, true, root.path()).unwrap_err();
    let message = Failure::from_error(&error).to_string();
    assert!(message.contains("does not fit") && message.contains("it holds 1.0 MB"), "{message}");
    fs::remove_file(root.path().join("big")).unwrap();
    let names: Vec<String> = (0..30).map(|index| index.to_string()).collect();
    let many: Vec<Craft<'_>> = names.iter().map(|name| file(name, "")).collect();
    let error = unpack_into(&crafted(&many), true, root.path()).unwrap_err();
    let message = Failure::from_error(&error).to_string();
    assert!(message.contains("0 of 20 inodes are free"), "{message}");
    // A petabyte of hole is nothing.
    mount(Some("tmpfs"), root.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
    let sparse = pax(&[("GNU.sparse.size", b"1125899906842624"), ("GNU.sparse.map", b"0,1")], file("hole", "x"));
    unpack_into(&sparse, true, root.path()).unwrap();
    assert_eq!(fs::metadata(root.path().join("hole")).unwrap().len(), 1 << 50);
}

#[test]
fn damage_anywhere_never_panics() {
    let tree = tempfile::tempdir_in("/tmp").unwrap();
    fs::write(tree.path().join("n".repeat(150)), "x").unwrap();
    let sparse = File::create(tree.path().join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"data", 512 << 10).unwrap();
    let archive = tree.path().with_extension("tar");
    let mut random = 88_172_645_463_325_252u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    for format in ["--format=gnu", "--format=posix"] {
        gnu_tar(&["-c", "--sparse", "-b1", format], tree.path(), &archive);
        let good = fs::read(&archive).unwrap();
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        for round in 0..150 {
            let mut bad = good.clone();
            let at = next() % bad.len();
            if round % 3 == 0 {
                bad.truncate(at);
            } else {
                bad[at] = next() as u8;
                // Most damage is seen by the checksum: mend it, so that fields are reached too.
                let block = at / 512 * 512;
                let mut header = Header::from_byte_slice(&bad[block..block + 512]).clone();
                if header.cksum().is_ok_and(|sum| sum > 0) {
                    header.set_cksum();
                    bad[block..block + 512].copy_from_slice(header.as_bytes());
                }
            }
            if let Err(error) = unpack_into(&bad, true, root.path()) {
                assert!(!format!("{error:#}").contains("panicked"), "{error:#}");
            }
        }
    }
    fs::remove_file(archive).unwrap();
}
