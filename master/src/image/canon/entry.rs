//! One entry of the canonical archive: a ustar header, with a PAX extended header before it where ustar
//! cannot hold something (POSIX.1-2017 pax). Numeric owners only. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rootstream::failure::refuse;

use super::{BLOCK, Kind, Node, Tree};

/// The most bytes of an extended header that the agent reads, less one.
const LONGEST_EXTENSION: usize = (1 << 20) - 1;
/// What fits into seven octal digits: owners, device numbers.
const MOST_SHORT: u64 = 0o777_7777;
/// What fits into eleven: sizes and times.
const MOST_LONG: u64 = 0o777_7777_7777;

/// An entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its path, without a slash at its ends; empty for the root.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) node: Arc<Node>,
    /// Where it is another name of what came before: that path.
    pub(crate) same_as: Option<Vec<u8>>,
}

impl Entry {
    /// The entries of a tree in the order of the canonical archive.
    pub(crate) fn all(tree: &Tree) -> Vec<Self> {
        let mut first: HashMap<*const Node, Vec<u8>> = HashMap::new();
        let entry = |(path, node): (Vec<u8>, &Arc<Node>)| {
            let same_as = first.get(&Arc::as_ptr(node)).cloned();
            if same_as.is_none() && node.kind != Kind::Directory {
                first.insert(Arc::as_ptr(node), path.clone());
            }
            Self { path, node: Arc::clone(node), same_as }
        };
        tree.iter().map(entry).collect()
    }

    /// Bytes of data that follow the header.
    pub(crate) fn size(&self) -> u64 {
        match &self.node.kind {
            Kind::File(data) if self.same_as.is_none() => data.size,
            _ => 0,
        }
    }

    /// Its name in the archive.
    fn name(&self) -> Vec<u8> {
        if self.path.is_empty() {
            return b"./".to_vec();
        }
        let slash: &[u8] = if self.node.kind == Kind::Directory { b"/" } else { b"" };
        [&self.path, slash].concat()
    }

    /// Its header, with what extends it in front.
    ///
    /// # Errors
    /// It has something that no archive can hold; the entry is named.
    pub(crate) fn header(&self) -> Result<Vec<u8>> {
        self.try_header().map_err(|error| error.context(format!("packing /{}", self.path.escape_ascii())))
    }

    fn try_header(&self) -> Result<Vec<u8>> {
        let node = &*self.node;
        let (flag, link): (u8, &[u8]) = match (&self.same_as, &node.kind) {
            (Some(target), _) => (b'1', target),
            (None, Kind::File(_)) => (b'0', b""),
            (None, Kind::Symlink(target)) => (b'2', target),
            (None, Kind::Character { .. }) => (b'3', b""),
            (None, Kind::Block { .. }) => (b'4', b""),
            (None, Kind::Directory) => (b'5', b""),
            (None, Kind::Fifo) => (b'6', b""),
        };
        let mut records = Records::default();
        let mut header = Header::new(flag, u64::from(node.mode));
        let name = self.name();
        if !header.name(&name) {
            records.add(b"path", &name)?;
        }
        if !header.put(157, 100, link) {
            records.add(b"linkpath", link)?;
        }
        if !header.number(108, 8, node.uid.into()) {
            records.add(b"uid", node.uid.to_string().as_bytes())?;
        }
        if !header.number(116, 8, node.gid.into()) {
            records.add(b"gid", node.gid.to_string().as_bytes())?;
        }
        if !header.number(124, 12, self.size()) {
            records.add(b"size", self.size().to_string().as_bytes())?;
        }
        let seconds = u64::try_from(node.mtime.seconds).unwrap_or(u64::MAX);
        if !header.number(136, 12, seconds) || node.mtime.nanoseconds > 0 {
            records.add(b"mtime", decimal(node).as_bytes())?;
        }
        if let Kind::Character { major, minor } | Kind::Block { major, minor } = node.kind {
            let fits = header.number(329, 8, major.into()) && header.number(337, 8, minor.into());
            ensure!(fits, "the device {major}:{minor} has impossible numbers");
        }
        // Another name has the attributes of the first one.
        for (name, value) in node.xattrs.iter().filter(|_| self.same_as.is_none()) {
            if name.contains(&b'=') {
                let what = format!("the name of its extended attribute \"{}\" holds a =", name.escape_ascii());
                return Err(refuse(what, "remove that attribute"));
            }
            records.add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value)?;
        }
        let mut bytes = records.into_bytes()?;
        bytes.extend(header.into_bytes());
        Ok(bytes)
    }
}

/// Seconds since 1970 with nine decimals, less the zeros at the end.
fn decimal(node: &Node) -> String {
    let (seconds, nanoseconds) = (i128::from(node.mtime.seconds), i128::from(node.mtime.nanoseconds));
    let all = seconds * 1_000_000_000 + nanoseconds;
    let (sign, all) = (if all < 0 { "-" } else { "" }, all.unsigned_abs());
    let text = format!("{sign}{}.{:09}", all / 1_000_000_000, all % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The records of an extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        // " KEY=VALUE\n", and in front of it the length of all, itself included.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        if self.0.len() + length > LONGEST_EXTENSION {
            let what = format!("its extended attributes are more than {LONGEST_EXTENSION} bytes");
            return Err(refuse(what, "remove the large ones"));
        }
        self.0.extend(length.to_string().bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
        Ok(())
    }

    /// The extended header with its own header, or nothing.
    fn into_bytes(self) -> Result<Vec<u8>> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let mut header = Header::new(b'x', 0o644);
        let named = header.name(b"././@PaxHeader") && header.number(124, 12, self.0.len() as u64);
        ensure!(named, "an extended header without a header");
        let mut bytes = header.into_bytes();
        bytes.extend(self.0);
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        Ok(bytes)
    }
}

/// A ustar header.
struct Header([u8; BLOCK as usize]);

impl Header {
    fn new(flag: u8, mode: u64) -> Self {
        let mut header = Self([0; BLOCK as usize]);
        header.number(100, 8, mode);
        for (at, width) in [(108, 8), (116, 8), (124, 12), (136, 12)] {
            header.number(at, width, 0);
        }
        header.put(156, 1, &[flag]);
        header.put(257, 8, b"ustar\x0000");
        header
    }

    /// Puts text into the field at `at`; false, and nothing, if it does not fit.
    fn put(&mut self, at: usize, width: usize, text: &[u8]) -> bool {
        let field = self.0.get_mut(at..at + width).and_then(|field| field.get_mut(..text.len()));
        field.map(|field| field.copy_from_slice(text)).is_some()
    }

    /// Puts octal digits into the field at `at`; false, and zeros, if they are too many.
    fn number(&mut self, at: usize, width: usize, value: u64) -> bool {
        let fits = value <= if width == 8 { MOST_SHORT } else { MOST_LONG };
        let digits = width - 1;
        self.put(at, width, format!("{:0digits$o}\0", if fits { value } else { 0 }).as_bytes());
        fits
    }

    /// Puts a path into name and prefix; false if it does not fit.
    fn name(&mut self, path: &[u8]) -> bool {
        if self.put(0, 100, path) {
            return true;
        }
        // The earliest slash that leaves few enough bytes after it; one at the very end is no place to split.
        let slashes = path.iter().enumerate().filter(|(at, byte)| **byte == b'/' && at + 1 < path.len());
        let Some((at, _)) = slashes.into_iter().find(|(at, _)| path.len() - at - 1 <= 100) else {
            self.put(0, 100, path.get(..100).unwrap_or_default());
            return false;
        };
        let (prefix, rest) = path.split_at(at);
        let fits = at > 0 && self.put(345, 155, prefix);
        self.put(0, 100, rest.get(1..).unwrap_or_default());
        fits
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.put(148, 8, b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.put(148, 8, format!("{sum:06o}\0 ").as_bytes());
        self.0.to_vec()
    }
}
