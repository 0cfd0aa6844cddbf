//! From a built archive into the store.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rootstream_lab::tree::compare_trees;
use sha2::{Digest as _, Sha256};

use common::{RELEASE, TestSite, image, noise, shell, stderr};

fn site_with(archive: &[u8]) -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/24");
    site.built("compute", archive);
    site
}

fn latest(site: &TestSite) -> serde_json::Value {
    let pointer: serde_json::Value = serde_json::from_str(&site.read("store/compute/latest.json")).unwrap();
    let manifest = format!("store/compute/{}", pointer["manifest"].as_str().unwrap());
    serde_json::from_str(&site.read(&manifest)).unwrap()
}

#[test]
fn other_tools_read_what_is_published_and_the_manifest_describes_it() {
    let archive = image(&[("big", &[7; 10_000])]);
    let site = site_with(&archive);
    let mut names = shell("tar tf \"$1\"", &site.path("built/compute.tar"));
    // Every directory is declared, and there is one way to write a name.
    names += "./\n./boot/\n./etc/\n./usr/\n./usr/sbin/\n./usr/lib/\n./usr/lib/modules/\n";
    for folder in ["", "kernel/", "kernel/net/"] {
        names += &format!("./usr/lib/modules/{RELEASE}/{folder}\n");
    }
    let mut names: Vec<&str> =
        names.lines().map(|name| name.strip_prefix("./").filter(|n| !n.is_empty()).unwrap_or(name)).collect();
    names.sort_unstable();
    for (format, command) in [("tar.zst", "zstd -dcq \"$1\" | tar t"), ("tar.gz", "gzip -dc \"$1\" | tar t")] {
        let file = site.done(&["image", "publish", "compute", "--format", format]);
        let path = site.path(file.trim());
        assert!(file.trim().ends_with(format), "{file}");
        let listed = shell(command, &path);
        let mut listed: Vec<&str> = listed.lines().collect();
        listed.sort_unstable();
        assert_eq!(listed, names, "{format}");
        let manifest = latest(&site);
        let digest = shell("sha256sum < \"$1\"", &path);
        assert_eq!(manifest["sha256"], digest.split_whitespace().next().unwrap());
        assert_eq!(manifest["size"], path.metadata().unwrap().size());
        assert_eq!(manifest["file"], path.file_name().unwrap().to_str().unwrap());
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o644);
    }
    let manifest = latest(&site);
    assert_eq!(manifest["kernels"], serde_json::json!([RELEASE]));
    assert_eq!(manifest["init"], "/sbin/init");
    assert_eq!(manifest["largest_file"], 10_000);
    assert_eq!(manifest["inodes"], 11 + 10);
    let sizes = shell(
        "tar tvf \"$1\" | awk '{b+=$3; p+=int(($3+4095)/4096)} END {print b, p}'",
        &site.path("built/compute.tar"),
    );
    assert_eq!(sizes.trim(), format!("{} {}", manifest["unpacked_bytes"], manifest["unpacked_pages"]));
    let listed: serde_json::Value = serde_json::from_str(&site.done(&["image", "list", "--json"])).unwrap();
    assert_eq!(listed[0]["latest"]["build"], manifest["build"]);
}

#[test]
fn the_same_archive_gives_the_same_bytes() {
    let site = site_with(&image(&[("noise", &noise(9_000_000))]));
    for format in ["tar.zst", "tar.gz"] {
        let digests = [0; 2].map(|_| {
            site.done(&["image", "publish", "compute", "--format", format]);
            latest(&site)["sha256"].as_str().unwrap().to_owned()
        });
        assert_eq!(digests[0], digests[1], "{format}");
    }
}

/// A tree with one of everything that a file system can hold, with times in whole seconds.
fn tree_of_everything(acl: bool) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let make = "set -e; cd \"$1\"; mkdir -p usr/sbin etc/deep dev; printf '#!/bin/sh\\n' >usr/sbin/init; chmod 4755 usr/sbin/init; \
        ln usr/sbin/init usr/sbin/also; ln -s usr/sbin sbin; ln -s ../nowhere etc/link; head -c 3000000 /dev/zero | tr '\\0' x >etc/big; \
        truncate -s 5000000 etc/hole; mknod dev/null c 1 3; mknod dev/disk b 8 1; mkfifo -m 600 dev/fifo; chown -h 1000:70000 etc/link etc/deep; \
        chmod 555 etc/deep; chmod 711 .; find . -exec touch -hd @1500000000 {} +";
    shell(make, tree.path());
    let capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    xattr::set(tree.path().join("etc/big"), "security.capability", capability).unwrap();
    xattr::set(tree.path().join("etc"), "user.origin", b"a\nb").unwrap();
    if acl {
        let entries = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
        xattr::set(tree.path().join("etc/hole"), "system.posix_acl_access", entries).unwrap();
    }
    tree
}

fn archive_of(tree: &Path) -> Vec<u8> {
    let pack = ["--create", "--file=-", "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*"];
    let output = Command::new("tar").args(pack).arg("--directory").arg(tree).arg(".").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output.stdout
}

#[test]
fn a_published_file_system_holds_the_whole_tree_and_its_manifest_every_slice() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    for format in ["squashfs", "erofs"] {
        let tree = tree_of_everything(format == "erofs");
        let site = site_with(&archive_of(tree.path()));
        // As a kill leaves it.
        let left = site.path("store/compute/.aside-left/tree");
        fs::create_dir_all(&left).unwrap();
        let path = site.path(site.done(&["image", "publish", "compute", "--format", format]).trim());
        assert!(!left.exists() && path.to_string_lossy().ends_with(format), "{}", path.display());
        let manifest = latest(&site);
        let bytes = fs::read(&path).unwrap();
        assert_eq!((&manifest["media"], &manifest["size"]), (&format.into(), &bytes.len().into()));
        let slices = manifest["chunks"].as_array().unwrap();
        assert_eq!(slices.len(), bytes.len().div_ceil(2 << 20));
        for (slice, chunk) in bytes.chunks(2 << 20).zip(slices) {
            let digest = rootstream::image::hex(&Sha256::digest(slice));
            assert_eq!((&chunk["sha256"], &chunk["size"]), (&digest.into(), &slice.len().into()));
        }
        // 733 pages of x and two more; a hole has none.
        assert_eq!((&manifest["unpacked_pages"], &manifest["init"]), (&734.into(), &"/sbin/init".into()));

        let mounted = tempfile::tempdir().unwrap();
        let options = [format!("--types={format}"), "--options=loop,ro".to_owned()];
        assert!(Command::new("mount").args(&options).arg(&path).arg(mounted.path()).status().unwrap().success());
        let differences = compare_trees(tree.path(), mounted.path()).unwrap();
        assert!(Command::new("umount").arg(mounted.path()).status().unwrap().success());
        assert_eq!(differences, Vec::<String>::new(), "{format}");

        std::thread::sleep(Duration::from_millis(1100));
        site.done(&["image", "publish", "compute", "--format", format]);
        assert_eq!(latest(&site)["sha256"], manifest["sha256"], "{format}");
        let names = shell("ls -A \"$1\"", &site.path("store/compute"));
        assert!(!names.contains(".aside-"), "{names}");
    }
}

#[test]
fn what_squashfs_cannot_hold_is_said_and_a_missing_tool_is_named() {
    let tree = tree_of_everything(true);
    let site = site_with(&archive_of(tree.path()));
    let output = site.run(&["image", "publish", "compute", "--format", "squashfs"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 access control lists are left out"), "{}", stderr(&output));
    let mut command = site.command();
    let output =
        command.args(["image", "publish", "compute", "--format", "squashfs"]).env("PATH", "/none").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("install the package squashfs-tools-ng"), "{}", stderr(&output));
    let output = site.run(&["image", "publish", "compute", "--format", "erofs", "--level", "13"]);
    assert!(stderr(&output).contains("there is no level 13 of erofs"), "{}", stderr(&output));
}

// M7
#[test]
fn a_kill_while_publishing_leaves_the_older_build_whole() {
    let site = site_with(&image(&[]));
    site.done(&["image", "publish", "compute"]);
    let before = latest(&site);
    site.built("compute", &image(&[("noise", &noise(80_000_000))]));
    let mut publish = site
        .command()
        .args(["image", "publish", "compute"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let folder = site.path("store/compute");
    let half_written = || {
        fs::read_dir(&folder).unwrap().flatten().any(|entry| {
            entry.file_name().to_string_lossy().starts_with(".aside-") && entry.metadata().is_ok_and(|m| m.size() > 0)
        })
    };
    let started = Instant::now();
    while !half_written() {
        assert!(started.elapsed() < Duration::from_secs(60), "it never began to write");
        assert!(publish.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    publish.kill().unwrap();
    publish.wait().unwrap();
    assert_eq!(latest(&site), before);
    let names: Vec<_> =
        fs::read_dir(&folder).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
    let builds: Vec<_> = names.iter().filter(|n| !n.starts_with('.') && *n != "latest.json").collect();
    assert_eq!(builds.len(), 2, "one image and its manifest: {names:?}");
    // The next one clears away what was left.
    site.done(&["image", "publish", "compute"]);
    assert!(!half_written());
    assert_ne!(latest(&site), before);
    // F28: nodes that are fetching the older build can go on.
    assert!(folder.join(before["file"].as_str().unwrap()).exists());
}

// M4-5
#[test]
fn a_full_disk_ends_publishing_and_the_older_build_stays() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let site = site_with(&image(&[]));
    let store = site.path("store");
    fs::create_dir_all(&store).unwrap();
    mount(Some("tmpfs"), &store, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
    site.done(&["image", "publish", "compute"]);
    let before = latest(&site);
    site.built("compute", &image(&[("noise", &noise(3_000_000))]));
    let output = site.run(&["image", "publish", "compute"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("No space left on device"), "{}", stderr(&output));
    assert_eq!(latest(&site), before);
    assert!(store.join("compute").join(before["file"].as_str().unwrap()).exists());
}

// Builder
#[test]
fn an_image_with_secrets_is_published_only_when_told_to() {
    let site = site_with(&image(&[("etc/munge/munge.key", b"x"), ("etc/ssh/ssh_host_rsa_key", b"x")]));
    let output = site.run(&["image", "publish", "compute"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("/etc/munge/munge.key") && said.contains("/etc/ssh/ssh_host_rsa_key"), "{said}");
    assert!(!site.path("store/compute/latest.json").exists());
    site.done(&["image", "publish", "compute", "--allow-secrets"]);
}

// Builder
#[test]
fn a_build_that_nothing_changed_for_is_not_repeated() {
    // mmdebstrap is not there to be found, so an attempt to build shows.
    let site = TestSite::new("br0", "172.16.0.254/24");
    let build = |words: &[&str]| {
        let mut command: Command = site.command();
        command.args(["image", "build", "compute"]).args(words).env("PATH", "/nonexistent").output().unwrap()
    };
    let first = build(&[]);
    assert!(stderr(&first).contains("apt-get install mmdebstrap"), "{}", stderr(&first));
    assert_eq!(first.status.code(), Some(1));
    assert!(!site.path("built/compute.tar").exists());
    let fake = site.path("bin");
    fs::create_dir(&fake).unwrap();
    let archive = site.path("archive.tar");
    fs::write(&archive, image(&[])).unwrap();
    // The output is the word after the suite, the sources are those after it.
    let script = format!(
        "#!/bin/sh\necho 'I: running...' >&2\nwhile [ \"$1\" != bookworm ]; do shift; done\n\
         cat '{}' > \"$2\"\necho \"$*\" >> '{}'\n",
        archive.display(),
        site.path("ran").display()
    );
    fs::write(fake.join("mmdebstrap"), script).unwrap();
    shell("chmod +x \"$1/mmdebstrap\"", &fake);
    let path = format!("{}:{}", fake.display(), std::env::var("PATH").unwrap());
    let build = |words: &[&str]| {
        let output =
            site.command().args(["image", "build", "compute"]).args(words).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        site.read("ran").lines().count()
    };
    assert_eq!(build(&[]), 1);
    let words = site.read("ran");
    assert!(words.ends_with("deb http://deb.debian.org/debian-security bookworm-security main\n"), "{words}");
    assert_eq!(build(&[]), 1);
    assert_eq!(build(&["--force"]), 2);
    let recipe = site.read("images/compute.toml");
    fs::create_dir(site.path("files")).unwrap();
    fs::write(site.path("files/motd"), "hello").unwrap();
    fs::write(
        site.path("images/compute.toml"),
        format!("{recipe}\n[[files]]\nfrom = 'files/motd'\nto = '/etc/motd'\n"),
    )
    .unwrap();
    assert_eq!(build(&[]), 3);
    assert_eq!(build(&[]), 3);
    fs::write(site.path("files/motd"), "hello again").unwrap();
    assert_eq!(build(&[]), 4);
    // An image with secrets is not kept, and what was built before stays.
    let before = fs::read(site.path("built/compute.tar")).unwrap();
    fs::write(&archive, image(&[("etc/ssh/ssh_host_rsa_key", b"x")])).unwrap();
    let mut refused = site.command();
    let refused = refused.args(["image", "build", "compute", "--force"]).env("PATH", &path).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("/etc/ssh/ssh_host_rsa_key is an ssh host key"), "{}", stderr(&refused));
    assert_eq!(fs::read(site.path("built/compute.tar")).unwrap(), before);
    assert_eq!(build(&["--force", "--allow-secrets"]), 6);
}
