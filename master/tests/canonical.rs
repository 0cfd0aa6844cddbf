//! The canonical, chunked archive against the tools that it was made to be read with.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{TestSite, noise, shell, stderr};
use rootstream::cmdline;
use rootstream::facts::NodeFacts;
use rootstream::image::manifest::{Manifest, unescape};
use rootstream::image::trust::Keys;
use rootstream::image::{self, Anchors, Machine, Resolve, Sources, Tally, Trust, Unpack};
use rootstream_lab::faulty::{Server, answer, head};
use rootstream_lab::tree::compare_trees;

const CHUNK: u64 = 2 << 20;

/// Everything that GNU tar packs and that may go wrong, made by the real tools.
const TORTURE: &str = r#"
mkdir -p a/b empty 'with space' usr/lib usr/bin deep etc
ln -s usr/lib lib; ln -s usr/bin bin
printf 'x' > a/file; chmod 4755 a/file
ln -s ../nowhere a/link; ln -s "$(printf 'long/%.0s' $(seq 40))target" a/longlink
ln a/file a/b/same; ln a/file zzz
mkfifo a/fifo; mknod a/null c 1 3; mknod a/disk b 8 17
long=$(printf 'n%.0s' $(seq 200)); mkdir -p deep/$long; echo long > deep/$long/$long; ln deep/$long/$long deep/other
printf 'name' > "$(printf 'b\377ytes\n')"
truncate -s 10M sparse; printf 'middle' | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
head -c 7000000 /dev/urandom > big; head -c 2097152 /dev/urandom > exact; : > nothing
cp exact usr/lib/big.so
chown 70000:3000000 a/file; chown -h 5:6 a/link
chmod 0555 empty; chmod 1777 a
touch -h -d '1969-12-31T23:59:58.25Z' a/link; touch -d '2001-02-03T04:05:06.123456789Z' a/b/same a/b 'with space'
touch -d '2500-01-01T00:00:00Z' nothing
chmod 0750 .; chown 3:4 .; touch -d '2002-02-02T02:02:02Z' .
"#;

/// Publishes an archive as it is and returns where it is in the store.
fn publish(site: &TestSite, archive: &[u8], words: &[&str]) -> PathBuf {
    site.built("compute", archive);
    site.path(site.done(&[&["image", "publish", "compute"], words].concat()).trim())
}

fn extract(archive: &Path, command: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let options = "--numeric-owner --xattrs --xattrs-include='*' -xpf -";
    shell(&format!("{command} \"$1\" | tar -C {} {options}", folder.path().display()), archive);
    folder
}

fn manifest(file: &Path) -> Manifest {
    let name = file.file_name().unwrap().to_str().unwrap();
    let build = name.split_once('.').unwrap().0;
    Manifest::parse(&fs::read(file.with_file_name(format!("{build}.json"))).unwrap()).unwrap()
}

// F48, F49, F50, F51, F52
#[test]
fn what_gnu_tar_unpacks_is_the_same_tree() {
    let folder = tempfile::tempdir().unwrap();
    shell(&format!("cd \"$1\"; {TORTURE}"), folder.path());
    // user::rwx user:1234:r-x group::r-x mask::r-x other::---
    let entries = [(1_u16, 7_u16, u32::MAX), (2, 5, 1234), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 0, u32::MAX)];
    let entries =
        entries.map(|(tag, bits, id)| [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat());
    let acl = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (path, name, value) in [
        ("a/file", "user.one", &b"va=l\nue\0"[..]),
        ("a/file", "security.capability", &capability),
        ("a", "user.dir", b"value"),
        ("a/b", "trusted.x", b"y"),
        ("a/b", "system.posix_acl_access", &acl),
    ] {
        xattr::set(folder.path().join(path), name, value).unwrap();
    }
    let site = TestSite::new("br0", "172.16.0.254/24");
    let tar = tempfile::NamedTempFile::new().unwrap();
    for options in ["--format=gnu", "--format=pax", "--format=pax --sparse", "--format=gnu --sparse"] {
        // Only PAX holds attributes and nanoseconds.
        let xattrs = if options.contains("pax") { "--xattrs --xattrs-include='*'" } else { "" };
        shell(&format!("tar -C \"$1\" {options} {xattrs} -cf {} .", tar.path().display()), folder.path());
        let expected = extract(tar.path(), "cat");
        let archive = fs::read(tar.path()).unwrap();
        let (format, command) =
            if options.contains("sparse") { ("tar.zst", "zstd -dc") } else { ("tar.gz", "gzip -dc") };
        let file = publish(&site, &archive, &["--level", "1", "--format", format]);
        let differences = compare_trees(expected.path(), extract(&file, command).path()).unwrap();
        assert!(differences.is_empty(), "{options} {format}: {}", differences.join("\n"));
    }
    let packed = fs::read_dir(site.path("store/compute")).unwrap().flatten().map(|e| e.path());
    let manifest = manifest(&packed.filter(|path| path.extension().is_some_and(|e| e == "zst")).max().unwrap());
    let cut: Vec<_> = manifest.chunks.iter().filter_map(|chunk| chunk.continues.as_ref()).collect();
    assert!(cut.iter().any(|cut| cut.path == "sparse" && cut.total == 10 << 20), "{cut:?}");
    assert!(cut.iter().all(|cut| cut.offset % 4096 == 0 && unescape(&cut.path).is_ok()), "{cut:?}");
    assert_eq!(manifest.largest_file, 10 << 20);
    assert!(manifest.chunks.iter().all(|chunk| chunk.unpacked <= CHUNK + 1024));
    // Files have these pages: 7000000 / 4096 rounded up, twice 512, one for each small file and one in the hole.
    assert_eq!(manifest.unpacked_pages, 1709 + 2 * 512 + 4);
}

/// Finds hosts as this machine does.
#[derive(Debug)]
struct Hosts;

impl Resolve for Hosts {
    fn resolve(&self, host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// Serves a folder, and breaks off every answer after so many bytes.
fn serve(folder: PathBuf, most: usize) -> Server {
    Server::start(move |request, stream| {
        let Ok(body) = fs::read(folder.join(request.path.trim_start_matches('/'))) else {
            return answer(stream, "404 Not Found", &[], b"");
        };
        let from = request.from().unwrap_or(0);
        let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        head(stream, status, &[("Content-Range", &range), ("ETag", "\"1\"")], Some(body.len() - from))?;
        stream.write_all(&body[from..body.len().min(from + most)])
    })
    .unwrap()
}

// F24, F48, F50, F51, F52
#[test]
fn the_agent_unpacks_the_same_tree_with_any_number_of_workers_and_through_cuts() {
    let folder = tempfile::tempdir().unwrap();
    shell(&format!("cd \"$1\"; {TORTURE}"), folder.path());
    let site = TestSite::new("br0", "172.16.0.254/24");
    let tar = tempfile::NamedTempFile::new().unwrap();
    shell(&format!("tar -C \"$1\" --format=pax -cf {} .", tar.path().display()), folder.path());
    let expected = extract(tar.path(), "cat");
    site.done(&["key", "new"]);
    for format in ["tar.zst", "tar.gz"] {
        let file = publish(&site, &fs::read(tar.path()).unwrap(), &["--level", "1", "--format", format]);
        let build = file.file_name().unwrap().to_str().unwrap().split_once('.').unwrap().0;
        for (workers, most) in
            if format == "tar.gz" { [(1, usize::MAX), (2, 6_000_000)] } else { [(2, 6_000_000), (8, usize::MAX)] }
        {
            let server = serve(site.path("store"), most);
            let line = format!("rootstream.image={}", server.url(&format!("/compute/{build}.json")));
            let settings = cmdline::parse(&line).check().unwrap().image;
            let keys = Keys::in_folder(&site.path("keys")).unwrap();
            let anchors = Anchors { keys, ..Anchors::default() };
            let resolver: Arc<dyn Resolve> = Arc::new(Hosts);
            let node = NodeFacts::default();
            let sources = Sources { settings: &settings, anchors: &anchors, resolver: &resolver, node: &node };
            let mut tally = Tally::default();
            let root = tempfile::tempdir().unwrap();
            let plan = image::plan(sources, &Machine::default(), &mut tally).unwrap();
            let installed =
                plan.install(Unpack { owners: true, workers, mount: None }, root.path(), &mut tally).unwrap();
            assert_eq!(installed.root().unwrap().trust(), Trust::Signed);
            assert_eq!(tally.retries > 0, most < usize::MAX, "{tally:?}");
            let differences = compare_trees(expected.path(), root.path()).unwrap();
            assert!(differences.is_empty(), "{format} {workers}: {}", differences.join("\n"));
        }
    }
}

// F50
#[test]
fn names_are_put_where_tar_puts_them() {
    let archive = |entries: &[(&str, char, &str)]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o640);
            header.set_mtime(1_000_000_000);
            let (kind, size) = match kind {
                'd' => (tar::EntryType::Directory, 0),
                'l' => (tar::EntryType::Symlink, 0),
                'h' => (tar::EntryType::Link, 0),
                _ => (tar::EntryType::Regular, content.len()),
            };
            header.set_entry_type(kind);
            header.set_size(size as u64);
            if size == 0 && !content.is_empty() {
                header.set_link_name(content).unwrap();
            }
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, &content.as_bytes()[..size]).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let site = TestSite::new("br0", "172.16.0.254/24");
    let good = archive(&[
        ("./usr/lib/", 'd', ""),
        ("lib", 'l', "usr/lib"),
        ("lib/x", 'f', "below a link"),
        ("/abs", 'f', "one"),
        ("abs", 'f', "two"),
        ("first", 'f', "content"),
        ("also", 'h', "lib/../first/../lib/x"),
    ]);
    // A `..` in a hard link is refused; without it:
    site.built("compute", &good);
    let refused = site.run(&["image", "publish", "compute"]);
    assert!(stderr(&refused).contains("\"also\""), "{}", stderr(&refused));
    let good = archive(&[
        ("./usr/lib/", 'd', ""),
        ("lib", 'l', "usr/lib"),
        ("lib/x", 'f', "below a link"),
        ("/abs", 'f', "one"),
        ("./abs", 'f', "two"),
        ("also", 'h', "lib/x"),
        ("up/down", 'l', "../lib"),
        ("up/down/y", 'f', "through two"),
        ("late", 'f', "gone"),
        ("keeps", 'h', "late"),
        ("late", 'l', "abs"),
        ("folder", 'd', ""),
        ("folder", 'f', "no folder"),
    ]);
    let file = publish(&site, &good, &[]);
    let listed = shell("zstd -dcq \"$1\" | tar tv --numeric-owner", &file);
    let names: Vec<&str> =
        listed.lines().map(|line| line.split_once(':').unwrap().1.split_once(' ').unwrap().1).collect();
    assert_eq!(
        names,
        [
            "./",
            "abs",
            "also",
            "folder",
            "keeps",
            "late -> abs",
            "lib -> usr/lib",
            "up/",
            "up/down -> ../lib",
            "usr/",
            "usr/lib/",
            "usr/lib/x link to also",
            "usr/lib/y"
        ]
    );
    assert!(listed.starts_with("drwxr-xr-x 0/0 "), "{listed}");
    assert_eq!(shell("zstd -dcq \"$1\" | tar xO abs keeps usr/lib/y", &file), "twogonethrough two");
    for (bad, why) in [
        (&[("a", 'f', ""), ("a/b", 'f', "")][..], "Not a directory"),
        (&[("a", 'l', "nowhere"), ("a/b", 'f', "")], "No such file or directory"),
        (&[("a", 'l', "b"), ("b", 'l', "a"), ("a/b", 'f', "")], "Too many symbolic links"),
        (&[("a/b", 'f', ""), ("a", 'f', "")], "which is not empty"),
        (&[("a/b", 'f', ""), ("a", 'l', "x")], "which is not empty"),
        (&[("a", 'h', "b"), ("b", 'f', "")], "hard link to b: No such file"),
        (&[("a", 'd', ""), ("b", 'h', "a")], "hard link to a: Is a directory"),
        (&[("../a", 'f', "")], ".. component"),
        (&[(".", 'f', "")], "root is not a directory"),
        (&[], "holds nothing"),
    ] {
        site.built("compute", &archive(bad));
        let refused = site.run(&["image", "publish", "compute"]);
        assert_eq!(refused.status.code(), Some(1), "{why}");
        assert!(stderr(&refused).contains(why), "{why}: {}", stderr(&refused));
        let last = bad.last().map_or("", |last| last.0);
        assert!(stderr(&refused).contains(last), "{last}: {}", stderr(&refused));
    }
}

// F48
#[test]
fn holes_that_are_larger_than_any_image_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    shell("truncate -s 300G \"$1/lastlog\"; tar -C \"$1\" --sparse -cf \"$1/tar\" lastlog", folder.path());
    let site = TestSite::new("br0", "172.16.0.254/24");
    site.built("compute", &fs::read(folder.path().join("tar")).unwrap());
    let refused = site.run(&["image", "publish", "compute"]);
    assert!(stderr(&refused).contains("\"lastlog\": it is 300 GiB long"), "{}", stderr(&refused));
}

#[test]
fn the_same_tree_gives_the_same_bytes_in_whatever_order_it_was_packed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("noise"), noise(5_000_000)).unwrap();
    shell(
        "cd \"$1\"; mkdir d; echo a > d/a; echo b > b; ln b d/b; find . -exec touch -d @1000000000 {} +",
        folder.path(),
    );
    let site = TestSite::new("br0", "172.16.0.254/24");
    let mut digests = Vec::new();
    for order in ["--sort=name --format=gnu .", "--format=pax --no-recursion ./noise ./d/b ./d/a ./d ./b ."] {
        let archive = folder.path().join("../order.tar");
        shell(&format!("tar -C \"$1\" -cf {} {order}", archive.display()), folder.path());
        digests.push(manifest(&publish(&site, &fs::read(&archive).unwrap(), &[])).sha256);
        fs::remove_file(&archive).unwrap();
    }
    assert_eq!(digests[0], digests[1]);
}
