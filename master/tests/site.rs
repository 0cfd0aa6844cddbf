//! Making a site and adding nodes: what is written, what is refused, and with which exit code.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{TestSite, stderr};
use rootstream_lab::namespace::{enter_private_network, ip};

const FIRST: [&str; 7] = ["node", "add", "n1", "--mac", "52:54:00:ac:10:01", "--ip", "172.16.0.1"];

#[test]
fn nodes_are_added_below_what_is_there() {
    let site = TestSite::new("br0", "172.16.0.254/24");
    let before = site.read("nodes.toml");
    site.done(&FIRST);
    let one = site.read("nodes.toml");
    assert!(one.starts_with(&before), "{one}");
    fs::write(site.path("nodes.toml"), format!("{one}# a note\n")).unwrap();
    site.done(&[
        "node",
        "add",
        "n2",
        "--mac",
        "52-54-00-AC-10-02",
        "--ip",
        "172.16.0.2",
        "--image",
        "gpu",
        "--parameters",
        "--quiet a=\"b c\"",
    ]);
    let two = site.read("nodes.toml");
    assert!(two.starts_with(&format!("{one}# a note\n\n[[node]]\nname = \"n2\"")), "{two}");
    let listed: serde_json::Value = serde_json::from_str(&site.done(&["node", "list", "--json"])).unwrap();
    assert_eq!(listed[1]["mac"], "52:54:00:ac:10:02");
    assert_eq!(listed[1]["parameters"], "--quiet a=\"b c\"");
    assert_eq!(listed[0]["image"], serde_json::Value::Null);
    assert!(site.done(&["node", "list"]).contains("n1    52:54:00:ac:10:01  172.16.0.1  -    compute  -     -\n"));
}

// M15
#[test]
fn duplicates_and_foreign_addresses_are_refused_and_nothing_is_written() {
    let site = TestSite::new("br0", "172.16.0.254/24");
    site.done(&FIRST);
    let before = site.read("nodes.toml");
    let line = |text: &str| before.lines().position(|l| l.starts_with(text)).unwrap() + 1;
    for (name, mac, ip, message) in [
        ("N1", "52:54:00:ac:10:02", "172.16.0.2", format!("nodes.toml:{}: there is a node n1 already", line("name"))),
        ("n2", "52:54:00:ac:10:01", "172.16.0.2", format!("nodes.toml:{}: n2 has the MAC", line("mac"))),
        ("n2", "52:54:00:ac:10:02", "172.16.0.1", format!("nodes.toml:{}: n2 has the address", line("ip"))),
        ("n2", "52:54:00:ac:10:02", "10.0.0.1", "the address 10.0.0.1 of n2 is outside the network".to_owned()),
    ] {
        let output = site.run(&["node", "add", name, "--mac", mac, "--ip", ip]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(&message), "{}", stderr(&output));
    }
    assert_eq!(site.read("nodes.toml"), before);
}

#[test]
fn a_mistake_in_a_file_is_named_by_file_and_line() {
    let site = TestSite::new("br0", "172.16.0.254/24");
    let config = site.read("site.toml").replace("[http]", "[http]\nprot = 8080");
    let line = config.lines().position(|l| l.starts_with("prot")).unwrap() + 1;
    fs::write(site.path("site.toml"), config).unwrap();
    let output = site.run(&["node", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(&format!("site.toml:{line}: unknown field `prot`")), "{}", stderr(&output));
}

#[test]
fn the_exit_code_tells_usage_from_failure() {
    let site = TestSite::new("br0", "172.16.0.254/24");
    assert_eq!(site.run(&["image", "publish", "compute"]).status.code(), Some(1));
    assert_eq!(site.run(&["image", "publish", "compute", "--format", "rar"]).status.code(), Some(2));
    assert_eq!(site.run(&["image", "publish", "../x"]).status.code(), Some(2));
    let nowhere = common::program();
    let output = std::process::Command::new(nowhere).args(["--site", "/nonexistent", "node", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nonexistent is no site"), "{}", stderr(&output));
    assert!(stderr(&output).contains("rootstream site new"), "{}", stderr(&output));
    // A second site in the same place would overwrite the first.
    let path = site.path("");
    let words = ["site", "new", path.to_str().unwrap(), "--interface", "br0", "--address", "172.16.0.254/24"];
    assert!(stderr(&site.run(&words)).contains("is not empty"));
}

/// Runs `site new DIR` on a terminal, with `br0` among the ports, and types `answers`.
fn asked(dir: &Path, more: &str, answers: &str) -> (bool, String) {
    let line = format!("{} site new {} {more}", common::program().display(), dir.display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = script.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_terminal_is_asked_for_what_no_flag_says() {
    enter_private_network().unwrap();
    for words in
        ["link add br0 type bridge", "addr add 172.16.0.254/24 dev br0", "link add eth1 type veth peer name eth2"]
    {
        ip(words).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let written = |name: &str| fs::read_to_string(at(name).join("site.toml")).unwrap();

    // What is proposed is what this machine has.
    let (done, said) = asked(&at("all"), "", "\n\n\n\n");
    assert!(done && said.contains("Interface [br0]:") && said.contains("length [172.16.0.254/24]:"), "{said}");
    let all = written("all");
    assert!(all.contains("interface = \"br0\"") && all.contains("address = \"172.16.0.254/24\""), "{all}");
    assert!(all.contains("\nrange = \"172.16.0.200-172.16.0.250\"\n") && all.contains("\n# domain = "), "{all}");

    // A wrong answer is asked for again; `none` is none.
    let (done, said) = asked(&at("some"), "--interface br7", "10.0.0.1\n10.0.0.1/8\nnone\nhpc.example.org\n");
    assert!(done && said.contains("`10.0.0.1` is no address with its prefix") && !said.contains("Interface"), "{said}");
    let some = written("some");
    assert!(some.contains("\n# range = ") && some.contains("domain = \"hpc.example.org\"\n"), "{some}");
    assert!(some.contains("dns = [\"10.0.0.1\"]"), "{some}");

    // What does not fit together is refused, and so is a full folder before the first question.
    let (done, said) = asked(&at("wrong"), "", "\n\n10.0.0.1-10.0.0.9\n\n");
    assert!(!done && said.contains("10.0.0.1 is outside the network of 172.16.0.254/24"), "{said}");
    assert!(!at("wrong").exists());
    let (done, said) = asked(&at("all"), "", "");
    assert!(!done && said.contains("is not empty") && !said.contains("Interface"), "{said}");
    let (done, said) = asked(&at("none"), "", "\n");
    assert!(!done && said.contains("the questions were not answered") && !at("none").exists(), "{said}");

    // Nobody to ask.
    let mut command = Command::new(common::program());
    let output = command.args(["site", "new"]).arg(at("none")).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--interface is missing, and there is no terminal"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let site = TestSite::new("br0", "172.16.0.254/24");
    let gone = || std::io::pipe().unwrap().1;
    let status = site.command().args(["node", "list"]).stdout(gone()).stderr(gone()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let status = site.command().args(["image", "publish", "compute"]).stdout(gone()).stderr(gone()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}
