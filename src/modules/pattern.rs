//! Patterns as modules.alias has them: `*`, `?` and `[…]`, as in fnmatch(3) without flags, and `-` is `_` as in all
//! names of modules.

/// Whether the whole of `text` is what `pattern` describes.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut here) = (0, 0);
    // Where the last `*` stands, and how much of the text it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let rest = pattern.get(at..).unwrap_or_default();
        match (rest.split_first(), text.get(here)) {
            (Some((b'*', _)), _) => {
                star = Some((at, here));
                at += 1;
                continue;
            }
            (None, None) => return true,
            (Some(_), Some(byte)) => {
                if let Some(length) = one(rest, *byte) {
                    at += length;
                    here += 1;
                    continue;
                }
            }
            _ => {}
        }
        match star {
            Some((after, taken)) if taken < text.len() => {
                star = Some((after, taken + 1));
                at = after + 1;
                here = taken + 1;
            }
            _ => return false,
        }
    }
}

/// How many bytes of the pattern describe this one byte of the text, if they do.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.split_first()? {
        (b'?', _) => Some(1),
        (b'[', rest) => {
            // Without its end a bracket is a character like any other.
            match bracket(rest, byte) {
                Some((length, true)) => Some(length + 1),
                Some((_, false)) => None,
                None => (byte == b'[').then_some(1),
            }
        }
        (wanted, _) => (plain(*wanted) == plain(byte)).then_some(1),
    }
}

fn plain(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

/// What stands after `[`: its length up to and with `]`, and whether the byte is one of those it lists.
fn bracket(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let listed = pattern.get(start..)?;
    // A `]` that comes first is one of the listed.
    let end = listed.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let mut listed = listed.get(..end)?;
    let mut found = false;
    while let Some((first, rest)) = listed.split_first() {
        listed = rest;
        match rest {
            [b'-', last, rest @ ..] => {
                found |= (*first..=*last).contains(&byte);
                listed = rest;
            }
            _ => found |= *first == byte,
        }
    }
    Some((start + end + 1, found != negated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_modules_alias() {
        let e1000e = "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00";
        for (pattern, text, expected) in [
            ("pci:v00008086d000010D3sv*sd*bc*sc*i*", e1000e, true),
            ("pci:v00008086d000010D4sv*sd*bc*sc*i*", e1000e, false),
            ("pci:v*d*sv*sd*bc02sc00i*", e1000e, true),
            ("pci:v00008086d000010D3", e1000e, false),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("usb:v0BDAp815[2-3]d*dc*", "usb:v0BDAp8153d3000dc00", true),
            ("usb:v0BDAp815[2-3]d*dc*", "usb:v0BDAp8154d3000dc00", false),
            ("a[!b]c", "axc", true),
            ("a[^b]c", "abc", false),
            ("a[]b]c", "a]c", true),
            ("a[b", "a[b", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("fs-squashfs", "fs_squashfs", true),
            ("mdio:0000000000100000010101010011????", "mdio:00000000001000000101010100110001", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_end() {
        assert!(!matches("*a*a*a*a*a*a*b", &"a".repeat(2000)));
    }
}
