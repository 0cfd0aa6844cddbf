//! Nodes by the hundred: added, changed, removed, exported.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::process::Command;

use common::{TestSite, shell, stderr};
use rootstream_lab::packages::unpacked;

/// A site with two groups, and four nodes in one of them.
fn site() -> TestSite {
    let site = TestSite::new("br0", "172.16.0.254/16");
    let config = site.read("site.toml").replace("# domain =", "domain =");
    fs::write(site.path("site.toml"), format!("{config}\n[group.rack1]\nparameters = 'rack=1'\n")).unwrap();
    let nodes = site.read("nodes.toml");
    fs::write(site.path("nodes.toml"), format!("{nodes}\n[group.odd] # for tests\nimage = 'gpu'\n")).unwrap();
    fs::write(
        site.path("macs"),
        "n003 52:54:00:ac:10:03\nn001 52:54:00:ac:10:01 52:54:00:ac:20:01\nn002,52:54:00:ac:10:02\n52:54:00:ac:10:04\n",
    )
    .unwrap();
    let macs = site.path("macs");
    let words = ["node", "add", "n[001-004]", "--ip", "172.16.1.254", "--bmc-ip", "172.16.3.1", "groups=rack1"];
    site.done(&[&words[..], &["--macs", macs.to_str().unwrap()]].concat());
    site
}

fn listed(site: &TestSite, nodes: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(&site.done(&["node", "list", "--json", nodes])).unwrap()
}

fn refused(site: &TestSite, words: &[&str]) -> String {
    let output = site.run(words);
    assert!(!output.status.success(), "{words:?}");
    stderr(&output)
}

#[test]
fn ranges_and_groups_name_nodes() {
    let site = site();
    let nodes = listed(&site, "@rack1");
    assert_eq!(nodes.len(), 4);
    // Addresses count on, whatever the last byte is.
    assert_eq!((&nodes[1]["name"], &nodes[1]["ip"]), (&"n002".into(), &"172.16.1.255".into()));
    assert_eq!((&nodes[3]["ip"], &nodes[3]["bmc"]["ip"]), (&"172.16.2.1".into(), &"172.16.3.4".into()));
}

#[test]
fn changes_are_whole_and_keep_what_is_there() {
    let site = TestSite::new("br0", "172.16.0.254/16");
    site.done(&["node", "add", "n[1-3]", "--ip", "172.16.1.1", "--image", "compute"]);
    let before = site.read("nodes.toml").replace("ip = \"172.16.1.2\"", "ip = \"172.16.1.2\" # top");
    fs::write(site.path("nodes.toml"), &before).unwrap();

    let words = ["node", "set", "n[1-2]", "ip=172.16.3.1", "bmc.ip=172.16.4.1", "image="];
    let dry = site.done(&[&words[..], &["--dry-run"]].concat());
    assert_eq!(site.read("nodes.toml"), before);
    assert_eq!(site.done(&words), dry);
    assert!(dry.contains("n2: ip = \"172.16.3.2\"\nn2: bmc.ip = \"172.16.4.2\"\nn2: no image\n"), "{dry}");
    let after = site.read("nodes.toml");
    assert!(after.contains("ip = \"172.16.3.2\" # top\n[node.bmc]\nip = \"172.16.4.2\"\n"), "{after}");
    assert_eq!(listed(&site, "n3")[0]["image"], "compute");

    // All of it or nothing.
    let said = refused(&site, &["node", "set", "n[1-3]", "ip=172.16.255.253"]);
    assert!(said.contains("nothing was changed") && said.contains("172.16.255.255 of n3 is outside"), "{said}");
    let said = refused(&site, &["node", "set", "n1,n2", "mac=52:54:00:ac:10:01"]);
    assert!(said.contains("`mac` is of one node, and n1,n2 are 2"), "{said}");
    let said = refused(&site, &["node", "rm", "n3,n4"]);
    assert!(said.contains("there is no node n4"), "{said}");
    assert!(refused(&site, &["node", "rm"]).contains("required"));
    assert!(refused(&site, &["node", "rm", "@x"]).contains("there is no group x"));
    assert_eq!(site.read("nodes.toml"), after);

    site.done(&["node", "set", "n1", "name=login", "mac=52:54:00:ac:10:01"]);
    assert_eq!(listed(&site, "LOGIN")[0]["mac"], "52:54:00:ac:10:01");
    assert_eq!(site.done(&["node", "rm", "login,n3"]), "login: removed\nn3: removed\n");
    assert!(site.read("nodes.toml").starts_with("# The nodes of this site"));
    assert_eq!(listed(&site, "@all").len(), 1);
}

// M15
#[test]
fn what_is_wrong_in_either_file_keeps_everything_from_starting() {
    let site = site();
    let nodes = site.read("nodes.toml");
    let line = |text: &str, wanted: &str| text.lines().position(|line| line.starts_with(wanted)).unwrap() + 1;
    for (more, message) in [
        ("[[node]]\nname = 'x'\nip = '172.16.3.1'\n", "x has the address 172.16.3.1 that n001-bmc has already"),
        (
            "[[node]]\nname = 'x'\nmac = '52:54:00:AC:20:01'\nip = '172.16.9.1'\n",
            "x has the MAC 52:54:00:ac:20:01 that n001-bmc",
        ),
        ("[[node]]\nname = 'odd'\nip = '172.16.9.1'\n", "there is a group odd already"),
        ("[[node]]\nname = 'x'\nip = '172.16.0.210'\n", "inside the range 172.16.0.200-172.16.0.250"),
        ("[[node]]\nname = 'x'\nip = '172.16.9.1'\ngroups = ['rack2']\n", "there is no [group.rack2]"),
    ] {
        let text = format!("{nodes}\n{more}");
        fs::write(site.path("nodes.toml"), &text).unwrap();
        for words in [&["up"][..], &["node", "list"]] {
            let output = site.run(words);
            assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
            let said = stderr(&output);
            assert!(said.contains("nodes.toml:") && said.contains(message), "{said}");
        }
    }
    fs::write(site.path("nodes.toml"), &nodes).unwrap();
    let config = site.read("site.toml");
    fs::write(site.path("site.toml"), format!("{config}[group.odd]\n")).unwrap();
    let said = refused(&site, &["node", "list"]);
    let first = line(&format!("{config}[group.odd]"), "[group.odd]");
    assert!(said.contains(&format!("there is a group odd already (site.toml:{first})")), "{said}");
    fs::write(site.path("site.toml"), &config).unwrap();
    // An image that there is not yet is worth a word, no more.
    let output = site.run(&["node", "list"]);
    let line = line(&nodes, "image = 'gpu'");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(&format!("nodes.toml:{line}: the site has no image gpu yet")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn names_reach_hosts_and_clustershell() {
    let site = site();
    site.done(&["node", "set", "n001,n003", "groups=rack1,odd"]);
    let hosts = site.done(&["node", "export", "hosts"]);
    assert!(
        hosts.starts_with(
            "172.16.1.254 n001.cluster.example.org n001\n172.16.3.1 n001-bmc.cluster.example.org n001-bmc\n"
        )
    );
    assert_eq!(hosts.lines().count(), 8);
    assert_eq!(
        site.done(&["node", "export", "clustershell"]),
        "all: n001,n002,n003,n004\nodd: n001,n003\nrack1: n001,n002,n003,n004\n"
    );
    assert_eq!(site.done(&["node", "export", "clustershell", "n002"]), "all: n002\nrack1: n002\n");
}

#[test]
fn genders_reads_what_is_written_for_it() {
    let (program, library) = (unpacked("genders").unwrap(), unpacked("libgenders0").unwrap());
    let site = site();
    site.done(&["node", "set", "n[001-002]", "groups=rack1,odd", "facts.partition=batch", "facts.motto=a, b"]);
    fs::write(site.path("genders"), site.done(&["node", "export", "genders"])).unwrap();
    let libraries = fs::read_dir(library.join("usr/lib")).unwrap().flatten().map(|entry| entry.path());
    let libraries = libraries.map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
    let nodeattr = |words: &[&str]| {
        let mut command = Command::new(program.join("usr/bin/nodeattr"));
        let output = command
            .arg("-f")
            .arg(site.path("genders"))
            .args(words)
            .env("LD_LIBRARY_PATH", &libraries)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
    };
    assert!(nodeattr(&["-k"]).contains("0 parse errors"));
    assert_eq!(nodeattr(&["-c", "odd&&image=gpu&&partition=batch"]), "n001,n002\n");
    assert_eq!(nodeattr(&["-c", "image=compute"]), "n003,n004\n");
    assert_eq!(nodeattr(&["-v", "n004", "bmc"]), "n004-bmc\n");
}

#[test]
fn ssh_reads_the_host_keys_that_are_written_for_it() {
    let site = site();
    for name in ["n001", "@cert-authority"] {
        let line = format!(
            "ssh-keygen -q -t ed25519 -N '' -C root@build -f \"$1/keys/hosts/{name}\" && rm \"$1/keys/hosts/{name}\""
        );
        shell(&line, &site.path(""));
    }
    let known = site.done(&["node", "export", "ssh-known-hosts"]);
    fs::write(site.path("known"), &known).unwrap();
    let find = |name: &str| {
        let output = Command::new("ssh-keygen").args(["-F", name, "-f"]).arg(site.path("known")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let key = site.read("keys/hosts/n001.pub");
    let key = key.split_whitespace().nth(1).unwrap();
    for name in ["n001", "n001.cluster.example.org", "172.16.1.254"] {
        let found = find(name);
        assert!(found.contains(key) && found.contains("@cert-authority"), "{name}: {found}");
        assert!(!found.contains("root@build"), "{found}");
    }
    assert!(find("n002").contains("CA") && !find("n002").contains(key), "{}", find("n002"));
    assert_eq!(find("n005"), "");
    // A private key is for nobody's known_hosts.
    fs::write(site.path("keys/hosts/n002.pub"), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    assert!(refused(&site, &["node", "export", "ssh-known-hosts"]).contains("is a private key"));
}
