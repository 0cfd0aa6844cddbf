//! Keys and signatures, against the minisign program.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use common::{TestSite, image, shell, stderr};

fn site() -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/24");
    site.built("compute", &image(&[]));
    site
}

/// The manifest of the newest build.
fn manifest(site: &TestSite) -> PathBuf {
    let latest: serde_json::Value = serde_json::from_str(&site.read("store/compute/latest.json")).unwrap();
    site.path("store/compute").join(latest["manifest"].as_str().unwrap())
}

fn minisign(site: &TestSite, words: &[&str], file: &std::path::Path) -> Result<String, String> {
    let output = Command::new("minisign").args(words).arg("-m").arg(file).current_dir(site.path("")).output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap() + &stderr(&output);
    if output.status.success() { Ok(said) } else { Err(said) }
}

// F34
#[test]
fn what_is_published_is_signed_as_minisign_signs() {
    let site = site();
    let unsigned = site.run(&["image", "publish", "compute"]);
    assert!(stderr(&unsigned).contains("not signed"), "{}", stderr(&unsigned));
    assert!(!manifest(&site).with_extension("json.minisig").exists());

    assert_eq!(site.done(&["key", "new"]), "keys/site.key\nkeys/site.pub\n");
    assert_eq!(site.path("keys/site.key").metadata().unwrap().mode() & 0o777, 0o600);
    // An administrator's ssh key in the same folder is no trust key.
    fs::write(site.path("keys/admin.pub"), "ssh-ed25519 AAAA admin\n").unwrap();
    site.done(&["image", "publish", "compute"]);
    let signed = manifest(&site);
    let said = minisign(&site, &["-V", "-p", "keys/site.pub"], &signed).unwrap();
    let build = signed.file_stem().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("file:{build}.json\tname:compute\tbuild:{build}")), "{said}");
    assert_eq!(signed.with_extension("json.minisig").metadata().unwrap().mode() & 0o777, 0o644);

    // The program signs with our key, too, without a password.
    let file = site.path("file");
    fs::write(&file, "bytes").unwrap();
    minisign(&site, &["-S", "-s", "keys/site.key"], &file).unwrap();
    minisign(&site, &["-V", "-p", "keys/site.pub"], &file).unwrap();

    let text = fs::read_to_string(&signed).unwrap();
    fs::write(&signed, text.replace("\"amd64\"", "\"arm64\"")).unwrap();
    assert!(minisign(&site, &["-V", "-p", "keys/site.pub"], &signed).is_err());
}

#[test]
fn keys_are_never_overwritten_and_all_public_ones_are_baked_in() {
    let site = site();
    site.done(&["key", "new", "--name", "old"]);
    let before = site.read("keys/old.key");
    let again = site.run(&["key", "new", "--name", "old"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("keys/old.key exists already"), "{}", stderr(&again));
    assert_eq!(site.read("keys/old.key"), before);

    let second = site.run(&["key", "new", "--name", "new"]);
    assert!(stderr(&second).contains("image publish needs --key NAME"), "{}", stderr(&second));
    let ambiguous = site.run(&["image", "publish", "compute"]);
    assert!(stderr(&ambiguous).contains("keys/new.key, keys/old.key"), "{}", stderr(&ambiguous));
    site.done(&["image", "publish", "compute", "--key", "new"]);
    minisign(&site, &["-V", "-p", "keys/new.pub"], &manifest(&site)).unwrap();
    assert!(minisign(&site, &["-V", "-p", "keys/old.pub"], &manifest(&site)).is_err());
    let unknown = site.run(&["image", "publish", "compute", "--key", "other"]);
    assert!(stderr(&unknown).contains("the site's keys are: new, old"), "{}", stderr(&unknown));

    fs::write(site.path("init"), "agent").unwrap();
    // Given in place of its public half, it must not get into an initramfs.
    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
    fs::write(site.path("keys/admin.pub"), private).unwrap();
    let refused = site.run(&["bootstrap", "compute", "--init", site.path("init").to_str().unwrap()]);
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("keys/admin.pub is a private key, not a public one"), "{}", stderr(&refused));
    fs::write(site.path("keys/admin.pub"), "ssh-ed25519 AAAA admin\n").unwrap();
    site.done(&["bootstrap", "compute", "--init", site.path("init").to_str().unwrap()]);
    let listed = shell("zstd -dcq \"$1\"/initramfs-*.img | cpio -t --quiet | grep keys", &site.path("tftp/compute"));
    assert_eq!(listed, "keys\nkeys/new.pub\nkeys/old.pub\n");
    let record: serde_json::Value = serde_json::from_str(&site.read("tftp/compute/bootstrap.json")).unwrap();
    assert_eq!(record["keys"]["new.pub"], site.read("keys/new.pub"));
}

// F34
#[test]
fn a_key_that_nodes_would_not_trust_signs_nothing() {
    let site = site();
    site.done(&["key", "new"]);
    let public = site.read("keys/site.pub");
    fs::remove_file(site.path("keys/site.pub")).unwrap();
    let refused = site.run(&["image", "publish", "compute"]);
    let line = public.lines().nth(1).unwrap();
    assert!(stderr(&refused).contains("not in keys/") && stderr(&refused).contains(line), "{}", stderr(&refused));
    assert!(!site.path("store/compute/latest.json").exists());
    fs::write(site.path("keys/site.pub"), "rubbish\n").unwrap();
    let refused = site.run(&["image", "publish", "compute"]);
    assert!(stderr(&refused).contains("reading the trust key site.pub"), "{}", stderr(&refused));
    fs::write(site.path("keys/site.pub"), public).unwrap();
    fs::write(site.path("keys/site.key"), "rubbish\n").unwrap();
    let refused = site.run(&["image", "publish", "compute"]);
    assert!(stderr(&refused).contains("keys/site.key"), "{}", stderr(&refused));
}
