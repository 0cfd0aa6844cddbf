//! What tells one node from another, and URLs that are made of it.
//!
//! A [`Template`] is text with names such as `${mac}` in it; [`NodeFacts`] are what this node puts there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::lease::Lease;
use crate::mac::Mac;

/// Longer ones are no names of anything.
const LONGEST: usize = 255;
/// What firmware says where its maker wrote nothing: thousands of machines share these.
const FILLERS: [&str; 9] = [
    "none",
    "default string",
    "not specified",
    "not applicable",
    "system serial number",
    "to be filled by o.e.m.",
    "0123456789",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
];

/// One thing that is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// The MAC of the port with the lease, lower case, with hyphens: a colon in a file's name or a URL needs care.
    Mac,
    /// The machine's UUID (SMBIOS), lower case.
    Uuid,
    /// The machine's serial number (SMBIOS).
    Serial,
    /// The host name in the lease.
    Hostname,
    /// The address in the lease.
    Ip,
    /// Debian's name of the architecture (`amd64`, `arm64`), as manifests have it.
    Arch,
    /// The image's build, out of its manifest.
    Build,
}

impl Fact {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Mac, Self::Uuid, Self::Serial, Self::Hostname, Self::Ip, Self::Arch, Self::Build];

    /// Its name in templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Uuid => "uuid",
            Self::Serial => "serial",
            Self::Hostname => "hostname",
            Self::Ip => "ip",
            Self::Arch => "arch",
            Self::Build => "build",
        }
    }

    /// The fact with this name.
    ///
    /// # Errors
    /// There is none; the message lists those that there are.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|fact| fact.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("{name:?} is none of {}", known.join(", "))
        })
    }

    /// Why a node can be without it.
    fn lacking(self) -> &'static str {
        match self {
            Self::Mac | Self::Ip => "there is no lease",
            Self::Hostname => "the lease names no host (DHCP option 12)",
            Self::Uuid | Self::Serial => "the firmware says none (SMBIOS)",
            Self::Arch => "the architecture is not known",
            Self::Build => "only a published image has one; this one has no manifest",
        }
    }
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts(BTreeMap<Fact, String>);

impl NodeFacts {
    /// What the machine with the root file system `root` says of itself in /sys, and its architecture.
    pub fn of_machine(root: &Path) -> Self {
        let mut facts = Self::default();
        for (fact, file) in [(Fact::Uuid, "product_uuid"), (Fact::Serial, "product_serial")] {
            // Not there on machines without SMBIOS.
            let text = fs::read_to_string(root.join("sys/class/dmi/id").join(file)).unwrap_or_default();
            facts.set(fact, &text);
        }
        facts.set(Fact::Arch, debian_arch(std::env::consts::ARCH));
        facts
    }

    /// Adds what the network says.
    #[must_use]
    pub fn with_network(mut self, mac: [u8; 6], lease: &Lease) -> Self {
        self.set(Fact::Mac, &Mac(mac).to_string());
        self.set(Fact::Ip, &lease.address.to_string());
        self.set(Fact::Hostname, lease.hostname.as_deref().unwrap_or_default());
        self
    }

    /// Sets a fact; false where the text says nothing of this node.
    pub fn set(&mut self, fact: Fact, text: &str) -> bool {
        let text = text.trim();
        let text = match fact {
            Fact::Mac => text.to_ascii_lowercase().replace(':', "-"),
            Fact::Uuid => text.to_ascii_lowercase(),
            _ => text.to_owned(),
        };
        // Dots alone would be a step up or nowhere in a path.
        let empty = text.bytes().all(|byte| byte == b'.');
        if empty || text.len() > LONGEST || FILLERS.contains(&text.to_ascii_lowercase().as_str()) {
            return false;
        }
        self.0.insert(fact, text);
        true
    }

    /// A fact's text.
    pub fn get(&self, fact: Fact) -> Option<&str> {
        self.0.get(&fact).map(String::as_str)
    }
}

/// Debian's name of an architecture that the compiler or uname(1) names.
pub fn debian_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "armhf",
        "x86" | "i686" => "i386",
        "powerpc64" | "ppc64le" => "ppc64el",
        other => other,
    }
}

/// A fact that a template needs and the node has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown(pub Fact);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this node has no ${{{}}}: {}", self.0.name(), self.0.lacking())
    }
}

impl std::error::Error for Unknown {}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Fact(Fact),
}

/// A URL with names of facts in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Reads text with `${name}` in it. A `$` before anything but `{` stands for itself.
    ///
    /// # Errors
    /// There is no fact of such a name, or a brace is not closed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) =
                after.split_once('}').ok_or_else(|| format!("the ${{ before {after:?} is not closed"))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Fact(Fact::named(name)?));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// The URL for this node. What is not safe in a URL's path is percent-encoded (RFC 3986 section 2.3).
    ///
    /// # Errors
    /// The node lacks a fact.
    pub fn expand(&self, facts: &NodeFacts) -> Result<String, Unknown> {
        let mut url = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => url.push_str(text),
                Part::Fact(fact) => url.push_str(&encoded(facts.get(*fact).ok_or(Unknown(*fact))?)),
            }
        }
        Ok(url)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Fact(fact) => write!(f, "${{{}}}", fact.name()),
        })
    }
}

fn encoded(text: &str) -> String {
    let mut url = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url += &format!("%{byte:02X}");
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(template: &str, facts: &[(Fact, &str)]) -> String {
        let mut known = NodeFacts::default();
        for (fact, text) in facts {
            known.set(*fact, text);
        }
        match Template::parse(template).unwrap().expand(&known) {
            Ok(url) => url,
            Err(unknown) => unknown.to_string(),
        }
    }

    #[test]
    fn facts_go_where_their_names_are() {
        let facts = [(Fact::Mac, "52:54:00:AC:10:01"), (Fact::Arch, "amd64"), (Fact::Hostname, "n1")];
        assert_eq!(expand("http://m/${arch}/${mac}.tar", &facts), "http://m/amd64/52-54-00-ac-10-01.tar");
        assert_eq!(expand("${hostname}${hostname}", &facts), "n1n1");
        assert_eq!(expand("a$b{c}$", &facts), "a$b{c}$");
        assert_eq!(expand("http://m/${build}.tar", &facts).split(':').next().unwrap(), "this node has no ${build}");
        let text = "http://m/${uuid}/$x/${ip}";
        assert_eq!(Template::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn a_fact_cannot_change_a_urls_parts() {
        let serial = |text: &str| expand("http://m/${serial}.tar", &[(Fact::Serial, text)]);
        assert_eq!(serial(" A/../b?c#d %e\n"), "http://m/A%2F..%2Fb%3Fc%23d%20%25e.tar");
        assert_eq!(serial("\u{e9}"), "http://m/%C3%A9.tar");
        for none in ["", ".", "..", " \n", "Default string", "To Be Filled By O.E.M.", &"x".repeat(256)] {
            assert!(serial(none).contains("the firmware says none"), "{none:?}");
        }
    }

    #[test]
    fn unknown_names_are_mistakes() {
        assert!(Template::parse("http://m/${macs}").unwrap_err().contains("\"macs\" is none of mac, uuid"));
        assert!(Template::parse("http://m/${mac").unwrap_err().contains("not closed"));
        assert!(Template::parse("http://m/${}").is_err());
        assert!(Template::parse("http://m/${MAC}").is_err());
    }

    #[test]
    fn the_machine_says_who_it_is() {
        let root = tempfile::tempdir().unwrap();
        let dmi = root.path().join("sys/class/dmi/id");
        fs::create_dir_all(&dmi).unwrap();
        fs::write(dmi.join("product_uuid"), "4C4C4544-0042-3510-8052-B4C04F4E3233\n").unwrap();
        fs::write(dmi.join("product_serial"), "Not Specified\n").unwrap();
        let facts = NodeFacts::of_machine(root.path());
        assert_eq!(facts.get(Fact::Uuid), Some("4c4c4544-0042-3510-8052-b4c04f4e3233"));
        assert_eq!(facts.get(Fact::Serial), None);
        assert_eq!(facts.get(Fact::Arch), Some(debian_arch(std::env::consts::ARCH)));
        assert_eq!(NodeFacts::of_machine(Path::new("/nonexistent")).get(Fact::Uuid), None);
    }
}
