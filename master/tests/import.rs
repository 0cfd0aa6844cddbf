//! Images from elsewhere, by the real programs: directories, archives, OCI layouts with whiteouts, a registry. And a shell
//! in one.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rootstream_lab::bound::Bound;
use rootstream_lab::packages::unpacked;
use rootstream_lab::tree::compare_trees;
use tempfile::TempDir;

use common::{TestSite, stderr};

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", stderr(&output));
}

/// A little of everything that a root file system has.
fn fill(root: &Path) {
    let at = |path: &str| root.join(path);
    for folder in ["etc", "usr/sbin", "usr/lib/modules/6.1.0-1-test", "var/lib/old", "root/.ssh"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    for (path, content) in
        [("etc/os-release", "ID=test\n"), ("usr/sbin/init", "#!\n"), ("var/lib/old/a", "a"), ("etc/gone", "x")]
    {
        fs::write(at(path), content).unwrap();
    }
    fs::set_permissions(at("usr/sbin/init"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("usr/sbin", at("sbin")).unwrap();
    fs::hard_link(at("etc/os-release"), at("usr/lib/os-release")).unwrap();
    std::os::unix::fs::chown(at("etc/gone"), Some(1000), Some(1001)).unwrap();
    xattr::set(at("etc/os-release"), "user.origin", b"here").unwrap();
}

/// Publishes, too: whatever came in can go out.
fn assert_built(site: &TestSite, expected: &Path, what: &str) {
    let found = tempfile::tempdir().unwrap();
    let archive = site.path("built/c.tar");
    let (archive, folder) = (archive.to_str().unwrap(), found.path().to_str().unwrap());
    run("tar", &["-xpf", archive, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", folder]);
    let differences = compare_trees(expected, found.path()).unwrap();
    assert!(differences.is_empty(), "{what}: {}", differences.join("\n"));
    site.done(&["image", "publish", "c"]);
    site.done(&["image", "verify", "c"]);
}

/// A line of a private key.
const KEY: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ";

fn site() -> TestSite {
    TestSite::new("br0", "172.16.0.254/24")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_directory_or_an_archive_of_it_becomes_an_image() {
    let (tree, site, folder) = (tempfile::tempdir().unwrap(), site(), tempfile::tempdir().unwrap());
    fill(tree.path());
    site.done(&["image", "import", "c", text(tree.path())]);
    assert_built(&site, tree.path(), "directory");
    let plain = folder.path().join("c.tar");
    run("tar", &["-cf", text(&plain), "--xattrs", "--format=posix", "-C", text(tree.path()), "."]);
    for program in ["gzip", "zstd", "xz", "bzip2", ""] {
        // What a file is says its content, whatever its name.
        let packed = folder.path().join("image");
        if program.is_empty() {
            fs::rename(&plain, &packed).unwrap();
        } else {
            let out = fs::File::create(&packed).unwrap();
            assert!(Command::new(program).args(["-c", text(&plain)]).stdout(out).status().unwrap().success());
        }
        site.done(&["image", "import", "c", text(&packed)]);
        assert_built(&site, tree.path(), program);
    }
}

// Builder
#[test]
fn what_must_not_be_shared_is_named_and_can_be_left_out() {
    let (tree, site, folder) = (tempfile::tempdir().unwrap(), site(), tempfile::tempdir().unwrap());
    fill(tree.path());
    fs::write(tree.path().join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(tree.path().join("root/.ssh/id_x"), format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY}\n")).unwrap();
    let archive = folder.path().join("c.tar");
    run("tar", &["-cf", text(&archive), "--xattrs", "--format=posix", "-C", text(tree.path()), "."]);
    for source in [tree.path(), &archive] {
        let refused = site.run(&["image", "import", "c", text(source)]);
        assert_eq!(refused.status.code(), Some(1));
        let said = stderr(&refused);
        assert!(
            said.contains("/etc/machine-id is filled") && said.contains("/root/.ssh/id_x holds a private key"),
            "{said}"
        );
        assert!(!site.path("built/c.tar").exists(), "nothing is left of it");
        let without = ["--exclude", "etc/machine-id", "--exclude", "/root/.ssh/"];
        site.done(&[&["image", "import", "c", text(source)][..], &without].concat());
        fs::remove_file(site.path("built/c.tar")).unwrap();
    }
    let left: Vec<_> = fs::read_dir(site.path("built")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".aside")), "{left:?}");
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let (site, folder) = (site(), tempfile::tempdir().unwrap());
    let page = folder.path().join("page.html");
    fs::write(&page, "<html>not found</html>".repeat(50)).unwrap();
    let cut = folder.path().join("cut.gz");
    fs::write(&cut, b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b").unwrap();
    for (source, words) in [
        (text(&page), "page.html"),
        (text(&cut), "unexpected end of file"),
        ("/nowhere/at/all", "No such file"),
        ("oci:/nowhere/at/all:x", "/nowhere/at/all"),
    ] {
        let refused = site.run(&["image", "import", "c", source]);
        let said = stderr(&refused);
        assert!(refused.status.code() == Some(1) && said.contains(words), "{source}: {said}");
    }
    let usage = site.run(&["image", "import", "c", "ftp://x/y"]);
    assert!(usage.status.code() == Some(2) && stderr(&usage).contains("`ftp://` is nothing to import from"));
}

/// Layers hold no more of a time.
fn whole_seconds(tree: &Path, time: &str) {
    run("find", &[text(tree), "-depth", "-exec", "touch", "-h", "-d", time, "{}", "+"]);
}

/// An OCI layout with an image `a` of two layers, the second of which takes away, replaces and adds; and what it unpacks to.
fn layered() -> (TempDir, TempDir) {
    let (layout, bundle) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = format!("{}:a", layout.path().join("l").display());
    let bundles = [bundle.path().join("1"), bundle.path().join("2")];
    run("umoci", &["init", "--layout", text(&layout.path().join("l"))]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["unpack", "--image", &image, text(&bundles[0])]);
    fill(&bundles[0].join("rootfs"));
    whole_seconds(&bundles[0].join("rootfs"), "@1600000000");
    run("umoci", &["repack", "--image", &image, text(&bundles[0])]);
    run("umoci", &["unpack", "--image", &image, text(&bundles[1])]);
    let root = bundles[1].join("rootfs");
    fs::remove_file(root.join("etc/gone")).unwrap();
    fs::remove_dir_all(root.join("var/lib/old")).unwrap();
    fs::create_dir(root.join("var/lib/old")).unwrap();
    fs::write(root.join("var/lib/old/b"), "b").unwrap();
    fs::write(root.join("usr/sbin/init"), "#! another\n").unwrap();
    whole_seconds(&root, "@1600000001");
    run("umoci", &["repack", "--image", &image, text(&bundles[1])]);
    (layout, bundle)
}

#[test]
fn layers_and_whiteouts_of_an_oci_image_are_right() {
    let (layout, bundle) = layered();
    let site = site();
    let root = bundle.path().join("2/rootfs");
    let folder = layout.path().join("l");
    for source in [format!("oci:{}:a", folder.display()), folder.display().to_string()] {
        site.done(&["image", "import", "c", &source]);
        assert_built(&site, &root, &source);
    }
}

#[test]
fn an_image_comes_from_a_registry() {
    let registry = unpacked("docker-registry").unwrap().join("usr/bin/docker-registry");
    let (layout, bundle) = layered();
    let (site, folder) = (site(), tempfile::tempdir().unwrap());
    // Free at this moment.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = folder.path().join("config.yml");
    let stored = folder.path().join("store");
    fs::write(
        &config,
        format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            stored.display()
        ),
    )
    .unwrap();
    let _registry = Bound::start(text(&registry), |command| {
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null())
    })
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "the registry does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    let from = format!("oci:{}:a", layout.path().join("l").display());
    let name = format!("docker://127.0.0.1:{port}/cluster/c:1");
    run("skopeo", &["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from, &name]);
    let refused = site.run(&["image", "import", "c", &name]);
    assert!(!refused.status.success(), "a registry without TLS is not believed unasked");
    site.done(&["image", "import", "c", &name, "--insecure"]);
    assert_built(&site, &bundle.path().join("2/rootfs"), &name);
}

#[test]
fn a_shell_changes_what_was_built_or_leaves_it() {
    let (tree, site) = (tempfile::tempdir().unwrap(), site());
    fill(tree.path());
    fs::create_dir(tree.path().join("bin")).unwrap();
    let busybox = tree.path().join("bin/busybox");
    fs::copy("/usr/bin/busybox", &busybox).or_else(|_| fs::copy("/bin/busybox", &busybox)).unwrap();
    symlink("busybox", tree.path().join("bin/sh")).unwrap();
    site.done(&["image", "import", "c", text(tree.path())]);
    let before = fs::read(site.path("built/c.tar")).unwrap();
    let in_image = |script: &str| site.run(&["image", "shell", "c", "--", "/bin/sh", "-c", script]);
    let failed = in_image("echo changed > /etc/motd; exit 3");
    assert!(stderr(&failed).contains("stays as it was"), "{}", stderr(&failed));
    assert!(fs::read(site.path("built/c.tar")).unwrap() == before);
    let kept = in_image("echo changed > /etc/motd && busybox chown 7:8 /etc/motd && busybox rm /etc/gone");
    assert!(kept.status.success(), "{}", stderr(&kept));
    fs::write(tree.path().join("etc/motd"), "changed\n").unwrap();
    std::os::unix::fs::chown(tree.path().join("etc/motd"), Some(7), Some(8)).unwrap();
    fs::remove_file(tree.path().join("etc/gone")).unwrap();
    let listed =
        Command::new("tar").args(["-tvf", text(&site.path("built/c.tar")), "--numeric-owner"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let motd = listed.lines().find(|line| line.ends_with("./etc/motd")).unwrap();
    assert!(motd.contains(" 7/8 "), "{motd}");
    // Nothing of the shell's surroundings is in it.
    assert!(!listed.contains("etc/gone") && !listed.contains("resolv.conf"), "{listed}");
    let secret = in_image(&format!("echo -----BEGIN PRIVATE KEY----- > /etc/key; echo {KEY} >> /etc/key"));
    assert!(stderr(&secret).contains("/etc/key holds a private key"), "{}", stderr(&secret));
}
