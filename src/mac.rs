//! MAC addresses as people write them.

use std::fmt;

/// A MAC, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Reads `52:54:00:ac:10:01` or `52-54-00-ac-10-01`, in either case.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let pairs = text.trim().split([':', '-']).map(|pair| match pair.len() {
        2 => u8::from_str_radix(pair, 16).ok(),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}
