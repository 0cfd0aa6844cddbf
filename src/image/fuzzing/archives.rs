//! The reader of archives.

use std::io::{self, BufRead, Read};

use tar::Header;

use crate::image::archive::{Archive, Member};
use crate::image::header::BLOCK;

/// What reading an archive to its end gave.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    members: Vec<(Member, Vec<u8>)>,
    /// How it ended: members of unknown type and whether the end mark was missing, or why it was refused.
    end: Result<(u64, bool), String>,
}

/// An archive: it is read in bounded memory or refused, and how its bytes arrive makes no difference. The first byte
/// of the input says how they arrive, and whether checksums are mended first.
pub fn archive(input: &[u8]) {
    let Some((knob, bytes)) = input.split_first() else { return };
    let bytes = if knob & 1 == 1 { mended(bytes) } else { bytes.to_vec() };
    let whole = contents(bytes.as_slice());
    let most = 1 + usize::from(knob >> 1) * 8;
    let pieces = contents(Pieces { bytes: &bytes, most });
    assert_eq!(whole, pieces);
    assert!(whole.members.len() <= bytes.len() / BLOCK);
    let data: usize = whole.members.iter().map(|(_, data)| data.len()).sum();
    assert!(data <= bytes.len());
    for (member, _) in &whole.members {
        let xattrs: usize = member.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        // What a member holds comes out of extension headers: its own, and the global one.
        assert!(member.path.len() + member.link.len() + xattrs <= (2 << 20) + 2 * BLOCK);
        assert!(member.map.as_ref().is_none_or(|map| map.size <= i64::MAX as u64 && map.parts.len() <= 1 << 18));
    }
}

/// The same archive with the right checksum on everything that looks like a header.
pub(super) fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        if block[257..262] == *b"ustar" {
            let mut header = Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

fn contents(input: impl BufRead) -> Contents {
    let mut archive = Archive::new(input);
    let mut members = Vec::new();
    let mut read = || -> anyhow::Result<()> {
        while let Some(member) = archive.next()? {
            members.push((member, Vec::new()));
            while let data @ [_, ..] = archive.data()? {
                let count = data.len();
                members.last_mut().unwrap().1.extend_from_slice(data);
                archive.used(count);
            }
        }
        Ok(())
    };
    let end = read().map_err(|error| format!("{error:#}"));
    Contents { members, end: end.map(|()| (archive.unknown, archive.unmarked)) }
}

/// Bytes that come a few at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    most: usize,
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&self.bytes[..self.most.min(self.bytes.len())])
    }

    fn consume(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}
