//! Overlays as an administrator makes them: what gets into the archives, what is refused, and that nothing but the files
//! and facts decides their bytes.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{TestSite, image, shell, stderr};
use rootstream::cmdline;
use rootstream::facts::NodeFacts;
use rootstream::image::trust::{Keys, SignatureFile};
use rootstream::image::{Anchors, Machine, Resolve, Sources, Tally, Trust, Unpack};
use rootstream_master::config::site::Site;
use rootstream_master::up::http::Server;
use serde_json::Value;

/// A site with two nodes and the overlay `common`: a file, a private script, a link and an empty folder.
fn site() -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/24");
    for n in ["1", "2"] {
        let (name, mac, ip) = (format!("n{n}"), format!("52:54:00:ac:10:0{n}"), format!("172.16.0.{n}"));
        site.done(&["node", "add", &name, "--mac", &mac, "--ip", &ip]);
    }
    put(&site, "common/etc/motd", "hello\n", 0o644);
    put(&site, "common/usr/local/sbin/tune", "#!/bin/sh\n", 0o750);
    symlink("/usr/share/zoneinfo/UTC", site.path("overlays/common/etc/localtime")).unwrap();
    fs::create_dir_all(site.path("overlays/common/srv/scratch")).unwrap();
    fs::set_permissions(site.path("overlays/common/srv/scratch"), PermissionsExt::from_mode(0o1777)).unwrap();
    site
}

fn put(site: &TestSite, file: &str, content: &str, mode: u32) {
    let path = site.path("overlays").join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
}

fn index(site: &TestSite, overlay: &str) -> Value {
    serde_json::from_str(&site.read(&format!("store/overlays/{overlay}/latest.json"))).unwrap()
}

fn refused(site: &TestSite, words: &[&str]) -> String {
    let output = site.run(words);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn files_decide_the_bytes_and_tar_reads_them() {
    let site = site();
    let file = site.done(&["overlay", "publish", "common"]);
    let file = file.trim();
    assert!(file.starts_with("store/overlays/common/all-") && file.ends_with(".tar.zst"), "{file}");
    let listed = shell("zstd -dc \"$1\" | tar --numeric-owner -tvf -", &site.path(file));
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let of = |name: &str| lines.iter().find(|words| words[5].starts_with(name)).unwrap();
    assert_eq!(lines.len(), 4, "{listed}");
    assert!(lines.iter().all(|words| words[1] == "0/0"), "{listed}");
    assert_eq!(of("etc/motd")[0], "-rw-r--r--");
    assert_eq!(of("usr/local/sbin/tune")[0], "-rwxr-x---");
    assert_eq!(of("srv/scratch")[0], "drwxrwxrwt");
    assert_eq!(of("etc/localtime")[7], "/usr/share/zoneinfo/UTC");

    // Neither time nor the permissions of folders count; content and permissions of files do.
    put(&site, "common/etc/motd", "hello\n", 0o644);
    fs::set_permissions(site.path("overlays/common/etc"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(site.done(&["overlay", "publish", "common"]).trim(), file);
    put(&site, "common/etc/motd", "hello\n", 0o600);
    let other = site.done(&["overlay", "publish", "common", "--format", "tar.gz"]);
    assert!(other.trim().ends_with(".tar.gz"), "{other}");
    shell("gzip -dc \"$1\" | tar -tf - | grep etc/motd", &site.path(other.trim()));
    // Nodes that are fetching the older one can go on.
    assert!(site.path(file).exists());
    let index = index(&site, "common");
    assert_eq!(format!("store/overlays/common/{}", index["shared"]["file"].as_str().unwrap()), other.trim());
    let sum = shell("sha256sum \"$1\"", &site.path(other.trim()));
    assert_eq!(sum.split_whitespace().next(), index["shared"]["sha256"].as_str());
    assert_eq!(site.done(&["image", "list", "--json"]).matches("overlays").count(), 0);
}

#[test]
fn templates_make_an_archive_for_each_node() {
    let site = site();
    fs::write(site.path("nodes.toml"), site.read("nodes.toml") + "[node.facts]\nrack = \"r2\"\n").unwrap();
    fs::write(site.path("site.toml"), site.read("site.toml") + "[facts]\nrack = \"r1\"\n").unwrap();
    put(&site, "node/etc/hosts.in", "@ip@/@prefix@ @hostname@ a@b.org\n@mac@ @rack@ @master@\n", 0o640);
    put(&site, "node/etc/motd", "@hostname@\n", 0o644);
    let built = site.done(&["overlay", "build", "node"]);
    assert_eq!(built, "built/overlays/node/n1.tar\nbuilt/overlays/node/n2.tar\n");
    let hosts = |n: &str| shell("tar -xOf \"$1\" etc/hosts", &site.path(&format!("built/overlays/node/n{n}.tar")));
    assert_eq!(hosts("1"), "172.16.0.1/24 n1 a@b.org\n52:54:00:ac:10:01 r1 172.16.0.254\n");
    assert_eq!(hosts("2"), "172.16.0.2/24 n2 a@b.org\n52:54:00:ac:10:02 r2 172.16.0.254\n");
    let motd = shell("tar -xOf \"$1\" etc/motd", &site.path("built/overlays/node/n1.tar"));
    assert_eq!(motd, "@hostname@\n");
    assert!(!site.path("store/overlays/node/latest.json").exists());
    assert_eq!(site.done(&["overlay", "publish", "node"]).lines().count(), 2);
    let index = index(&site, "node");
    assert_eq!(index["nodes"]["n2"]["facts"]["rack"], "r2");
    assert_eq!(index["shared"], Value::Null);

    put(&site, "node/etc/bad.in", "x\n@gateway@\n", 0o644);
    let why = refused(&site, &["overlay", "publish", "node"]);
    assert!(why.contains("node n1") && why.contains("etc/bad.in: line 2 wants @gateway@"), "{why}");
    assert!(why.contains("[node.facts]"), "{why}");
}

// F34
#[test]
fn archives_are_signed_under_their_names() {
    let site = site();
    put(&site, "node/etc/hostname.in", "@hostname@\n", 0o644);
    let unsigned = site.done(&["overlay", "publish", "node"]);
    assert!(!site.path(&format!("{}.minisig", unsigned.lines().next().unwrap())).exists());
    site.done(&["key", "new"]);
    let files = site.done(&["overlay", "publish", "node"]);
    assert_eq!(files, unsigned, "a signature changes no file");
    let keys = Keys::read(&[site.path("keys/site.pub")]).unwrap();
    for file in files.lines() {
        let text = fs::read(site.path(&format!("{file}.minisig"))).unwrap();
        let signature = SignatureFile::parse(&text).unwrap();
        keys.verify(&fs::read(site.path(file)).unwrap(), &signature).unwrap();
        assert_eq!(signature.file_name(), file.rsplit('/').next());
    }
    let output = site.run(&["overlay", "publish", "node", "--key", "other"]);
    assert!(stderr(&output).contains("there is no keys/other.key"), "{}", stderr(&output));
}

/// Knows no names: the tests' servers have addresses.
#[derive(Debug)]
struct Nobody;

impl Resolve for Nobody {
    fn resolve(&self, host: &str, _: u16) -> anyhow::Result<Vec<SocketAddr>> {
        anyhow::bail!("{host}: no names here")
    }
}

// F34
#[test]
fn a_node_gets_what_was_published_for_it_and_nothing_else() {
    let site = site();
    site.done(&["key", "new"]);
    put(&site, "node/etc/hostname.in", "@hostname@\n", 0o644);
    site.built("compute", &image(&[]));
    site.done(&["image", "publish", "compute"]);
    let common = site.done(&["overlay", "publish", "common"]);
    let own = site.done(&["overlay", "publish", "node"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::new(&Site::open(&site.path("")).unwrap(), listener).unwrap();
    runtime.spawn(server.run(std::future::pending(), Duration::ZERO));

    let url = |file: &str| format!("{origin}/{}", file.trim().strip_prefix("store/").unwrap());
    let anchors = Anchors { keys: Keys::read(&[site.path("keys/site.pub")]).unwrap(), ..Anchors::default() };
    let install = |overlays: &[String]| {
        let line = format!(
            "rootstream.image={origin}/images/compute/latest.json rootstream.overlay={} rootstream.retry=1",
            overlays.join(",")
        );
        let settings = cmdline::parse(&line).check().unwrap().image;
        let (resolver, node): (Arc<dyn Resolve>, _) = (Arc::new(Nobody), NodeFacts::default());
        let sources = Sources { settings: &settings, anchors: &anchors, resolver: &resolver, node: &node };
        let (root, mut tally) = (tempfile::tempdir().unwrap(), Tally::default());
        let unpack = Unpack { owners: true, workers: 2, mount: None };
        let plan = rootstream::image::plan(sources, &Machine::default(), &mut tally).unwrap();
        let installed = plan.install(unpack, root.path(), &mut tally);
        installed.map(|installed| (root, installed.root().unwrap())).map_err(|error| format!("{error:#}"))
    };
    let (root, verified) = install(&[url(&common), url(own.lines().next().unwrap())]).unwrap();
    let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
    assert_eq!((read("etc/motd").as_str(), read("etc/hostname").as_str()), ("hello\n", "n1\n"));
    assert_eq!((verified.trust(), verified.overlays().len()), (Trust::Signed, 2));
    assert_eq!(fs::metadata(root.path().join("usr/local/sbin/tune")).unwrap().mode() & 0o7777, 0o750);

    // n2's archive, signature and all, under the name of n1's.
    let files: Vec<PathBuf> = own.lines().map(|file| site.path(file)).collect();
    let (first, second) = (&files[0], &files[1]);
    fs::copy(second, first).unwrap();
    fs::copy(format!("{}.minisig", second.display()), format!("{}.minisig", first.display())).unwrap();
    let why = install(&[url(own.lines().next().unwrap())]).unwrap_err();
    assert!(why.contains("the signature is of \"n2-"), "{why}");
}

#[test]
fn what_no_overlay_can_hold_is_named() {
    let site = site();
    assert!(refused(&site, &["overlay", "publish", "none"]).contains("there is no overlay none"));
    fs::create_dir_all(site.path("overlays/empty/")).unwrap();
    assert!(refused(&site, &["overlay", "build", "empty"]).contains("is empty"));
    put(&site, "common/etc/motd.in", "@hostname@", 0o644);
    let why = refused(&site, &["overlay", "build", "common"]);
    assert!(why.contains("become /etc/motd"), "{why}");
    fs::remove_file(site.path("overlays/common/etc/motd.in")).unwrap();
    nix::unistd::mkfifo(&site.path("overlays/common/run"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refused(&site, &["overlay", "build", "common"]).contains("overlays/common/run is a pipe"));
    assert_eq!(site.run(&["image", "publish", "overlays"]).status.code(), Some(2));
    assert_eq!(site.run(&["overlay", "publish", "../x"]).status.code(), Some(2));
}

// Builder
#[test]
fn an_overlay_with_secrets_is_published_only_when_told_to() {
    let site = site();
    put(&site, "keys/etc/munge/munge.key", "x", 0o400);
    for words in [["overlay", "build", "keys"], ["overlay", "publish", "keys"]] {
        let why = refused(&site, &words);
        assert!(why.contains("/etc/munge/munge.key is the cluster's munge key"), "{why}");
        assert!(why.contains("every machine on the boot network can fetch it"), "{why}");
    }
    assert!(!site.path("store/overlays/keys/latest.json").exists());
    site.done(&["overlay", "publish", "keys", "--allow-secrets"]);
    // A template's facts count as well as its text.
    let key = "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";
    fs::write(site.path("site.toml"), site.read("site.toml") + &format!("[facts]\nkey = \"{key}\"\n")).unwrap();
    put(&site, "filled/etc/key.in", "@key@\n", 0o600);
    let why = refused(&site, &["overlay", "publish", "filled"]);
    assert!(why.contains("filled for n1 holds secrets: /etc/key holds a private key"), "{why}");
}
