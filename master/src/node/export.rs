//! The nodes in the form of other programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use rootstream::failure::refuse;

use super::names::Names;
use crate::config::addresses::Name;
use crate::config::groups::ALL;
use crate::config::nodes::{Bmc, Node, Nodes};
use crate::config::site::Site;
use crate::{keys, say};

/// The public host keys of nodes, in the site's folder.
const HOST_KEYS: &str = "keys/hosts";
/// The public key in it that signs host keys; no node can have that name.
const AUTHORITY: &str = "@cert-authority";

/// Whose form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// hosts(5): nodes and their BMCs.
    Hosts,
    /// The file of genders(3), which pdsh reads: groups, image and facts as attributes.
    Genders,
    /// A groups file of ClusterShell: a line for each group, and `all`.
    Clustershell,
    /// The host keys of nodes, as ssh(1) reads them.
    SshKnownHosts,
}

/// Prints the nodes, or those that are `named`, in `form`.
///
/// # Errors
/// A mistake in the configuration; there is no such node; a host key is unreadable.
pub(super) fn export(site: &Site, form: Form, named: Option<&Names>) -> Result<()> {
    let nodes = Nodes::of(site)?;
    let chosen = match named {
        Some(names) => names.select(&nodes)?,
        None => nodes.iter().collect(),
    };
    let lines = match form {
        Form::Hosts => hosts(site, &chosen),
        Form::Genders => genders(site, &chosen),
        Form::Clustershell => clustershell(&chosen),
        Form::SshKnownHosts => known_hosts(site, &chosen)?,
    };
    lines.iter().for_each(say::result);
    Ok(())
}

/// The names by which a machine is known, its full one first where the site has a domain.
fn names(site: &Site, name: &str) -> Vec<String> {
    let full = site.config().network.domain.as_ref().map(|domain| format!("{name}.{domain}"));
    full.into_iter().chain([name.to_owned()]).collect()
}

fn hosts(site: &Site, nodes: &[&Node]) -> Vec<String> {
    let mut lines = Vec::new();
    for node in nodes {
        lines.push(format!("{} {}", node.ip, names(site, node.name.as_str()).join(" ")));
        if let Some(bmc) = &node.bmc {
            lines.push(format!("{} {}", bmc.ip, names(site, &Bmc::name_of(&node.name)).join(" ")));
        }
    }
    lines
}

fn genders(site: &Site, nodes: &[&Node]) -> Vec<String> {
    let line = |node: &&Node| {
        let mut attributes = vec![ALL.to_owned()];
        attributes.extend(node.groups.iter().map(ToString::to_string));
        if let Some(image) = node.image.as_ref().or(site.config().defaults.image.as_ref()) {
            attributes.push(format!("image={image}"));
        }
        if node.bmc.is_some() {
            attributes.push(format!("bmc={}", Bmc::name_of(&node.name)));
        }
        // What separates attributes can be in none.
        let facts = node.facts.iter().filter(|(_, text)| !text.contains([' ', '\t', '\n', ',', '=', '#']));
        let facts = facts.map(|(name, text)| (name.to_string(), text));
        for (name, text) in facts.filter(|(name, _)| !["image", "bmc", ALL].contains(&name.as_str())) {
            // An attribute twice is a mistake there.
            if !node.groups.iter().any(|group| group.as_str() == name) {
                attributes.push(format!("{name}={text}"));
            }
        }
        format!("{} {}", node.name, attributes.join(","))
    };
    nodes.iter().map(line).collect()
}

fn clustershell(nodes: &[&Node]) -> Vec<String> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        for group in node.groups.iter().map(Name::as_str).chain([ALL]) {
            groups.entry(group).or_default().push(node.name.as_str());
        }
    }
    groups.iter().map(|(group, names)| format!("{group}: {}", names.join(","))).collect()
}

fn known_hosts(site: &Site, nodes: &[&Node]) -> Result<Vec<String>> {
    let folder = site.root().join(HOST_KEYS);
    let mut lines = Vec::new();
    let called = |node: &Node| {
        let mut called = names(site, node.name.as_str());
        called.push(node.ip.to_string());
        called
    };
    let authority = public_keys(&folder, AUTHORITY)?;
    let everybody: Vec<String> = nodes.iter().flat_map(|node| called(node)).collect();
    lines.extend(authority.iter().map(|key| format!("{AUTHORITY} {} {key}", everybody.join(","))));
    let mut without = Vec::new();
    for node in nodes {
        let keys = public_keys(&folder, node.name.as_str())?;
        if keys.is_empty() {
            without.push(node.name.as_str());
        }
        lines.extend(keys.iter().map(|key| format!("{} {key}", called(node).join(","))));
    }
    if authority.is_empty() && !without.is_empty() {
        say::note(format_args!(
            "{} of {} nodes have no host key in {HOST_KEYS}/NODE.pub, and there is no {HOST_KEYS}/{AUTHORITY}.pub: {}",
            without.len(),
            nodes.len(),
            without.join(",")
        ));
    }
    Ok(lines)
}

/// Type and key of each line of a .pub file; the comment after them names whoever made it.
fn public_keys(folder: &Path, name: &str) -> Result<Vec<String>> {
    let path = folder.join(format!("{name}.pub"));
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("reading {}", path.display()))?,
    };
    keys::refuse_private(&path, &text)?;
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some(key)) if keys::is_ssh(kind) => found.push(format!("{kind} {key}")),
            _ => {
                return Err(refuse(
                    format!("{} is no public ssh key: {line}", path.display()),
                    "copy /etc/ssh/ssh_host_ed25519_key.pub of the node there",
                ));
            }
        }
    }
    Ok(found)
}
