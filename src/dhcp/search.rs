//! The domain search list (option 119): names as DNS writes them, with pointers into the same option (RFC 3397).
//!
//! Contract: [`parse`] ends on any bytes, as a pointer may lead to what came before it and nowhere else.

/// As many domains as anybody could mean; libc takes six.
const MOST: usize = 32;
/// The longest name, with dots (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;

/// The names in the joined bytes of the option. The second part is true when the bytes could not be read to their end.
pub(crate) fn parse(bytes: &[u8]) -> (Vec<String>, bool) {
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((name, next)) = name(bytes, at).filter(|_| names.len() < MOST) else { return (names, true) };
        // The root alone is what some servers fill up with.
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
        at = next;
    }
    (names, false)
}

/// The name that begins at `start`, and where the one after it does.
fn name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = start;
    // Every pointer leads further to the front than the one before, so there is no loop.
    let mut lowest = start;
    let mut next = None;
    loop {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some((name, next.unwrap_or(at + 1))),
            1..=63 => {
                let end = at + 1 + usize::from(length);
                let label = std::str::from_utf8(bytes.get(at + 1..end)?).ok()?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(label);
                if name.len() > LONGEST {
                    return None;
                }
                at = end;
            }
            0xc0..=0xff => {
                let target = usize::from(u16::from_be_bytes([length & 0x3f, *bytes.get(at + 1)?]));
                if target >= lowest {
                    return None;
                }
                next.get_or_insert(at + 2);
                lowest = target;
                at = target;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_read() {
        // RFC 3397 section 2: eng.apple.com and marketing.apple.com, the second by a pointer to offset 4.
        let bytes = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        assert_eq!(parse(bytes), (vec!["eng.apple.com".to_owned(), "marketing.apple.com".to_owned()], false));
        assert_eq!(parse(b"\x01a\x00\x00\x00"), (vec!["a".to_owned()], false));
        assert_eq!(parse(b"\x01a\x00\x01a\x00"), (vec!["a".to_owned()], false));
        assert_eq!(parse(b""), (Vec::new(), false));
    }

    // F7
    #[test]
    fn loops_and_what_is_cut_short_end_the_list() {
        let one = vec!["a".to_owned()];
        for (what, rest) in [
            ("a pointer to itself", &b"\xc0\x03"[..]),
            ("a pointer ahead", b"\xc0\x05\x01b\x00"),
            ("two pointers at each other", b"\x01b\xc0\x07\x01c\xc0\x03"),
            ("a label cut short", b"\x05abc"),
            ("a name without an end", b"\x01b"),
            ("half a pointer", b"\xc0"),
            ("a label of an unknown kind", b"\x40\x00"),
            ("no text", b"\x01\xff\x00"),
        ] {
            let bytes = [b"\x01a\x00", rest].concat();
            assert_eq!(parse(&bytes), (one.clone(), true), "{what}");
        }
        // A chain of pointers may make a name long, but not longer than names are.
        let long = [&b"\x3f"[..], &[b'x'; 63]].concat().repeat(4);
        assert_eq!(parse(&[&long[..], b"\x00"].concat()), (Vec::new(), true));
        let many: Vec<u8> = (0..200_u8).flat_map(|number| [2, b'a' + number / 16, b'a' + number % 16, 0]).collect();
        assert_eq!(parse(&many).0.len(), MOST);
    }
}
