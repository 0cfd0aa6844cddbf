//! A section of a kernel module's file (elf(5)).

/// Bytes of the file header, and of one in the table of sections.
const HEADER: usize = 64;

/// What a section of a 64-bit little-endian file holds; nothing when it is not there, or the file is another or odd.
pub(super) fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let head = file.get(..HEADER)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size) = (number(head, 40, 8)?, number(head, 58, 2)?);
    let header = |index: usize| {
        let start = table.checked_add(index.checked_mul(size)?)?;
        file.get(start..start.checked_add(HEADER)?)
    };
    let content = |header: &[u8]| {
        let start = number(header, 24, 8)?;
        file.get(start..start.checked_add(number(header, 32, 8)?)?)
    };
    let names = content(header(number(head, 62, 2)?)?)?;
    let is_named = |header: &&[u8]| {
        let own = number(header, 0, 4).and_then(|start| names.get(start..));
        own.is_some_and(|own| own.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
    };
    let found = (0..number(head, 60, 2)?).filter_map(header).find(is_named)?;
    content(found)
}

/// The number in `size` bytes from `at` on.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + size)?;
    usize::try_from(bytes.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_a_real_file_are_found() {
        let file = std::fs::read("/bin/true").unwrap();
        let loader = section(&file, ".interp").unwrap();
        assert!(loader.starts_with(b"/lib") && loader.ends_with(b"\0"));
        assert_eq!(section(&file, ".inter"), None);
        for length in 0..200 {
            assert_eq!(section(&file[..length], ".interp"), None);
        }
        assert_eq!(section(b"#!/bin/sh\n", ".interp"), None);
    }

    #[test]
    fn damaged_files_have_none() {
        let file = std::fs::read("/bin/true").unwrap();
        for at in [40, 47, 58, 60, 62] {
            let mut file = file.clone();
            file[at] = 255;
            file[at + 1] = 255;
            let _ = section(&file, ".interp");
        }
    }
}
