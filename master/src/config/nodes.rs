//! nodes.toml: which machine is which node.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::Document;
use super::addresses::{Mac, Name};
use super::facts::Named;
use super::site::{Network, Site, check_parameters};
use crate::aside;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name, and host name.
    pub name: Name,
    /// The port that it boots from.
    pub mac: Mac,
    /// Its address on the boot network.
    pub ip: Ipv4Addr,
    /// The image it boots; the site's default when absent.
    pub image: Option<Name>,
    /// The overlays that go on top of it, in order; the site's defaults when absent.
    pub overlays: Option<Vec<Name>>,
    /// Kernel parameters of its own.
    pub parameters: Option<String>,
    /// What templates in overlays may use, beside and before what the site has.
    pub facts: Named,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<Name>,
    mac: Spanned<Mac>,
    ip: Spanned<Ipv4Addr>,
    image: Option<Name>,
    overlays: Option<Vec<Name>>,
    parameters: Option<Spanned<String>>,
    #[serde(default)]
    facts: Named,
}

/// The nodes of a site, checked against each other and the network.
#[derive(Debug)]
pub struct Nodes {
    document: Document,
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    node: Node,
    name: Range<usize>,
    mac: Range<usize>,
    ip: Range<usize>,
}

/// What two nodes must not share.
struct Clash {
    what: String,
    /// Where the node that has it already says so.
    first: Range<usize>,
    field: Field,
}

#[derive(Clone, Copy)]
enum Field {
    Name,
    Mac,
    Ip,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Nodes {
    /// Reads nodes.toml of a site; a missing file is a site without nodes.
    ///
    /// # Errors
    /// [`super::Misconfigured`], naming the line: a mistake, a name, MAC or address that two nodes
    /// share, an address outside the network.
    pub fn of(site: &Site) -> Result<Self> {
        let file = site.nodes_file();
        let document = if file.exists() { Document::read(&file)? } else { Document::of(file, "") };
        Self::read(document, &site.config().network)
    }

    fn read(document: Document, network: &Network) -> Result<Self> {
        let file: File = document.parse()?;
        let mut nodes = Self { document, known: Vec::new() };
        for entry in file.node {
            let entry = entry.into_inner();
            if let Some(parameters) = &entry.parameters {
                check_parameters(&nodes.document, parameters)?;
            }
            let known = Known {
                name: entry.name.span(),
                mac: entry.mac.span(),
                ip: entry.ip.span(),
                node: Node {
                    name: entry.name.into_inner(),
                    mac: entry.mac.into_inner(),
                    ip: entry.ip.into_inner(),
                    image: entry.image,
                    overlays: entry.overlays,
                    parameters: entry.parameters.map(Spanned::into_inner),
                    facts: entry.facts,
                },
            };
            if let Some(wrong) = misplaced(&known.node, network) {
                return Err(nodes.document.refuse(known.ip, wrong));
            }
            if let Some(clash) = nodes.clash(&known.node) {
                let span = match clash.field {
                    Field::Name => known.name,
                    Field::Mac => known.mac,
                    Field::Ip => known.ip,
                };
                let first = nodes.document.line(&clash.first);
                return Err(nodes.document.refuse(span, format!("{clash} (line {first})")));
            }
            nodes.known.push(known);
        }
        Ok(nodes)
    }

    /// The nodes in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.known.iter().map(|k| &k.node)
    }

    fn clash(&self, new: &Node) -> Option<Clash> {
        self.known.iter().find_map(|known| {
            let old = &known.node;
            let name = &new.name;
            let clash = |field, what, first: &Range<usize>| Some(Clash { what, first: first.clone(), field });
            // Host names know no case (RFC 4343).
            if old.name.as_str().eq_ignore_ascii_case(name.as_str()) {
                clash(Field::Name, format!("there is a node {} already", old.name), &known.name)
            } else if old.mac == new.mac {
                clash(Field::Mac, format!("{name} has the MAC {} that {} has already", new.mac, old.name), &known.mac)
            } else if old.ip == new.ip {
                clash(Field::Ip, format!("{name} has the address {} that {} has already", new.ip, old.name), &known.ip)
            } else {
                None
            }
        })
    }

    /// Adds `node` at the end of the file; comments and order of what is there stay.
    ///
    /// # Errors
    /// Its name, MAC or address is taken ([`super::Misconfigured`], naming the line that has it) or
    /// outside the network; the file cannot be written.
    pub fn add(&self, node: &Node, network: &Network) -> Result<()> {
        if let Some(wrong) = misplaced(node, network) {
            return Err(self.document.refuse(self.document.text().len()..self.document.text().len(), wrong));
        }
        if let Some(clash) = self.clash(node) {
            return Err(self.document.refuse(clash.first.clone(), clash.to_string()));
        }
        let text = with_node(self.document.text(), node)?;
        // What was written must read back, whatever the parameters hold.
        Self::read(Document::of(self.document.path(), text.clone()), network)?;
        aside::write(self.document.path(), text.as_bytes())
    }
}

fn misplaced(node: &Node, network: &Network) -> Option<String> {
    let Node { name, ip, .. } = node;
    if !network.address.holds(*ip) {
        return Some(format!("the address {ip} of {name} is outside the network of {} (site.toml)", network.address));
    }
    (*ip == network.address.address).then(|| format!("the address {ip} of {name} is the master's own (site.toml)"))
}

fn with_node(text: &str, node: &Node) -> Result<String> {
    let mut document: DocumentMut = text.parse().context("reading nodes.toml again")?;
    let mut table = Table::new();
    table.insert("name", value(node.name.as_str()));
    table.insert("mac", value(node.mac.to_string()));
    table.insert("ip", value(node.ip.to_string()));
    if let Some(image) = &node.image {
        table.insert("image", value(image.as_str()));
    }
    if let Some(parameters) = &node.parameters {
        table.insert("parameters", value(parameters));
    }
    // An empty line before each entry; comments at the file's end stay above it.
    let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
    document.set_trailing("");
    let gap = if text.trim().is_empty() || trailing.ends_with("\n\n") { "" } else { "\n" };
    table.decor_mut().set_prefix(format!("{trailing}{gap}"));
    document
        .entry("node")
        .or_insert(Item::ArrayOfTables(ArrayOfTables::new()))
        .as_array_of_tables_mut()
        .context("`node` in nodes.toml is a list in brackets; write each node as [[node]]")?
        .push(table);
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::site::Config;
    use super::*;

    const TWO: &str = "# the first rack\n[[node]]\nname = 'n1' # top\nmac = '52:54:00:ac:10:01'\nip = '172.16.0.1'\n\n\
                       [[node]]\nname = 'n2'\nmac = '52:54:00:ac:10:02'\nip = '172.16.0.2'\n# the end\n";

    fn network() -> Network {
        let site = "[network]\ninterface = 'br0'\naddress = '172.16.0.254/24'\n";
        Config::read(&Document::of("site.toml", site)).unwrap().network
    }

    fn read(text: &str) -> Result<Nodes> {
        Nodes::read(Document::of("nodes.toml", text), &network())
    }

    fn node(name: &str, mac: &str, ip: &str) -> Node {
        Node {
            name: name.parse().unwrap(),
            mac: mac.parse().unwrap(),
            ip: ip.parse().unwrap(),
            image: None,
            overlays: None,
            facts: Named::new(),
            parameters: Some("console=ttyS0 \"q\"".to_owned()),
        }
    }

    // M15
    #[test]
    fn what_two_nodes_share_is_refused_with_both_lines() {
        let third = |name: &str, mac: &str, ip: &str| {
            read(&format!("{TWO}[[node]]\nname = '{name}'\nmac = '{mac}'\nip = '{ip}'\n")).unwrap_err().to_string()
        };
        assert_eq!(
            third("N1", "52:54:00:ac:10:03", "172.16.0.3"),
            "nodes.toml:13: there is a node n1 already (line 3)"
        );
        assert_eq!(
            third("n3", "52-54-00-AC-10-02", "172.16.0.3"),
            "nodes.toml:14: n3 has the MAC 52:54:00:ac:10:02 that n2 has already (line 9)"
        );
        assert_eq!(
            third("n3", "52:54:00:ac:10:03", "172.16.0.1"),
            "nodes.toml:15: n3 has the address 172.16.0.1 that n1 has already (line 5)"
        );
        assert_eq!(
            third("n3", "52:54:00:ac:10:03", "10.0.0.1"),
            "nodes.toml:15: the address 10.0.0.1 of n3 is outside the network of 172.16.0.254/24 (site.toml)"
        );
        assert_eq!(
            third("n3", "52:54:00:ac:10:03", "172.16.0.254"),
            "nodes.toml:15: the address 172.16.0.254 of n3 is the master's own (site.toml)"
        );
    }

    #[test]
    fn overlays_and_facts_are_the_nodes_own() {
        let text = format!("{TWO}[node.facts]\nrack = 'r1'\n");
        let nodes = read(&text.replace("ip = '172.16.0.2'", "ip = '172.16.0.2'\noverlays = ['a', 'b']")).unwrap();
        let [first, second] = nodes.iter().collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!((&first.overlays, first.facts.len()), (&None, 0));
        assert_eq!(second.overlays, Some(vec!["a".parse().unwrap(), "b".parse().unwrap()]));
        assert_eq!(second.facts[&"rack".parse().unwrap()], "r1");
        let error = read(&format!("{TWO}[node.facts]\nip = '10.0.0.1'\n")).unwrap_err().to_string();
        assert!(error.starts_with("nodes.toml:13: the fact `ip` follows"), "{error}");
    }

    #[test]
    fn adding_keeps_comments_and_order() {
        let text = with_node(TWO, &node("n3", "52:54:00:ac:10:03", "172.16.0.3")).unwrap();
        let added = "\n[[node]]\nname = \"n3\"\nmac = \"52:54:00:ac:10:03\"\nip = \"172.16.0.3\"\n\
                     parameters = 'console=ttyS0 \"q\"'\n";
        assert_eq!(text, format!("{TWO}{added}"));
        let names: Vec<_> = read(&text).unwrap().iter().map(|n| n.name.to_string()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
    }

    #[test]
    fn the_first_node_goes_below_the_heading() {
        let text = with_node("# nodes of this site\n", &node("n1", "52:54:00:ac:10:01", "172.16.0.1")).unwrap();
        assert!(text.starts_with("# nodes of this site\n\n[[node]]\nname = \"n1\""), "{text}");
        assert!(with_node("", &node("n1", "52:54:00:ac:10:01", "172.16.0.1")).unwrap().starts_with("[[node]]"));
    }
}
