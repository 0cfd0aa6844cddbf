//! Console output as plain text.

/// `bytes` without terminal escape sequences and other control characters; what is not UTF-8 is replaced.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut kept = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' if characters.peek() == Some(&'[') => {
                characters.next();
                // ECMA-48: parameters, then one final byte from @ to ~.
                while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\x1b' => drop(characters.next()),
            '\t' => kept.push('\t'),
            c if c.is_control() => {}
            c => kept.push(c),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn escapes_and_controls_vanish() {
        assert_eq!(plain(b"\x1b[2J\x1b[01;01HSeaBIOS\r"), "SeaBIOS");
        assert_eq!(plain(b"[\x1b[0;32m  OK  \x1b[0m] up\x1b"), "[  OK  ] up");
        assert_eq!(plain(b"\x1bcn1 login: \xff"), "n1 login: \u{fffd}");
        assert_eq!(plain(b"cut \x1b["), "cut ");
    }
}
