//! A TOML file together with its text, so that a refusal can name the line.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// A mistake in a file that the administrator wrote. It ends the command with exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misconfigured {
    place: Place,
    what: String,
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    file: PathBuf,
    line: usize,
}

impl Place {
    /// The error for a mistake here.
    pub(crate) fn refuse(&self, what: impl Into<String>) -> anyhow::Error {
        Misconfigured { place: self.clone(), what: what.into() }.into()
    }

    /// As a message about a line of `other`'s file calls it: `line 3`, or `site.toml:3`.
    pub(crate) fn seen_from(&self, other: &Self) -> String {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy();
        if self.file == other.file { format!("line {}", self.line) } else { format!("{name}:{}", self.line) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl std::error::Error for Misconfigured {}

/// A file's path and text.
#[derive(Clone, Debug)]
pub struct Document {
    path: PathBuf,
    text: String,
    /// Where its lines end: a file with thousands of nodes is asked for thousands of lines.
    ends: Vec<usize>,
}

impl Document {
    /// Reads the file.
    ///
    /// # Errors
    /// It is missing, unreadable or not UTF-8.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self::of(path, text))
    }

    /// A document whose text is at hand; `path` is what messages call it.
    pub fn of(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { path: path.into(), text, ends }
    }

    /// The text as read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Parses the text.
    ///
    /// # Errors
    /// [`Misconfigured`], naming the line.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.text).map_err(|error| self.refuse(error.span().unwrap_or(0..0), error.message().trim()))
    }

    /// The error for a mistake at `span`, a byte range of the text.
    pub fn refuse(&self, span: Range<usize>, what: impl Into<String>) -> anyhow::Error {
        self.place(&span).refuse(what)
    }

    /// The line that `span` starts in.
    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        let line = self.ends.partition_point(|end| *end < span.start) + 1;
        Place { file: self.path.clone(), line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        known: u16,
    }

    fn mistake(text: &str) -> String {
        Document::of("site.toml", text).parse::<Sample>().unwrap_err().to_string()
    }

    #[test]
    fn the_line_is_named() {
        assert!(mistake("known = 1\n\n# x\nunknown = 2\n").starts_with("site.toml:4: unknown field `unknown`"));
        assert!(mistake("# x\nknown = 'text'\n").starts_with("site.toml:2: invalid type"));
        assert!(mistake("known = 1\nbroken\n").starts_with("site.toml:2: "));
        assert!(mistake("").contains("missing field `known`"));
    }
}
