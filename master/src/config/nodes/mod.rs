//! nodes.toml: which machine is which node.
//!
//! What a node boots is said in three places, and what is said later goes before what was said earlier: the defaults of
//! site.toml, the node's groups in the order in which it names them, the node itself. Kernel parameters add up in that
//! order, as the kernel takes the last of most.

mod bmc;
mod boot_path;
mod build_id;
mod edit;
mod taken;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::addresses::{Mac, Name};
use super::document::{Document, Place};
use super::facts::Named;
use super::groups::{Group, Groups, Sections};
use super::site::{Config, Network, Site, check_parameters};
use crate::aside;
pub use bmc::{Access, Bmc, Protocol};
pub use boot_path::BootPath;
pub use build_id::BuildId;
pub(crate) use edit::{Edit, Newcomer, Setting};
use taken::Taken;

/// One node, with what its groups say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name, and host name.
    pub name: Name,
    /// The port that it boots from; it cannot boot until that is known.
    pub mac: Option<Mac>,
    /// Its address on the boot network.
    pub ip: Ipv4Addr,
    /// The groups that it is in, in its own order.
    pub groups: Vec<Name>,
    /// The image it boots; the site's default when absent.
    pub image: Option<Name>,
    /// The build of it; the newest when absent.
    pub build: Option<BuildId>,
    /// The overlays that go on top of it, in order; the site's defaults when absent.
    pub overlays: Option<Vec<Name>>,
    /// Kernel parameters, after the site's.
    pub parameters: Option<String>,
    /// The way from its firmware to the kernel; [`Site::boot_path`] knows the site's default too.
    pub boot: Option<BootPath>,
    /// Its BMC.
    pub bmc: Option<Bmc>,
    /// What templates in overlays may use, beside and before what the site has.
    pub facts: Named,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Vec<Entry>,
    #[serde(default)]
    group: Sections,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<Name>,
    mac: Option<Spanned<Mac>>,
    ip: Spanned<Ipv4Addr>,
    #[serde(default)]
    groups: Vec<Spanned<Name>>,
    image: Option<Spanned<Name>>,
    build: Option<BuildId>,
    overlays: Option<Vec<Name>>,
    parameters: Option<Spanned<String>>,
    boot: Option<BootPath>,
    bmc: Option<bmc::Entry>,
    #[serde(default)]
    facts: Named,
}

/// The nodes of a site, checked against each other and the network.
#[derive(Debug)]
pub struct Nodes {
    document: Document,
    groups: Groups,
    known: Vec<Node>,
    /// Where in that list each is, by its name in lower case.
    places: HashMap<String, usize>,
    taken: Taken,
    /// Which line names which image.
    images: Vec<(Place, Name)>,
}

impl Nodes {
    /// Reads nodes.toml of a site; a missing file is a site without nodes.
    ///
    /// # Errors
    /// [`super::Misconfigured`], naming the line: a mistake, a name, MAC or address that is there twice, an address
    /// outside the network, a group that there is not.
    pub fn of(site: &Site) -> Result<Self> {
        let file = site.nodes_file();
        let document = if file.exists() { Document::read(&file)? } else { Document::of(file, "") };
        Self::read(document, site.config(), site.root())
    }

    fn read(document: Document, config: &Config, root: &Path) -> Result<Self> {
        let file: File = document.parse()?;
        let groups = config.groups.clone().with(&document, &file.group)?;
        let mut taken = Taken::default();
        for group in groups.iter() {
            taken.take_name(group.name.as_str(), format!("a group {}", group.name), group.place.clone())?;
        }
        let images = groups.iter().filter_map(|g| Some((g.image_place.clone()?, g.image.clone()?))).collect();
        let mut nodes = Self { document, groups, known: Vec::new(), places: HashMap::new(), taken, images };
        for entry in file.node {
            let node = nodes.resolve(entry, config, root)?;
            nodes.places.insert(node.name.as_str().to_ascii_lowercase(), nodes.known.len());
            nodes.known.push(node);
        }
        Ok(nodes)
    }

    /// Checks an entry against all before it, and lays it over what its groups say.
    fn resolve(&mut self, entry: Entry, config: &Config, root: &Path) -> Result<Node> {
        let Self { document, groups, taken, images, .. } = self;
        let name = entry.name.get_ref();
        let place = document.place(&entry.name.span());
        if is_misread(name.as_str()) {
            let what = format!("`{name}` is no name of a node: others would read it as a number, a time or a keyword");
            return Err(place.refuse(what));
        }
        taken.take_name(name.as_str(), format!("a node {name}"), place.clone())?;
        if let Some(mac) = &entry.mac {
            taken.take_mac(*mac.get_ref(), name.as_str(), document.place(&mac.span()))?;
        }
        let ip = &entry.ip;
        if let Some(wrong) = misplaced(*ip.get_ref(), name.as_str(), &config.network) {
            return Err(document.refuse(ip.span(), wrong));
        }
        taken.take_address(*ip.get_ref(), name.as_str(), document.place(&ip.span()))?;
        let mine = groups_of(&entry.groups, document, groups)?;
        if let Some(parameters) = &entry.parameters {
            check_parameters(document, parameters)?;
        }
        if let Some(image) = &entry.image {
            images.push((document.place(&image.span()), image.get_ref().clone()));
        }
        let bmc = match entry.bmc {
            Some(bmc) => {
                take_bmc(&bmc, name, document, &config.network, taken, &place)?;
                let common: Vec<&Access> =
                    [&config.bmc].into_iter().chain(mine.iter().map(|group| &group.bmc)).collect();
                Some(bmc.resolve(document, root, &common)?)
            }
            None => None,
        };
        let last = mine.iter().rev();
        let parameters: Vec<&str> = mine
            .iter()
            .filter_map(|group| group.parameters.as_deref())
            .chain(entry.parameters.as_ref().map(|own| own.get_ref().as_str()))
            .collect();
        Ok(Node {
            image: entry.image.map(Spanned::into_inner).or_else(|| last.clone().find_map(|g| g.image.clone())),
            build: entry.build,
            overlays: entry.overlays.or_else(|| last.clone().find_map(|g| g.overlays.clone())),
            boot: entry.boot.or_else(|| last.clone().find_map(|g| g.boot)),
            parameters: (!parameters.is_empty()).then(|| parameters.join(" ")),
            facts: mine.iter().flat_map(|g| g.facts.clone()).chain(entry.facts).collect(),
            groups: mine.iter().map(|group| group.name.clone()).collect(),
            name: entry.name.into_inner(),
            mac: entry.mac.map(Spanned::into_inner),
            ip: entry.ip.into_inner(),
            bmc,
        })
    }

    /// The nodes in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.known.iter()
    }

    /// The node of that name, whatever its letters' case.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.known.get(*self.places.get(&name.to_ascii_lowercase())?)
    }

    /// The groups of both files.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Whether `mac` is a node's or a BMC's.
    pub fn knows(&self, mac: Mac) -> bool {
        self.taken.knows(mac)
    }

    /// A sentence for each image that is named and for which the site has neither recipe nor build.
    pub fn unknown_images(&self, site: &Site) -> Vec<String> {
        let has = |name: &Name| {
            site.recipe_file(name).exists()
                || site.built().join(format!("{name}.tar")).exists()
                || site.store().join(name.as_str()).exists()
        };
        // One line for each, however many nodes name it.
        let mut named: BTreeMap<&Name, &Place> = BTreeMap::new();
        for (place, image) in &self.images {
            named.entry(image).or_insert(place);
        }
        let unknown = named.into_iter().filter(|(image, _)| !has(image));
        unknown.map(|(image, place)| format!("{place}: the site has no image {image} yet")).collect()
    }

    /// An edit of the file as it was read.
    ///
    /// # Errors
    /// It is not written as [[node]] entries.
    pub(crate) fn edit(&self) -> Result<Edit> {
        Edit::of(self.document.text())
    }

    /// Refuses what a new node cannot have, naming the line of who has it.
    ///
    /// # Errors
    /// [`super::Misconfigured`]
    pub(crate) fn refuse_taken(&self, new: &Newcomer) -> Result<()> {
        let Newcomer { name, mac, ip, bmc } = new;
        let named = Bmc::name_of(name);
        let checked = || {
            self.taken.name(name.as_str())?;
            mac.map_or(Ok(()), |mac| self.taken.mac(mac, name.as_str()))?;
            self.taken.address(*ip, name.as_str())?;
            let Some((ip, mac)) = *bmc else { return Ok(()) };
            self.taken.name(&named)?;
            mac.map_or(Ok(()), |mac| self.taken.mac(mac, &named))?;
            self.taken.address(ip, &named)
        };
        checked().map_err(taken::Clash::refuse_newcomer)
    }

    /// Writes the file as `edit` left it, unless it would be wrong; returns its nodes. Nothing is written where
    /// `dry_run`.
    ///
    /// # Errors
    /// [`super::Misconfigured`], with the line that would be wrong; the file cannot be written.
    pub(crate) fn write(&self, edit: &Edit, site: &Site, dry_run: bool) -> Result<Self> {
        let text = edit.text();
        let checked = Self::read(Document::of(self.document.path(), text.clone()), site.config(), site.root())
            .context("nothing was changed, because that would be wrong")?;
        if !dry_run && text != self.document.text() {
            aside::write(self.document.path(), text.as_bytes())?;
        }
        Ok(checked)
    }
}

fn groups_of<'a>(named: &[Spanned<Name>], document: &Document, groups: &'a Groups) -> Result<Vec<&'a Group>> {
    let mut found: Vec<&Group> = Vec::new();
    for name in named {
        let Some(group) = groups.get(name.get_ref().as_str()) else {
            let known: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let what = format!(
                "there is no [group.{name}] in nodes.toml or site.toml (there is {known}); write one, or name another",
                name = name.get_ref()
            );
            return Err(document.refuse(name.span(), what));
        };
        if found.iter().any(|other| other.name == group.name) {
            return Err(document.refuse(name.span(), format!("the group {} is named twice", group.name)));
        }
        found.push(group);
    }
    Ok(found)
}

/// Checks what of a BMC there may be only once. `place` is that of its node's name.
fn take_bmc(
    bmc: &bmc::Entry,
    node: &Name,
    document: &Document,
    network: &Network,
    taken: &mut Taken,
    place: &Place,
) -> Result<()> {
    let name = Bmc::name_of(node);
    if let Err(wrong) = name.parse::<Name>() {
        return Err(place.refuse(format!("the BMC's name would be {name}: {wrong}")));
    }
    let ip = *bmc.ip.get_ref();
    taken.take_name(&name, format!("{name}, the BMC of {node},"), place.clone())?;
    if let Some(mac) = &bmc.mac {
        taken.take_mac(*mac.get_ref(), &name, document.place(&mac.span()))?;
    }
    // One that our DHCP does not serve may be in a network of its own.
    let is_ours = bmc.mac.is_some() || network.address.holds(ip);
    if let Some(wrong) = misplaced(ip, &name, network).filter(|_| is_ours) {
        return Err(document.refuse(bmc.ip.span(), wrong));
    }
    taken.take_address(ip, &name, document.place(&bmc.ip.span()))
}

/// Whether programs take a name for something else: `ssh 12` is 0.0.0.12, and where dnsmasq has names, `12h` is how long a
/// lease lasts, and `ignore` no machine at all.
fn is_misread(name: &str) -> bool {
    let number = name.strip_suffix(|c: char| "smhdw".contains(c.to_ascii_lowercase())).unwrap_or(name);
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty();
    is_number || ["ignore", "infinite", "localhost"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// Why a machine of the network cannot have the address.
fn misplaced(ip: Ipv4Addr, name: &str, network: &Network) -> Option<String> {
    if !network.address.holds(ip) {
        return Some(format!("the address {ip} of {name} is outside the network of {} (site.toml)", network.address));
    }
    if ip == network.address.address {
        return Some(format!("the address {ip} of {name} is the master's own (site.toml)"));
    }
    if network.gateway() == Some(ip) {
        return Some(format!("the address {ip} of {name} is the gateway's (site.toml)"));
    }
    let range = network.range().filter(|range| range.holds(ip))?;
    Some(format!("the address {ip} of {name} is inside the range {range} for other machines (site.toml)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# the first rack\n[[node]]\nname = 'n1' # top\nmac = '52:54:00:ac:10:01'\nip = '172.16.0.1'\n\n\
                       [[node]]\nname = 'n2'\nmac = '52:54:00:ac:10:02'\nip = '172.16.0.2'\n# the end\n";

    fn config(more: &str) -> Config {
        let site = "[network]\ninterface = 'br0'\naddress = '172.16.0.254/24'\nrange = '172.16.0.200-172.16.0.250'\n";
        Config::read(&Document::of("site.toml", format!("{site}gateway = '172.16.0.253'\n{more}"))).unwrap()
    }

    fn read(text: &str) -> Result<Nodes> {
        Nodes::read(Document::of("nodes.toml", text), &config(""), Path::new("/site"))
    }

    fn node(name: &str, mac: &str, ip: &str) -> Newcomer {
        Newcomer { name: name.parse().unwrap(), mac: Some(mac.parse().unwrap()), ip: ip.parse().unwrap(), bmc: None }
    }

    fn with_node(text: &str, node: &Newcomer) -> String {
        let mut edit = Edit::of(text).unwrap();
        edit.add(node, &["parameters=console=ttyS0 \"q\"".parse().unwrap()]).unwrap();
        edit.text()
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

    // M15
    #[test]
    fn whatever_is_there_twice_or_in_the_wrong_place_is_refused_with_its_line() {
        let bmc = |mac: &str, ip: &str| format!("[node.bmc]\n{mac}ip = '{ip}'\n");
        let n3 = |ip: &str, more: &str| format!("[[node]]\nname = 'n3'\nip = '{ip}'\n{more}");
        let long = "n".repeat(60);
        for (more, message) in [
            (
                n3("172.16.0.200", ""),
                "14: the address 172.16.0.200 of n3 is inside the range 172.16.0.200-172.16.0.250",
            ),
            (n3("172.16.0.253", ""), "14: the address 172.16.0.253 of n3 is the gateway's (site.toml)"),
            (n3("172.16.0.255", ""), "14: the address 172.16.0.255 of n3 is outside the network"),
            (
                n3("172.16.0.3", "groups = ['x']\n"),
                "15: there is no [group.x] in nodes.toml or site.toml (there is rack)",
            ),
            (n3("172.16.0.3", "groups = ['rack', 'Rack']\n"), "15: the group rack is named twice"),
            ("[[node]]\nname = '12h'\nip = '172.16.0.3'\n".to_owned(), "13: `12h` is no name of a node"),
            ("[[node]]\nname = 'Ignore'\nip = '172.16.0.3'\n".to_owned(), "13: `Ignore` is no name of a node"),
            ("[[node]]\nname = 'h'\nip = '172.16.0.3'\n".to_owned(), ""),
            (n3("172.16.0.3", "boot = 'x'\n"), "15: `x` is no boot path"),
            (n3("172.16.0.3", "mca = 'x'\n"), "15: unknown field `mca`"),
            ("[group.RACK]\n".to_owned(), "12: there is a group rack already (site.toml:6)"),
            ("[group.N2]\n".to_owned(), "8: there is a group N2 already (line 12)"),
            ("[group.n1-bmc]\n[[node]]\nname = 'x'\nip = '172.16.0.3'\n".to_owned() + &bmc("", "10.0.0.1"), ""),
            (
                n3("172.16.0.3", &bmc("mac = '52:54:00:ac:10:01'\n", "172.16.0.4")),
                "16: n3-bmc has the MAC 52:54:00:ac:10:01 that n1 has already (line 4)",
            ),
            (
                n3("172.16.0.3", &bmc("mac = '52:54:00:ac:10:05'\n", "172.16.0.2")),
                "17: n3-bmc has the address 172.16.0.2 that n2 has already (line 10)",
            ),
            (
                n3("172.16.0.3", &bmc("", "172.16.0.3")),
                "16: n3-bmc has the address 172.16.0.3 that n3 has already (line 14)",
            ),
            (n3("172.16.0.3", &bmc("", "172.16.0.210")), "16: the address 172.16.0.210 of n3-bmc is inside the range"),
            (n3("172.16.0.3", &bmc("", "172.16.0.254")), "16: the address 172.16.0.254 of n3-bmc is the master's own"),
            (
                n3("172.16.0.3", &bmc("mac = '52:54:00:ac:10:05'\n", "10.0.0.1")),
                "17: the address 10.0.0.1 of n3-bmc is outside the network",
            ),
            // A BMC that our DHCP does not serve may be elsewhere.
            (n3("172.16.0.3", &bmc("", "10.0.0.1")), ""),
            (
                n3("172.16.0.3", &bmc("", "10.0.0.1")) + "password = 'x'\n",
                "17: a password does not belong into this file",
            ),
            (
                n3("172.16.0.3", &bmc("", "10.0.0.1")) + "[[node]]\nname = 'n3-BMC'\nip = '172.16.0.4'\n",
                "18: there is n3-bmc, the BMC of n3, already (line 13)",
            ),
            (
                format!("[[node]]\nname = '{long}'\nip = '172.16.0.4'\n{}", bmc("", "10.0.0.1")),
                "13: the BMC's name would be",
            ),
        ] {
            let text = format!("{TWO}{more}");
            let read = Nodes::read(Document::of("nodes.toml", text), &config("[group.rack]\n"), Path::new("/site"));
            let said = read.err().map_or(String::new(), |error| error.to_string());
            let expected = if message.is_empty() { String::new() } else { format!("nodes.toml:{message}") };
            assert!(said.starts_with(&expected) && said.is_empty() == expected.is_empty(), "{more}: {said}");
        }
    }

    #[test]
    fn what_is_said_later_goes_before_what_was_said_earlier() {
        let site = config(
            "[bmc]\nuser = 'admin'\npassword_file = 'keys/bmc'\n[group.first]\nimage = 'a'\nparameters = 'p=1'\n\
             boot = 'grub'\noverlays = ['x']\nfacts = { k = '1', l = '1' }\n",
        );
        let text = "[[node]]\nname = 'n1'\nip = '172.16.0.1'\ngroups = ['First', 'second']\n\
                    [[node]]\nname = 'n2'\nip = '172.16.0.2'\ngroups = ['second', 'first']\nimage = 'c'\nboot = 'http'\n\
                    parameters = 'p=3'\nfacts = { l = '3' }\nbmc = { ip = '10.0.0.2', user = 'root' }\n\
                    [[node]]\nname = 'n3'\nip = '172.16.0.3'\n\
                    [group.second]\nimage = 'b'\nparameters = 'p=2'\nfacts = { k = '2' }\n\
                    bmc = { protocol = 'redfish', user = 'operator', cipher = 3 }\n";
        let nodes = Nodes::read(Document::of("nodes.toml", text), &site, Path::new("/site")).unwrap();
        let [first, second, third] = &nodes.known[..] else { panic!() };
        let image = |node: &Node| node.image.as_ref().map(ToString::to_string);
        let facts = |node: &Node| node.facts.values().cloned().collect::<Vec<_>>().join("");
        assert_eq!((image(first).as_deref(), first.parameters.as_deref()), (Some("b"), Some("p=1 p=2")));
        assert_eq!((first.boot, facts(first).as_str()), (Some(BootPath::Grub), "21"));
        assert_eq!(first.overlays.as_ref().unwrap().len(), 1);
        assert_eq!(first.groups.iter().map(Name::as_str).collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!((image(second).as_deref(), second.parameters.as_deref()), (Some("c"), Some("p=2 p=1 p=3")));
        assert_eq!((second.boot, facts(second).as_str()), (Some(BootPath::Http), "13"));
        let bmc = second.bmc.as_ref().unwrap();
        assert_eq!((bmc.protocol, bmc.user.as_deref(), bmc.cipher), (Protocol::Redfish, Some("root"), Some(3)));
        assert_eq!(bmc.password_file.as_deref(), Some(Path::new("/site/keys/bmc")));
        assert_eq!((image(third), &third.parameters, third.boot, third.mac), (None, &None, None, None));
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
        let text = with_node(TWO, &node("n3", "52:54:00:ac:10:03", "172.16.0.3"));
        let added = "\n[[node]]\nname = \"n3\"\nmac = \"52:54:00:ac:10:03\"\nip = \"172.16.0.3\"\n\
                     parameters = 'console=ttyS0 \"q\"'\n";
        assert_eq!(text, format!("{TWO}{added}"));
        let names: Vec<_> = read(&text).unwrap().iter().map(|n| n.name.to_string()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
    }

    #[test]
    fn the_first_node_goes_below_the_heading() {
        let text = with_node("# nodes of this site\n", &node("n1", "52:54:00:ac:10:01", "172.16.0.1"));
        assert!(text.starts_with("# nodes of this site\n\n[[node]]\nname = \"n1\""), "{text}");
        assert!(with_node("", &node("n1", "52:54:00:ac:10:01", "172.16.0.1")).starts_with("[[node]]"));
    }

    const COMMENTED: &str = "# nodes of this site\n\n# front\n[[node]]\nname = 'n1'\nip = '172.16.0.1' # door side\n\
                             # spare\nimage = 'a'\n\n# the second row\n\n# noisy fan\n[[node]]\nname = 'n2'\n\
                             ip = '172.16.0.2'\n[node.facts]\nk = 'v' # why\n\n[group.g]\n# the end\n";

    fn edited(change: impl FnOnce(&mut Edit)) -> String {
        let mut edit = Edit::of(COMMENTED).unwrap();
        change(&mut edit);
        read(&edit.text()).unwrap();
        edit.text()
    }

    #[test]
    fn setting_changes_nothing_else() {
        let set = |name: &str, setting: &str| {
            edited(|edit| edit.set(&name.parse().unwrap(), &setting.parse().unwrap()).unwrap())
        };
        assert_eq!(set("n1", "ip=172.16.0.9"), COMMENTED.replace("'172.16.0.1'", "\"172.16.0.9\""));
        assert_eq!(set("N2", "facts.k=w"), COMMENTED.replace("'v'", "\"w\""));
        assert_eq!(set("n1", "groups=g"), COMMENTED.replace("image = 'a'\n", "image = 'a'\ngroups = [\"g\"]\n"));
        assert_eq!(
            set("n1", "bmc.ip=10.0.0.1"),
            COMMENTED.replace("image = 'a'\n", "image = 'a'\n[node.bmc]\nip = \"10.0.0.1\"\n")
        );
        assert_eq!(set("n2", "facts.k="), COMMENTED.replace("[node.facts]\nk = 'v' # why\n", ""));
        assert_eq!(set("n1", "boot="), COMMENTED);
        for wrong in
            ["mca=x", "ip=1", "ip", "bmc.password=x", "facts.ip=1", "bmc.port=65536", "groups=a b", "boot=x", "x="]
        {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn removing_takes_the_nodes_own_comment_and_no_other() {
        let remove = |name: &str| edited(|edit| edit.remove(&name.parse().unwrap()).unwrap());
        let (first, _) = COMMENTED.split_once("\n# the second row\n").unwrap();
        // The paragraph above it is at the file's end now.
        assert_eq!(remove("n2"), format!("{first}\n[group.g]\n\n# the second row\n\n# the end\n"));
        let heading = "# nodes of this site\n\n# front\n";
        let second = COMMENTED.split_once("image = 'a'\n").unwrap().1;
        assert_eq!(remove("n1"), format!("{heading}{second}"));
    }

    #[test]
    fn a_new_node_goes_below_the_others_and_above_the_groups() {
        let text = edited(|edit| {
            edit.add(&node("n3", "52:54:00:ac:10:03", "172.16.0.3"), &["bmc.ip=10.0.0.3".parse().unwrap()]).unwrap();
            edit.add(&node("n4", "52:54:00:ac:10:04", "172.16.0.4"), &[]).unwrap();
        });
        let (before, after) = COMMENTED.split_once("\n[group.g]").unwrap();
        let entry =
            |n: u8| format!("\n[[node]]\nname = \"n{n}\"\nmac = \"52:54:00:ac:10:0{n}\"\nip = \"172.16.0.{n}\"\n");
        assert_eq!(text, format!("{before}{}[node.bmc]\nip = \"10.0.0.3\"\n{}\n[group.g]{after}", entry(3), entry(4)));
    }
}
