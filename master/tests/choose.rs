//! Which build nodes boot: given to some, taken back, gone back to; and builds that are in use stay.

// Helpers of tests outside test functions: clippy.toml does not reach them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;

use common::{TestSite, image, stderr};

/// A site with three builds of `compute`, oldest first, and three nodes.
fn site() -> (TestSite, Vec<String>) {
    let site = TestSite::new("br0", "172.16.0.254/24");
    for content in ["one", "two", "three"] {
        site.built("compute", &image(&[("what", content.as_bytes())]));
        site.done(&["image", "publish", "compute"]);
        // Builds are named by the second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let nodes = "# ours\n[[node]]\nname = 'n1' # first\nip = '172.16.0.1'\nimage = 'compute'\n\n[[node]]\nname = 'n2'\n\
                 ip = '172.16.0.2'\nimage = 'compute'\n\n[[node]]\nname = 'n3'\nip = '172.16.0.3'\nimage = 'other'\n";
    fs::write(site.path("nodes.toml"), nodes).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&site.done(&["image", "list", "compute", "--json"])).unwrap();
    let builds = listed.as_array().unwrap().iter().map(|build| build["build"].as_str().unwrap().to_owned()).collect();
    (site, builds)
}

fn build_of(site: &TestSite, node: &str) -> serde_json::Value {
    let nodes: serde_json::Value = serde_json::from_str(&site.done(&["node", "list", "--json"])).unwrap();
    nodes.as_array().unwrap().iter().find(|n| n["name"] == node).unwrap()["build"].clone()
}

fn newest(site: &TestSite) -> String {
    let pointer: serde_json::Value = serde_json::from_str(&site.read("store/compute/latest.json")).unwrap();
    pointer["build"].as_str().unwrap().to_owned()
}

#[test]
fn builds_are_given_to_nodes_and_taken_back() {
    let (site, builds) = site();
    let said = site.done(&["image", "use", "compute", &builds[0], "--nodes", "n[1-2]"]);
    assert_eq!(said, format!("n1: boots compute, {}\nn2: boots compute, {}\n", builds[0], builds[0]));
    assert_eq!(build_of(&site, "n1"), builds[0]);
    let text = site.read("nodes.toml");
    assert!(text.starts_with("# ours\n[[node]]\nname = 'n1' # first\n"), "{text}");
    site.done(&["image", "use", "compute", "latest", "--nodes", "n2"]);
    assert!(build_of(&site, "n2").is_null());
    // Who boots the newest goes back to the one before it, who was given one to the one before that.
    site.done(&["image", "rollback", "compute", "--nodes", "n2"]);
    assert_eq!(build_of(&site, "n2"), builds[1]);
    site.done(&["image", "rollback", "compute", "--nodes", "n2"]);
    assert_eq!(build_of(&site, "n2"), builds[0]);
    let before = site.read("nodes.toml");
    for (words, message) in [
        (&["image", "rollback", "compute", "--nodes", "n2"][..], "no build before"),
        (&["image", "rollback", "compute", "--nodes", "n3"], "n3 does not boot compute"),
        (&["image", "use", "compute", "20260101-000000-00000000", "--nodes", "n1"], "has no build 20260101"),
        (&["image", "use", "compute", "latest", "--nodes", "n9"], "there is no node n9"),
    ] {
        let refused = site.run(words);
        assert!(!refused.status.success() && stderr(&refused).contains(message), "{words:?}: {}", stderr(&refused));
    }
    let unnamed = site.run(&["image", "use", "compute", "latest"]);
    assert!(unnamed.status.code() == Some(2), "nodes must be named");
    assert_eq!(site.read("nodes.toml"), before);
}

#[test]
fn the_newest_goes_back_and_builds_in_use_stay() {
    let (site, builds) = site();
    site.done(&["image", "use", "compute", &builds[0], "--nodes", "n1"]);
    let refused = site.run(&["image", "rm", "compute", &builds[0]]);
    assert!(stderr(&refused).contains("is what nodes.toml gives to n1"), "{}", stderr(&refused));
    assert_eq!(newest(&site), builds[2]);
    site.done(&["image", "rollback", "compute"]);
    assert_eq!(newest(&site), builds[1]);
    // What was the newest is one like others now.
    site.done(&["image", "rm", "compute", &builds[2]]);
    site.done(&["image", "rollback", "compute"]);
    assert_eq!(newest(&site), builds[0]);
    let refused = site.run(&["image", "rollback", "compute"]);
    assert!(stderr(&refused).contains("no build before"), "{}", stderr(&refused));
    site.done(&["image", "verify", "compute"]);
}
