//! Files with `@name@` in them. There is no more to it: what needs conditions or loops is written by a program.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

/// What a file's name ends with when its content is such a template; the suffix comes off.
pub(super) const SUFFIX: &[u8] = b".in";

/// `text` with every `@name@` replaced by the fact of that name, which is noted in `used`.
///
/// # Errors
/// There is no such fact; the line is named.
pub(super) fn fill(
    text: &[u8],
    facts: &BTreeMap<String, String>,
    used: &mut BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut filled = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'@') {
        let (before, from) = rest.split_at(at);
        filled.extend_from_slice(before);
        let Some(name) = name_in(from) else {
            filled.push(b'@');
            rest = from.get(1..).unwrap_or_default();
            continue;
        };
        let fact = facts.get(name).ok_or_else(|| {
            let line = text.iter().take(text.len() - from.len()).filter(|byte| **byte == b'\n').count() + 1;
            let known: Vec<&str> = facts.keys().map(String::as_str).collect();
            anyhow!("line {line} wants @{name}@, which this node has not; it has {}", known.join(", "))
        })?;
        filled.extend_from_slice(fact.as_bytes());
        used.insert(name.to_owned(), fact.clone());
        rest = from.get(name.len() + 2..).unwrap_or_default();
    }
    filled.extend_from_slice(rest);
    Ok(filled)
}

/// The name when the text begins with `@name@`.
fn name_in(text: &[u8]) -> Option<&str> {
    let inner = text.get(1..)?;
    let end = inner.iter().position(|byte| *byte == b'@')?;
    let name = inner.get(..end)?;
    let letters = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(byte);
    let good = name.first().is_some_and(u8::is_ascii_lowercase) && name.iter().all(letters);
    good.then(|| std::str::from_utf8(name).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill_in(text: &[u8]) -> Result<(Vec<u8>, Vec<String>), String> {
        let facts = [("ip", "172.16.0.1"), ("rack", "@ip@")];
        let facts = facts.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let mut used = BTreeMap::new();
        let filled = fill(text, &facts, &mut used).map_err(|error| error.to_string())?;
        Ok((filled, used.into_keys().collect()))
    }

    #[test]
    fn names_between_ats_are_replaced() {
        let (text, used) = fill_in(b"@ip@:@rack@ \xff @@ a@b.org @ ip@ @Ip@ @ip").unwrap();
        // What a fact holds is not looked at again.
        assert_eq!(text, b"172.16.0.1:@ip@ \xff @@ a@b.org @ ip@ @Ip@ @ip");
        assert_eq!(used, ["ip", "rack"]);
        assert_eq!(fill_in(b"root@@ip@").unwrap().0, b"root@172.16.0.1");
        assert_eq!(fill_in(b"").unwrap(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn an_unknown_name_is_refused_with_its_line() {
        let error = fill_in(b"a\nb @ip@\nServer=@gateway@\n").unwrap_err();
        assert_eq!(error, "line 3 wants @gateway@, which this node has not; it has ip, rack");
    }
}
