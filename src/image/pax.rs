//! PAX extended headers (POSIX.1-2017 pax, "Extended Header"), with the keywords of GNU tar, star
//! and libarchive. No I/O.

use anyhow::{Context as _, bail, ensure};

/// A point in time: seconds since 1970 and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after them.
    pub nanoseconds: u32,
}

/// One record, `KEY=VALUE`.
pub(super) type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits an extended header into records. Values may hold any byte, newlines too.
///
/// # Errors
/// A record's length does not fit, or it has no `=` or no newline.
pub(super) fn records(mut bytes: &[u8]) -> anyhow::Result<Vec<Record<'_>>> {
    let mut records = Vec::new();
    // Some writers pad with NULs inside the stated size.
    while bytes.first().is_some_and(|byte| *byte != 0) {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ').context("a record without a length")?;
        let length = decimal(bytes.get(..space).unwrap_or_default())?;
        let length = usize::try_from(length)?;
        let record = bytes.get(space + 1..length).context("a record's length is wrong")?;
        let (newline, record) = record.split_last().context("an empty record")?;
        ensure!(*newline == b'\n', "a record does not end in a newline");
        let equals = record.iter().position(|byte| *byte == b'=').context("a record without =")?;
        let (key, value) = record.split_at(equals);
        records.push((key, value.get(1..).unwrap_or_default()));
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(records)
}

/// An unsigned decimal number.
///
/// # Errors
/// It is none, or too large.
pub(super) fn decimal(text: &[u8]) -> anyhow::Result<u64> {
    ensure!(!text.is_empty() && text.iter().all(u8::is_ascii_digit), "\"{}\" is not a number", text.escape_ascii());
    Ok(std::str::from_utf8(text)?.parse()?)
}

/// A time such as `1700000000.123456789` or `-1.5`.
///
/// # Errors
/// It is none, or too large.
pub(super) fn time(text: &[u8]) -> anyhow::Result<Time> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(decimal(parts.next().unwrap_or_default())?)?;
    let fraction = parts.next().unwrap_or_default();
    let mut nanoseconds = 0;
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        ensure!(digit.is_ascii_digit(), "\"{}\" is not a time", text.escape_ascii());
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds },
        (true, _) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// The extended attribute that a record carries: name and value.
///
/// # Errors
/// It carries one that cannot be read.
pub(super) fn xattr(key: &[u8], value: &[u8]) -> anyhow::Result<Option<(Vec<u8>, Vec<u8>)>> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        return Ok(Some((name.to_vec(), value.to_vec())));
    }
    if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
        return Ok(Some((percent_decoded(name)?, base64(value)?)));
    }
    Ok(match key {
        b"RHT.security.selinux" => {
            let mut context = value.to_vec();
            // The kernel's own labels end in NUL; the record's do not.
            if context.last() != Some(&0) {
                context.push(0);
            }
            Some((b"security.selinux".to_vec(), context))
        }
        b"SCHILY.acl.access" => Some((b"system.posix_acl_access".to_vec(), super::acl::encode(value)?)),
        b"SCHILY.acl.default" => Some((b"system.posix_acl_default".to_vec(), super::acl::encode(value)?)),
        _ => None,
    })
}

fn percent_decoded(name: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let hex = after.first_chunk::<2>().context("a name ends in %")?;
            decoded.push(u8::from_str_radix(std::str::from_utf8(hex)?, 16)?);
            rest = after.get(2..).unwrap_or_default();
        } else {
            decoded.push(*byte);
        }
    }
    Ok(decoded)
}

fn base64(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.iter().filter(|byte| !matches!(byte, b'=' | b'\n')) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("\"{}\" is not base64", text.escape_ascii()),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push((bits >> held & 0xff) as u8);
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_newlines() {
        let header = b"11 path=ab\n27 SCHILY.xattr.user.x=a\nb\n\0\0";
        let expected: [Record<'_>; 2] = [(b"path", b"ab"), (b"SCHILY.xattr.user.x", b"a\nb")];
        assert_eq!(records(header).unwrap(), expected);
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [
            &b"path=ab\n"[..],
            b"99 path=ab\n",
            b"11 path=abX",
            b"9 pathab\n",
            b"2 \n",
            b"0 a=b\n",
            b"99999999999999999999 a=b\n",
            b" a=b\n",
        ] {
            assert!(records(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times_have_nanoseconds_on_both_sides_of_1970() {
        let at = |seconds, nanoseconds| Time { seconds, nanoseconds };
        assert_eq!(time(b"1700000000.5").unwrap(), at(1_700_000_000, 500_000_000));
        assert_eq!(time(b"7.1234567899").unwrap(), at(7, 123_456_789));
        assert_eq!(time(b"-1.25").unwrap(), at(-2, 750_000_000));
        assert_eq!(time(b"-3").unwrap(), at(-3, 0));
        assert!(time(b"now").is_err());
        assert!(time(b"1.x").is_err());
    }

    // F51
    #[test]
    fn xattrs_of_three_writers() {
        let some = |name: &[u8], value: &[u8]| Some((name.to_vec(), value.to_vec()));
        assert_eq!(xattr(b"SCHILY.xattr.user.a", b"\0\n").unwrap(), some(b"user.a", b"\0\n"));
        assert_eq!(xattr(b"LIBARCHIVE.xattr.user.a%20b", b"aGVsbG8").unwrap(), some(b"user.a b", b"hello"));
        assert_eq!(xattr(b"RHT.security.selinux", b"u:r").unwrap(), some(b"security.selinux", b"u:r\0"));
        assert_eq!(xattr(b"comment", b"hi").unwrap(), None);
        assert!(xattr(b"LIBARCHIVE.xattr.user.a%2", b"").is_err());
        assert!(xattr(b"LIBARCHIVE.xattr.user.a", b"!").is_err());
    }
}
