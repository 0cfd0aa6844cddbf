//! Names of archive members, made safe to hand to the kernel. No I/O.

use anyhow::{bail, ensure};

/// A name relative to the root: components joined by single slashes, none of them `.` or `..`.
/// Empty for the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Name {
    bytes: Vec<u8>,
    /// Whether it began with a slash that was taken off.
    pub absolute: bool,
}

impl Name {
    /// Cleans a name as an archive has it.
    ///
    /// # Errors
    /// It is empty, holds a NUL, or a `..` component.
    pub fn new(raw: &[u8]) -> anyhow::Result<Self> {
        ensure!(!raw.is_empty(), "a member has an empty name");
        ensure!(!raw.contains(&0), "the name \"{}\" holds a NUL", raw.escape_ascii());
        let mut bytes = Vec::with_capacity(raw.len());
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => bail!("the name \"{}\" has a .. component", raw.escape_ascii()),
                _ => {
                    if !bytes.is_empty() {
                        bytes.push(b'/');
                    }
                    bytes.extend_from_slice(component);
                }
            }
        }
        Ok(Self { bytes, absolute: raw.first() == Some(&b'/') })
    }

    /// The whole name.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The directory that it is in (empty for the root) and its last component.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.bytes.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (parent, last) = self.bytes.split_at(slash);
                (parent, last.get(1..).unwrap_or_default())
            }
            None => (&[], &self.bytes),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.bytes.is_empty() { f.write_str("./") } else { write!(f, "{}", self.bytes.escape_ascii()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F43, F49
    #[test]
    fn names_are_cleaned_or_refused() {
        let clean = |raw: &[u8]| Name::new(raw).unwrap().bytes().to_vec();
        assert_eq!(clean(b"./usr//bin/./sh"), b"usr/bin/sh");
        assert_eq!(clean(b"/etc/"), b"etc");
        assert_eq!(clean(b"./"), b"");
        assert_eq!(clean(b"a\xff\n..b/..."), b"a\xff\n..b/...");
        assert!(Name::new(b"/etc").unwrap().absolute);
        for bad in [&b""[..], b"..", b"a/../b", b"/..", b"a/..", b"a\0b"] {
            assert!(Name::new(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn names_split_at_the_last_slash() {
        assert_eq!(Name::new(b"a/b/c").unwrap().split(), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(Name::new(b"c").unwrap().split(), (&b""[..], &b"c"[..]));
    }
}
