//! `init rehearse` as an administrator runs it: its exit codes, its record, and what it leaves behind.

// clippy.toml allows these inside test functions only; a test's helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rootstream_lab::faulty::{Server, answer};
use rootstream_lab::tree;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const AGENT: &str = env!("CARGO_BIN_EXE_init");
/// The user `nobody` of every Debian.
const NOBODY: u32 = 65_534;

/// A tar whose `/sbin/init` is `init`, with modules for kernel 6.1.0-test.
fn image(init: Option<&[u8]>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, data).unwrap();
    };
    for folder in ["etc/", "sbin/", "usr/", "usr/lib/", "usr/lib/modules/", "usr/lib/modules/6.1.0-test/"] {
        put(folder, tar::EntryType::Directory, 0o755, b"");
    }
    put("etc/os-release", tar::EntryType::Regular, 0o644, b"ID=test\n");
    if let Some(init) = init {
        put("sbin/init", tar::EntryType::Regular, 0o755, init);
    }
    builder.into_inner().unwrap()
}

/// An ELF header of a static program for this machine: enough to be found, never run.
fn program() -> Vec<u8> {
    let mut elf = vec![0; 120];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf
}

fn serve(body: Vec<u8>) -> Server {
    Server::start(move |_, stream| answer(stream, "200 OK", &[("ETag", "\"1\"")], &body)).unwrap()
}

struct Outcome {
    code: i32,
    record: Value,
    stderr: String,
}

fn run(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let record = if stdout.starts_with('{') { serde_json::from_str(&stdout).unwrap() } else { Value::String(stdout) };
    Outcome {
        code: output.status.code().unwrap(),
        record,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn rehearse(root: &Path, parameters: &str, options: &[&str]) -> Outcome {
    let mut command = Command::new(AGENT);
    run(command.args(["rehearse", "--json", "--root"]).arg(root).args(["--cmdline", parameters]).args(options))
}

#[test]
fn a_good_image_would_boot() {
    let bytes = image(Some(&program()));
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let length = bytes.len();
    let server = serve(bytes);
    let root = TempDir::new().unwrap();
    let parameters = format!(
        "rootstream.image={} rootstream.sha256={digest} rootstream.onfail=poweroff quiet rootstream.bogus",
        server.url("/i.tar")
    );
    let outcome = rehearse(root.path(), &parameters, &["--kernel", "6.1.0-test", "--arch", std::env::consts::ARCH]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let record = outcome.record;
    assert_eq!((&record["ok"], &record["exit"], &record["error"]), (&Value::Bool(true), &0.into(), &Value::Null));
    assert_eq!((&record["trust"], &record["bytes"], &record["retries"]), (&"digest".into(), &length.into(), &0.into()));
    assert_eq!(record["image"]["sha256"], digest);
    assert_eq!(record["steps"][0]["name"], "image");
    assert_eq!((&record["checks"]["kernel"], &record["checks"]["arch"]), (&"same".into(), &"same".into()));
    assert_eq!(record["lease"], Value::Null);
    assert!(record["warnings"][0].as_str().unwrap().contains("rootstream.bogus"), "{record}");
    let entries: Vec<String> = tree::walk(root.path()).unwrap().into_keys().collect();
    assert_eq!(entries.iter().filter(|path| path.contains("etc")).count(), 2, "{entries:?}");
    assert!(!root.path().join("etc/resolv.conf").exists());
}

#[test]
fn a_rehearsal_is_told_what_the_node_is_called() {
    let (base, overlay) = (image(Some(&program())), image(None));
    let server = Server::start(move |request, stream| match request.path.as_str() {
        "/i.tar" => answer(stream, "200 OK", &[], &base),
        "/n1-amd64.tar" => answer(stream, "200 OK", &[], &overlay),
        _ => answer(stream, "404 Not Found", &[], b""),
    })
    .unwrap();
    let parameters = format!(
        "rootstream.image={} rootstream.overlay={} rootstream.retry=1",
        server.url("/i.tar"),
        server.url("/${hostname}-${arch}.tar")
    );
    let root = TempDir::new().unwrap();
    let outcome = rehearse(root.path(), &parameters, &["--fact", "hostname=n1", "--fact", "arch=amd64"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let overlay = &outcome.record["overlays"][0];
    assert_eq!((&overlay["url"], &overlay["trust"]), (&server.url("/n1-amd64.tar").into(), &"none".into()));
    assert_eq!(
        outcome.record["bytes"],
        outcome.record["image"]["bytes"].as_u64().unwrap() + overlay["bytes"].as_u64().unwrap()
    );

    // This machine has a name and an architecture too, but it is not that node.
    let root = TempDir::new().unwrap();
    let outcome = rehearse(root.path(), &parameters, &[]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.record["error"]["why"].as_str().unwrap().contains("${hostname}"), "{}", outcome.record);
    assert!(outcome.record["error"]["todo"].as_str().unwrap().contains("--fact"), "{}", outcome.record);
    // Nothing says whose lease would name the image.
    let root = TempDir::new().unwrap();
    let outcome = rehearse(root.path(), "rootstream.image=dhcp", &[]);
    assert!(outcome.record["error"]["why"].as_str().unwrap().contains("no trust key"), "{}", outcome.record);
}

#[test]
fn mistakes_of_usage_exit_2_before_anything_is_fetched() {
    let server = serve(image(Some(&program())));
    let root = TempDir::new().unwrap();
    let good = format!("rootstream.image={}", server.url("/i.tar"));
    assert_eq!(run(Command::new(AGENT).args(["rehearse", "--root", "/"])).code, 2);
    assert_eq!(run(&mut Command::new(AGENT)).code, 2);
    let outcome = rehearse(root.path(), &format!("{good} rootstream.stall=soon rootstream.onfail=pray"), &[]);
    assert_eq!(outcome.code, 2);
    let why = outcome.record["error"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("rootstream.stall=soon") && why.contains("rootstream.onfail=pray"), "{why}");
    assert_eq!(rehearse(Path::new("/nonexistent"), &good, &[]).code, 2);
    fs::write(root.path().join("mine"), "precious").unwrap();
    let outcome = rehearse(root.path(), &good, &[]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.record["error"]["what"].as_str().unwrap().contains("is not empty"), "{}", outcome.record);
    assert!(server.requests().is_empty());
    assert_eq!(rehearse(root.path(), &good, &["--force"]).code, 0);
    assert_eq!(fs::read_to_string(root.path().join("mine")).unwrap(), "precious");
}

// F37
#[test]
fn what_the_image_lacks_is_said_and_the_failure_policy_is_not_followed() {
    let server = serve(image(Some(&program())));
    let url = server.url("/i.tar");
    let refused = |parameters: &str, options: &[&str]| {
        let root = TempDir::new().unwrap();
        let outcome = rehearse(root.path(), parameters, options);
        (outcome.code, outcome.record["error"].to_string())
    };
    let wrong = format!("rootstream.image={url} rootstream.sha256={} rootstream.onfail=reboot", "00".repeat(32));
    let (code, error) = refused(&wrong, &[]);
    assert!(code == 1 && error.contains(&url), "{code} {error}");
    let (code, error) = refused(&format!("rootstream.image={url}"), &["--kernel", "6.12.3"]);
    assert!(code == 1 && error.contains("6.1.0-test") && error.contains("6.12.3"), "{code} {error}");
    let (code, error) = refused(&format!("rootstream.image={url}"), &["--arch", "vax"]);
    assert!(code == 1 && error.contains("vax"), "{code} {error}");
}

// F61
#[test]
fn an_image_without_init_exits_3_and_its_tree_stays() {
    let server = serve(image(None));
    let root = TempDir::new().unwrap();
    let outcome = rehearse(root.path(), &format!("rootstream.image={}", server.url("/i.tar")), &[]);
    assert_eq!(outcome.code, 3);
    let what = outcome.record["error"]["what"].as_str().unwrap();
    assert!(what.contains("has no usable init at /sbin/init") && what.contains(&server.url("/i.tar")), "{what}");
    assert_eq!(outcome.record["image"]["entries"], 7);
    assert!(root.path().join("etc/os-release").exists());
}

#[test]
fn a_file_system_is_verified_and_stored_and_never_mounted() {
    let folder = TempDir::new().unwrap();
    let (tree, file) = (folder.path().join("tree"), folder.path().join("file"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    let mut tool = Command::new("mksquashfs");
    assert!(tool.arg(&tree).arg(&file).args(["-quiet", "-no-progress"]).status().unwrap().success());
    let bytes = fs::read(&file).unwrap();
    let server = serve(bytes.clone());
    let root = TempDir::new().unwrap();
    let options = ["--kernel", "6.1.0-test"];
    let outcome = rehearse(root.path(), &format!("rootstream.image={}", server.url("/i.tar")), &options);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!((&outcome.record["ok"], &outcome.record["image"]["media"]), (&true.into(), &"squashfs".into()));
    assert_eq!(outcome.record["checks"]["kernel"], "not checked");
    let warning = outcome.record["warnings"][0].as_str().unwrap();
    assert!(warning.contains("a squashfs file, verified and stored"), "{warning}");
    let entries: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries, ["image.squashfs"]);
    assert_eq!(fs::read(root.path().join("image.squashfs")).unwrap(), bytes);
}

#[test]
fn a_user_without_rights_is_told_before_the_download_and_can_leave_owners_out() {
    let server = serve(image(Some(&program())));
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The checkout may be where only root can look.
    let agent = folder.path().join("init");
    fs::copy(AGENT, &agent).unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    chown(&root, Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = |options: &[&str]| {
        let mut command = Command::new(&agent);
        command.args(["rehearse", "--json", "--root"]).arg(&root).args(options);
        run(command.args(["--cmdline", &format!("rootstream.image={}", server.url("/i.tar"))]).uid(NOBODY).gid(NOBODY))
    };
    let outcome = as_nobody(&[]);
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    assert!(outcome.record["error"]["todo"].as_str().unwrap().contains("--no-owners"), "{}", outcome.record);
    assert!(server.requests().is_empty());
    let outcome = as_nobody(&["--no-owners"]);
    assert_eq!(outcome.code, 0, "{} {}", outcome.record, outcome.stderr);
    assert!(root.join("sbin/init").exists());
}

#[test]
fn the_machines_own_network_is_not_touched_unasked() {
    let server = serve(image(Some(&program())));
    let root = TempDir::new().unwrap();
    let outcome = rehearse(root.path(), &format!("rootstream.image={}", server.url("/i.tar")), &["--net"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.record["error"]["todo"].as_str().unwrap().contains("--this-host"), "{}", outcome.record);
}

#[test]
fn people_get_the_verdict_in_the_last_line() {
    let server = serve(image(Some(&program())));
    let root = TempDir::new().unwrap();
    let outcome = run(Command::new(AGENT)
        .args(["rehearse", "--root"])
        .arg(root.path())
        .arg(format!("--cmdline=rootstream.image={}", server.url("/i.tar"))));
    assert_eq!(outcome.record.as_str().unwrap().lines().last(), Some("would boot"));
    assert!(!outcome.stderr.is_empty());
}

// F65
#[test]
fn a_server_behind_https_is_known_by_the_certificate_that_is_named() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("i.tar"), image(Some(&program()))).unwrap();
    // Of another name: it is the very certificate that counts.
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=elsewhere", "-days", "1"])
        .args(["-keyout", "key.pem", "-out", "server.pem"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut server = Command::new("openssl")
        .args(["s_server", "-WWW", "-accept", "127.0.0.1:0", "-cert", "server.pem", "-key", "key.pem"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its first line ends with the address: `ACCEPT 127.0.0.1:PORT PID=…`.
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let accept = said.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
    let port = accept.split_whitespace().next().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let parameters = format!("rootstream.image=https://127.0.0.1:{port}/i.tar rootstream.retry=2s");
    let named = folder.path().join("server.pem");
    let mut codes = Vec::new();
    for options in
        [&["--ca", named.to_str().unwrap()][..], &[], &["--ca", folder.path().join("key.pem").to_str().unwrap()]]
    {
        let root = TempDir::new().unwrap();
        let outcome = rehearse(root.path(), &parameters, options);
        codes.push((outcome.code, outcome.record["error"]["why"].as_str().unwrap_or_default().to_owned()));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(codes[0], (0, String::new()));
    assert!(codes[1].0 == 1 && codes[1].1.contains("holds no certificate"), "{:?}", codes[1]);
    assert!(codes[2].0 == 2 && codes[2].1.contains("private key"), "{:?}", codes[2]);
}
