//! A site to test with: made by the program itself, with a small hand-made image in place of one
//! that mmdebstrap would take a minute for.

// Each test program uses a part of this.
#![allow(dead_code)]
// Helpers of tests, outside a test function: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The kernel that the image holds.
pub(crate) const RELEASE: &str = "6.1.0-1-test";

/// A site in a folder that vanishes with it.
pub(crate) struct TestSite {
    folder: TempDir,
}

impl TestSite {
    /// Runs `rootstream site new`.
    pub(crate) fn new(interface: &str, address: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        let made = Command::new(program())
            .args(["site", "new"])
            .arg(site.path(""))
            .args(["--interface", interface, "--address", address, "--range", "172.16.0.200-172.16.0.250"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        site
    }

    /// A path in the site.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("site").join(relative)
    }

    /// The program, told of this site.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.arg("--site").arg(self.path(""));
        command
    }

    /// Runs the program with these words.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command().args(words).output().unwrap()
    }

    /// Runs the program with these words, which must succeed.
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts the archive in place as the built image `name`.
    pub(crate) fn built(&self, name: &str, archive: &[u8]) {
        fs::create_dir_all(self.path("built")).unwrap();
        fs::write(self.path(&format!("built/{name}.tar")), archive).unwrap();
        let record = format!(r#"{{"inputs":"","created":"","arch":"amd64","bytes":{}}}"#, archive.len());
        fs::write(self.path(&format!("built/{name}.json")), record).unwrap();
    }

    /// The text of a file.
    pub(crate) fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap()
    }
}

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rootstream"))
}

/// What a command said on stderr.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An archive as mmdebstrap makes them, with a kernel, three modules and what else is asked for.
pub(crate) fn image(more: &[(&str, &[u8])]) -> Vec<u8> {
    let modules = format!("usr/lib/modules/{RELEASE}");
    let dep = "kernel/net/virtio_net.ko.xz: kernel/virtio.ko.xz\nkernel/virtio.ko.xz:\nkernel/other.ko.xz:\n";
    let files: Vec<(String, Vec<u8>)> = vec![
        (format!("boot/vmlinuz-{RELEASE}"), b"kernel".repeat(1000)),
        (format!("boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n".to_vec()),
        (format!("{modules}/modules.dep"), dep.into()),
        (format!("{modules}/modules.builtin"), b"kernel/e1000.ko\n".to_vec()),
        (format!("{modules}/kernel/net/virtio_net.ko.xz"), xz(b"the network card")),
        (format!("{modules}/kernel/virtio.ko.xz"), xz(b"what it is plugged into")),
        (format!("{modules}/kernel/other.ko.xz"), xz(b"not asked for")),
        ("usr/sbin/init".to_owned(), b"#!/bin/sh\n".to_vec()),
        ("etc/machine-id".to_owned(), Vec::new()),
        ("etc/shadow".to_owned(), b"root:*:20000:0:99999:7:::\n".to_vec()),
    ];
    let mut tar = tar::Builder::new(Vec::new());
    let more = more.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec()));
    for (name, content) in files.into_iter().chain(more) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, format!("./{name}"), content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Bytes that do not compress, always the same.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn xz(content: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x");
    fs::write(&file, content).unwrap();
    assert!(Command::new("xz").arg(&file).status().unwrap().success());
    fs::read(folder.path().join("x.xz")).unwrap()
}

/// Runs a line of shell with `$1` as its only argument; returns what it prints.
pub(crate) fn shell(line: &str, argument: &Path) -> String {
    let output = Command::new("sh").args(["-ec", line, "sh"]).arg(argument).output().unwrap();
    assert!(output.status.success(), "{line}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}
