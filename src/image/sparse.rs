//! Maps of sparse files: which parts of a file its archived bytes are. Four formats, one map.

use std::io::Read;

use anyhow::{Context as _, bail, ensure};

use super::header::{self, BLOCK};
use super::pax::{self, Record};

/// More parts than this would make the map itself a burden: 4 MiB.
const MOST_PARTS: usize = 262_144;

/// Where the archived bytes of a sparse file go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// The file's length, holes included.
    pub size: u64,
    /// Offset and length of each part, in order, without overlap.
    pub parts: Vec<(u64, u64)>,
}

impl Map {
    fn push(&mut self, offset: u64, length: u64) -> anyhow::Result<()> {
        let end = offset.checked_add(length).context("a part of a sparse file ends beyond everything")?;
        let before = self.parts.last().map_or(0, |(offset, length)| offset + length);
        ensure!(offset >= before, "the parts of a sparse file overlap or are out of order");
        ensure!(end <= i64::MAX as u64, "a sparse file is too large");
        ensure!(self.parts.len() < MOST_PARTS, "a sparse file has more than {MOST_PARTS} parts");
        self.parts.push((offset, length));
        Ok(())
    }

    /// Checks the map against the length of the file and of its archived bytes.
    ///
    /// # Errors
    /// They contradict each other.
    pub(super) fn check(&self, archived: u64) -> anyhow::Result<()> {
        let end = self.parts.last().map_or(0, |(offset, length)| offset + length);
        ensure!(self.size <= i64::MAX as u64, "a sparse file is too large");
        ensure!(end <= self.size, "a sparse file's last part ends at {end}, the file at {}", self.size);
        let sum: u64 = self.parts.iter().map(|(_, length)| length).sum();
        ensure!(sum == archived, "a sparse file's parts are {sum} bytes, the archive has {archived}");
        Ok(())
    }
}

/// What PAX records say about a sparse file.
#[derive(Debug, Default)]
pub(super) struct Records {
    major: u64,
    size: Option<u64>,
    offset: Option<u64>,
    map: Map,
    seen: bool,
}

impl Records {
    /// Takes a record in; false if it is about something else.
    ///
    /// # Errors
    /// It is one, and cannot be read.
    pub(super) fn take(&mut self, (key, value): Record<'_>) -> anyhow::Result<bool> {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { return Ok(false) };
        match key {
            b"major" => self.major = pax::decimal(value)?,
            b"minor" => ensure!(value == b"0" || self.major == 0, "an unknown sparse format"),
            b"size" | b"realsize" => self.size = Some(pax::decimal(value)?),
            b"offset" => self.offset = Some(pax::decimal(value)?),
            b"numbytes" => {
                let offset = self.offset.take().context("a part of a sparse file without an offset")?;
                self.map.push(offset, pax::decimal(value)?)?;
            }
            b"map" => {
                self.map.parts.clear();
                let numbers: Vec<&[u8]> = value.split(|byte| *byte == b',').collect();
                for pair in numbers.chunks(2) {
                    let [offset, length] = pair else { bail!("a sparse map of an odd number of numbers") };
                    self.map.push(pax::decimal(offset)?, pax::decimal(length)?)?;
                }
            }
            b"numblocks" => {}
            _ => return Ok(false),
        }
        self.seen = true;
        Ok(true)
    }

    /// The map, read from the file's archived bytes where the format (1.0) keeps it there; and
    /// how many of those bytes it took.
    ///
    /// # Errors
    /// The map is broken, or the archive is.
    pub(super) fn into_map(mut self, body: &mut dyn Read) -> anyhow::Result<Option<(Map, u64)>> {
        if !self.seen {
            return Ok(None);
        }
        self.map.size = self.size.context("a sparse file without a size")?;
        let used = match self.major {
            0 => 0,
            1 => read_map(&mut self.map, body)?,
            major => bail!("sparse format {major} is unknown"),
        };
        Ok(Some((self.map, used)))
    }
}

/// Reads the decimal lines of format 1.0: a count, then offsets and lengths, padded to a block.
fn read_map(map: &mut Map, body: &mut dyn Read) -> anyhow::Result<u64> {
    let (mut used, mut number, mut numbers) = (0, Vec::new(), Vec::new());
    let mut left: Option<u64> = None;
    loop {
        let mut block = [0; BLOCK];
        body.read_exact(&mut block).context("reading a sparse map")?;
        used += BLOCK as u64;
        for byte in block {
            if byte != b'\n' {
                ensure!(number.len() < 20, "a sparse map with an endless number");
                number.push(byte);
                continue;
            }
            let value = pax::decimal(&number)?;
            number.clear();
            let Some(rest) = &mut left else {
                ensure!(value <= MOST_PARTS as u64, "a sparse file has more than {MOST_PARTS} parts");
                left = Some(value);
                if value == 0 {
                    return Ok(used);
                }
                continue;
            };
            numbers.push(value);
            if let [offset, length] = *numbers.as_slice() {
                map.push(offset, length)?;
                numbers.clear();
                *rest -= 1;
                if *rest == 0 {
                    return Ok(used);
                }
            }
        }
    }
}

/// Reads the old GNU format: four parts in the header, more in blocks after it.
///
/// # Errors
/// The map is broken, or the archive is.
pub(super) fn old_gnu(header: &tar::GnuHeader, input: &mut dyn Read) -> anyhow::Result<Map> {
    let mut map = Map { size: header::count(&header.realsize)?, parts: Vec::new() };
    for part in &header.sparse {
        push_old(&mut map, part)?;
    }
    let mut more = header.isextended != [0];
    while more {
        let mut block = tar::GnuExtSparseHeader::new();
        input.read_exact(block.as_mut_bytes()).context("reading a sparse map")?;
        for part in block.sparse() {
            push_old(&mut map, part)?;
        }
        more = block.is_extended();
    }
    Ok(map)
}

fn push_old(map: &mut Map, part: &tar::GnuSparseHeader) -> anyhow::Result<()> {
    // An unused slot is NULs; a used one of length 0 marks the end of a file ending in a hole.
    if part.numbytes.first() == Some(&0) {
        return Ok(());
    }
    map.push(header::count(&part.offset)?, header::count(&part.numbytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(records: &[Record<'_>], body: &[u8]) -> anyhow::Result<(Map, u64)> {
        let mut taken = Records::default();
        for record in records {
            assert!(taken.take(*record)?);
        }
        Ok(taken.into_map(&mut &*body)?.unwrap())
    }

    fn padded(text: &[u8]) -> Vec<u8> {
        let mut block = text.to_vec();
        block.resize(text.len().next_multiple_of(BLOCK), 0);
        block
    }

    // F48
    #[test]
    fn three_pax_formats_give_one_map() {
        let map = Map { size: 100, parts: vec![(10, 5), (20, 7), (100, 0)] };
        let zero: [Record<'_>; 8] = [
            (b"GNU.sparse.size", b"100"),
            (b"GNU.sparse.numblocks", b"3"),
            (b"GNU.sparse.offset", b"10"),
            (b"GNU.sparse.numbytes", b"5"),
            (b"GNU.sparse.offset", b"20"),
            (b"GNU.sparse.numbytes", b"7"),
            (b"GNU.sparse.offset", b"100"),
            (b"GNU.sparse.numbytes", b"0"),
        ];
        assert_eq!(read(&zero, b"").unwrap(), (map.clone(), 0));
        let one: [Record<'_>; 2] = [(b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", b"10,5,20,7,100,0")];
        assert_eq!(read(&one, b"").unwrap(), (map.clone(), 0));
        let two: [Record<'_>; 3] =
            [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"100")];
        assert_eq!(read(&two, &padded(b"3\n10\n5\n20\n7\n100\n0\n")).unwrap(), (map.clone(), 512));
        assert!(map.check(12).is_ok());
        assert!(map.check(13).is_err());
    }

    // F48
    #[test]
    fn maps_that_lie_are_refused() {
        let sized = |map: &'static [u8]| read(&[(b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", map)], b"");
        assert!(sized(b"20,5,10,5").is_err());
        assert!(sized(b"10,5,12,5").is_err());
        assert!(sized(b"10,5,12").is_err());
        assert!(sized(b"18446744073709551615,5").is_err());
        assert!(sized(b"99,5").unwrap().0.check(5).is_err());
        let in_body: [Record<'_>; 2] = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"100")];
        for bad in [&b"x\n"[..], b"99999999\n", b"1\n10\n", b"111111111111111111111111\n"] {
            assert!(read(&in_body, &padded(bad)).is_err(), "{}", bad.escape_ascii());
        }
        assert!(read(&[(b"GNU.sparse.map", b"1,1")], b"").is_err());
    }
}
