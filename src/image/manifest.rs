//! The manifest of a published image: what the image is, what it needs, and the chunks that its file is made
//! of. JSON, at most 16 MiB, signed as a whole. No I/O.
//!
//! The store holds `NAME/BUILD.json` (this), `NAME/BUILD.json.minisig` (its signature), `NAME/BUILD.tar.zst` or
//! another format (the file), and `NAME/latest.json` ([`Latest`], the one file that changes).

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of both formats.
pub const FORMAT: u32 = 2;
/// The largest manifest that is read.
pub const LIMIT: u64 = 16 << 20;
/// The most bytes that a chunk may have in the file; an agent has a buffer of this size for each worker.
pub const MOST_PACKED: u64 = 5 << 20;
/// The most bytes that a chunk may unpack to.
pub const MOST_UNPACKED: u64 = 4 << 20;

/// What the image's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Media {
    /// A canonical tar archive; each chunk is one zstd frame.
    #[serde(rename = "tar+zstd")]
    TarZstd,
    /// A canonical tar archive; each chunk is one gzip member.
    #[serde(rename = "tar+gzip")]
    TarGzip,
    /// A squashfs file system; chunks are plain slices of it.
    #[serde(rename = "squashfs")]
    Squashfs,
    /// An erofs file system; chunks are plain slices of it.
    #[serde(rename = "erofs")]
    Erofs,
}

impl Media {
    /// Its name in manifests and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::TarZstd => "tar+zstd",
            Self::TarGzip => "tar+gzip",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }

    /// The suffix of such a file's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::TarZstd => "tar.zst",
            Self::TarGzip => "tar.gz",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }
}

/// A sha256 as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        ensure!(digits.len() == 64, "a sha256 of {} digits instead of 64", digits.len());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let lower = pair.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            ensure!(lower, "a sha256 that is not lower-case hex");
            *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The file that a chunk begins inside of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continued {
    /// Its cleaned path (no leading `./` or `/`); bytes other than printable ASCII, and `%`, as `%XX`.
    pub path: String,
    /// How many of its bytes came in the chunks before.
    pub offset: u64,
    /// Its length.
    pub total: u64,
}

/// An independently compressed piece of the image's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes in the file.
    pub size: u64,
    /// Its bytes unpacked.
    pub unpacked: u64,
    /// sha256 of its bytes in the file.
    pub sha256: Digest,
    /// The file that its first unpacked bytes belong to, where the chunk before ended inside one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<Continued>,
}

/// `NAME/BUILD.json`: everything about one build. Immutable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// The image's name.
    pub name: String,
    /// The build's name.
    pub build: String,
    /// When it was published, RFC 3339 in UTC (`2026-11-22T18:00:00Z`).
    pub created: String,
    /// Debian's name of the architecture (`amd64`).
    pub arch: String,
    /// Kernel releases whose modules the image holds.
    pub kernels: Vec<String>,
    /// What the file is.
    pub media: Media,
    /// The image's file, next to the manifest.
    pub file: String,
    /// Bytes of that file.
    pub size: u64,
    /// sha256 of that file.
    pub sha256: Digest,
    /// Bytes of all files unpacked.
    pub unpacked_bytes: u64,
    /// Pages of 4 KiB that they fill, each file rounded up; pages of zeros, which stay holes, not counted.
    pub unpacked_pages: u64,
    /// Inodes.
    pub inodes: u64,
    /// Bytes of the largest file.
    pub largest_file: u64,
    /// The image's init, when there is one at the usual place.
    pub init: Option<String>,
    /// The pieces of the file, in order, without gap or overlap.
    pub chunks: Vec<Chunk>,
}

/// `NAME/latest.json`: which build is the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// The version of this format.
    pub format: u32,
    /// The image's name.
    pub name: String,
    /// The newest build.
    pub build: String,
    /// Its manifest, next to this file.
    pub manifest: String,
}

impl Manifest {
    /// Reads a manifest and checks that it does not contradict itself.
    ///
    /// # Errors
    /// It is no manifest of this format, or its numbers cannot be true.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        check_format(bytes, "manifest")?;
        let manifest: Self = serde_json::from_slice(bytes).context("it is no manifest")?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> anyhow::Result<()> {
        for (what, name) in [("name", &self.name), ("build", &self.build), ("file", &self.file)] {
            ensure!(is_plain_name(name), "its {what} is \"{}\"", name.escape_debug());
        }
        // Times are compared as texts.
        let shape = |(byte, pattern): (u8, u8)| byte == pattern || (pattern == b'0' && byte.is_ascii_digit());
        let pattern = b"0000-00-00T00:00:00Z";
        let proper = self.created.len() == pattern.len() && self.created.bytes().zip(*pattern).all(shape);
        ensure!(proper, "it was created \"{}\", which is no time in UTC", self.created.escape_debug());
        let mut at = 0u64;
        let mut open: Option<(&Continued, u64)> = None;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let bad = |what: &str| anyhow::anyhow!("its chunk {index} {what}");
            ensure!(chunk.offset == at, bad("does not begin where the one before ends"));
            ensure!((1..=MOST_PACKED).contains(&chunk.size), bad("has an impossible size"));
            ensure!((1..=MOST_UNPACKED).contains(&chunk.unpacked), bad("unpacks to an impossible size"));
            at += chunk.size;
            let Some(continued) = &chunk.continues else {
                ensure!(open.is_none(), bad("does not continue the file that the one before is inside of"));
                continue;
            };
            ensure!(matches!(self.media, Media::TarZstd | Media::TarGzip), bad("continues a file, but holds none"));
            ensure!(index > 0 && continued.offset < continued.total, bad("continues a file that has ended"));
            unescape(&continued.path).with_context(|| bad("continues a file without a proper name").to_string())?;
            if let Some((before, end)) = open {
                let same = before.path == continued.path && before.total == continued.total && end == continued.offset;
                ensure!(same, bad("does not continue the file that the one before is inside of"));
            }
            let end = continued.offset.checked_add(chunk.unpacked).ok_or_else(|| bad("ends beyond everything"))?;
            open = (end < continued.total).then_some((continued, end));
        }
        ensure!(open.is_none(), "its last chunk ends inside a file");
        ensure!(at == self.size, "its chunks are {at} bytes, its file {}", self.size);
        ensure!(at > 0, "it has no chunks");
        Ok(())
    }

    /// Bytes of the largest chunk, unpacked.
    pub fn most_unpacked(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.unpacked).max().unwrap_or(0)
    }
}

impl Latest {
    /// Reads the pointer to the newest build.
    ///
    /// # Errors
    /// It is none of this format.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        check_format(bytes, "pointer")?;
        let latest: Self = serde_json::from_slice(bytes).context("it is no pointer to a manifest")?;
        for name in [&latest.name, &latest.build, &latest.manifest] {
            ensure!(is_plain_name(name), "\"{}\" in it is no name", name.escape_debug());
        }
        Ok(latest)
    }
}

/// The format comes first: what else a future one holds is not ours to judge.
fn check_format(bytes: &[u8], what: &str) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    ensure!(bytes.len() as u64 <= LIMIT, "it is longer than {LIMIT} bytes");
    let versioned: Versioned = serde_json::from_slice(bytes).with_context(|| format!("it is no {what}"))?;
    match versioned.format {
        FORMAT => Ok(()),
        other => bail!("it has format {other}; this version of rootstream reads format {FORMAT}"),
    }
}

/// One component of a URL or path, as the store has them.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.chars().all(plain)
}

/// A path as a manifest has it.
pub fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'%' | 0..=0x20 | 0x7f..=0xff | b'"' | b'\\' => text += &format!("%{byte:02x}"),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

/// The path that [`escape`] wrote.
///
/// # Errors
/// [`escape`] writes no such text.
pub fn unescape(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        let pair = [bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default()];
        path.push(u8::from_str_radix(std::str::from_utf8(&pair)?, 16).context("a % without two hex digits")?);
    }
    ensure!(escape(&path) == text, "\"{}\" is not written as manifests write paths", text.escape_debug());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, size: u64, unpacked: u64, continues: Option<(&str, u64, u64)>) -> Chunk {
        let continues = continues.map(|(path, offset, total)| Continued { path: path.to_owned(), offset, total });
        Chunk { offset, size, unpacked, sha256: Digest([7; 32]), continues }
    }

    fn manifest(chunks: Vec<Chunk>) -> Manifest {
        Manifest {
            format: FORMAT,
            name: "compute".to_owned(),
            build: "20261122T180000Z-0011aabb".to_owned(),
            created: "2026-11-22T18:00:00Z".to_owned(),
            arch: "amd64".to_owned(),
            kernels: vec!["6.1.0-41-amd64".to_owned()],
            media: Media::TarZstd,
            file: "20261122T180000Z-0011aabb.tar.zst".to_owned(),
            size: chunks.iter().map(|chunk| chunk.size).sum(),
            sha256: Digest([1; 32]),
            unpacked_bytes: 1,
            unpacked_pages: 1,
            inodes: 1,
            largest_file: 1,
            init: None,
            chunks,
        }
    }

    fn parse(manifest: &Manifest) -> anyhow::Result<Manifest> {
        Manifest::parse(&serde_json::to_vec(manifest).unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let written = manifest(vec![
            chunk(0, 10, 100, None),
            chunk(10, 5, 100, Some(("a/big", 50, 200))),
            chunk(15, 5, 100, Some(("a/big", 150, 200))),
            chunk(20, 1, 1, None),
        ]);
        assert_eq!(parse(&written).unwrap(), written);
        assert_eq!(written.most_unpacked(), 100);
    }

    #[test]
    fn chunks_that_cannot_be_true_are_refused() {
        for (chunks, why) in [
            (vec![], "no chunks"),
            (vec![chunk(1, 10, 1, None)], "chunk 0 does not begin"),
            (vec![chunk(0, 10, 1, None), chunk(9, 10, 1, None)], "chunk 1 does not begin"),
            (vec![chunk(0, 0, 1, None)], "impossible size"),
            (vec![chunk(0, MOST_PACKED + 1, 1, None)], "impossible size"),
            (vec![chunk(0, 1, MOST_UNPACKED + 1, None)], "unpacks to an impossible size"),
            (vec![chunk(0, 1, 1, Some(("a", 0, 1)))], "has ended"),
            (vec![chunk(0, 1, 1, None), chunk(1, 1, 1, Some(("a", 5, 5)))], "has ended"),
            (vec![chunk(0, 1, 1, None), chunk(1, 1, 1, Some(("a", 5, u64::MAX)))], "ends inside a file"),
            (vec![chunk(0, 1, 1, None), chunk(1, 1, 2, Some(("a", u64::MAX - 1, u64::MAX)))], "beyond everything"),
            (vec![chunk(0, 1, 1, None), chunk(1, 1, 1, Some(("a", 5, 9))), chunk(2, 1, 1, None)], "does not continue"),
            (
                vec![chunk(0, 1, 1, None), chunk(1, 1, 1, Some(("a", 5, 9))), chunk(2, 1, 3, Some(("b", 6, 9)))],
                "does not continue",
            ),
            (vec![chunk(0, 1, 1, None), chunk(1, 1, 1, Some(("a%", 5, 6)))], "without a proper name"),
        ] {
            let error = format!("{:#}", parse(&manifest(chunks)).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
        let mut long = manifest(vec![chunk(0, 10, 1, None)]);
        long.size = 11;
        assert!(parse(&long).unwrap_err().to_string().contains("its chunks are 10 bytes, its file 11"));
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["", ".", "..", "a/b", "../x", ".hidden", "a b", "a\0"] {
            let mut bad = manifest(vec![chunk(0, 10, 1, None)]);
            bad.file = name.to_owned();
            assert!(parse(&bad).is_err(), "{name:?}");
        }
    }

    // F36
    #[test]
    fn times_can_be_compared() {
        for created in ["", "2026-11-22", "2026-11-22 18:00:00Z", "2026-11-22T18:00:00.5Z", "2026-11-22T18:00:00+01:00"]
        {
            let mut bad = manifest(vec![chunk(0, 10, 1, None)]);
            bad.created = created.to_owned();
            assert!(parse(&bad).unwrap_err().to_string().contains("no time in UTC"), "{created:?}");
        }
    }

    #[test]
    fn other_formats_are_named() {
        let error = Manifest::parse(br#"{"format":3,"other":true}"#).unwrap_err().to_string();
        assert!(error.contains("format 3"), "{error}");
        assert!(Manifest::parse(b"<html>").is_err());
        assert!(Latest::parse(br#"{"format":2,"name":"a","build":"b","manifest":"../b.json"}"#).is_err());
        assert_eq!(Latest::parse(br#"{"format":2,"name":"a","build":"b","manifest":"b.json"}"#).unwrap().build, "b");
    }

    #[test]
    fn paths_come_back_as_they_went() {
        let all: Vec<u8> = (1..=255).collect();
        assert_eq!(unescape(&escape(&all)).unwrap(), all);
        assert_eq!(escape(b"a/b%\xff c"), "a/b%25%ff%20c");
        for bad in ["%", "%f", "%FF", "%zz", "\u{e9}", " "] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
    }
}
