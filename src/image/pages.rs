//! Writing a file's bytes, but for whole pages of zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Holes are made of whole pages of this size.
const PAGE: usize = 4096;

/// Writes bytes at an offset of a new file, but for pages of zeros, which need no memory as a
/// hole. Returns how many bytes were written, and where the last of them ended.
pub(super) fn write_pages(file: &File, bytes: &[u8], offset: u64) -> io::Result<(u64, Option<u64>)> {
    let (mut written, mut reached) = (0, None);
    let mut write = |from: usize, to: usize| -> io::Result<()> {
        if from < to {
            file.write_all_at(bytes.get(from..to).unwrap_or_default(), offset + from as u64)?;
            written += (to - from) as u64;
            reached = Some(offset + to as u64);
        }
        Ok(())
    };
    let (mut pending, mut at) = (0, 0);
    while at < bytes.len() {
        let into_page = ((offset + at as u64) % PAGE as u64) as usize;
        let end = bytes.len().min(at + PAGE - into_page);
        if is_zero(bytes.get(at..end).unwrap_or_default()) {
            write(pending, at)?;
            pending = end;
        }
        at = end;
    }
    write(pending, at)?;
    Ok((written, reached))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}
