//! What `[facts]` in site.toml and nodes.toml name, for the templates of overlays.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::addresses::Wrong;
use super::nodes::Node;
use super::site::Config;

/// Facts that follow from the rest of both files.
const GIVEN: [&str; 7] = ["hostname", "mac", "ip", "prefix", "gateway", "domain", "master"];

/// A fact's name: a lower-case letter, then such letters, digits, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FactName(String);

impl FromStr for FactName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if GIVEN.contains(&text) {
            return Err(format!("the fact `{text}` follows from the rest of site.toml and nodes.toml"));
        }
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 63 && text.chars().all(inner) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is no name of a fact such as rack or slurm_partition"))
        }
    }
}

impl TryFrom<String> for FactName {
    type Error = Wrong;

    fn try_from(text: String) -> Result<Self, Wrong> {
        text.parse()
    }
}

impl From<FactName> for String {
    fn from(name: FactName) -> Self {
        name.0
    }
}

impl fmt::Display for FactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Facts that the administrator names.
pub type Named = BTreeMap<FactName, String>;

/// Everything that templates can say about a node: its own facts go before the site's.
pub(crate) fn of(config: &Config, node: &Node) -> BTreeMap<String, String> {
    let network = &config.network;
    let given = [
        Some(node.name.to_string()),
        Some(node.mac.to_string()),
        Some(node.ip.to_string()),
        Some(network.address.prefix.to_string()),
        network.gateway().map(|gateway| gateway.to_string()),
        network.domain.as_ref().map(ToString::to_string),
        Some(network.address.address.to_string()),
    ];
    let given = GIVEN.into_iter().zip(given).filter_map(|(name, text)| Some((name.to_owned(), text?)));
    let named = config.facts.iter().chain(&node.facts).map(|(name, text)| (name.to_string(), text.clone()));
    named.chain(given).collect()
}
