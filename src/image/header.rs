//! The fixed fields of a tar header, read strictly. No I/O.

use anyhow::{bail, ensure};
use tar::Header;

/// Header and padding unit.
pub(super) const BLOCK: usize = 512;

/// Whether a block carries its own checksum, as every header does.
pub(super) fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    let Ok(told) = header.cksum() else { return false };
    let (before, rest) = block.split_at(148);
    let after = rest.get(8..).unwrap_or_default();
    let sum = |sign: fn(u8) -> i64| before.iter().chain(after).map(|byte| sign(*byte)).sum::<i64>() + 8 * 32;
    // Some old tars summed signed characters; GNU tar still takes both.
    let told = i64::from(told);
    sum(i64::from) == told || sum(|byte| i64::from(byte.cast_signed())) == told
}

/// A number: octal digits between blanks, or base-256 when the first bit is set.
///
/// # Errors
/// Neither, or it does not fit.
pub(super) fn number(field: &[u8]) -> anyhow::Result<i64> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => {
            // Two's complement over the whole field, less the first bit, which is the mark.
            let start = if first & 0x40 != 0 { i128::from(first | 0x80) - 256 } else { i128::from(first & 0x3f) };
            let mut value = start;
            for byte in rest {
                value = value * 256 + i128::from(*byte);
                ensure!(value.unsigned_abs() < 1 << 64, "a base-256 number is too large");
            }
            i64::try_from(value).map_err(|_| anyhow::anyhow!("a base-256 number is too large"))
        }
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> anyhow::Result<i64> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let digits = field.get(..end).unwrap_or_default().trim_ascii();
    let mut value = 0i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            bail!("\"{}\" is not an octal number", digits.escape_ascii());
        }
        value = value * 8 + i64::from(digit - b'0');
        ensure!(value < 1 << 60, "an octal number is too large");
    }
    Ok(value)
}

/// A number that counts something.
///
/// # Errors
/// It is negative, or no number.
pub(super) fn count(field: &[u8]) -> anyhow::Result<u64> {
    let value = number(field)?;
    u64::try_from(value).map_err(|_| anyhow::anyhow!("{value} is negative"))
}

/// The text before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    // F45
    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]).unwrap(), (2 << 32) + 1);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xd6").unwrap(), -42);
        assert!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(number(&[0xbf; 12]).is_err());
        assert!(number(b"0000888\0").is_err());
        assert!(number(b"-1\0").is_err());
        assert!(count(&[0xff; 12]).is_err());
        assert!(number(&[b'7'; 30]).is_err());
    }

    // F46
    #[test]
    fn checksums() {
        let mut header = Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert!(checksum_holds(header.as_bytes()));
        header.as_mut_bytes()[0] ^= 1;
        assert!(!checksum_holds(header.as_bytes()));
        assert!(!checksum_holds(&[0; BLOCK]));
    }
}
