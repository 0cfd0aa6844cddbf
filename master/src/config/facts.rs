//! What `[facts]` in site.toml and nodes.toml name, for the templates of overlays.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::addresses::Wrong;

/// Facts that follow from the rest of both files.
pub(crate) const GIVEN: [&str; 7] = ["hostname", "mac", "ip", "prefix", "gateway", "domain", "master"];

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
