//! The names that publishing gives builds: `20261122-153012-0011aabb`, time and the beginning of a digest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::addresses::Wrong;

/// The name of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct BuildId(String);

impl BuildId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BuildId {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let of = |part: &str, count, is: fn(&u8) -> bool| part.len() == count && part.bytes().all(|byte| is(&byte));
        match text.split('-').collect::<Vec<_>>().as_slice() {
            [day, time, hash]
                if of(day, 8, u8::is_ascii_digit)
                    && of(time, 6, u8::is_ascii_digit)
                    && of(hash, 8, u8::is_ascii_hexdigit) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is no build such as 20261122-153012-0011aabb; `rootstream image list IMAGE` shows them"
            )),
        }
    }
}

impl TryFrom<String> for BuildId {
    type Error = Wrong;

    fn try_from(text: String) -> Result<Self, Wrong> {
        text.parse()
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_told_from_other_names() {
        assert!("20261122-153012-0011aabb".parse::<BuildId>().is_ok());
        for other in ["", "latest", "20261122-153012", "20261122-153012-0011aabg", "../../../etc-153012-0011aabb"] {
            assert!(other.parse::<BuildId>().is_err(), "{other}");
        }
    }
}
