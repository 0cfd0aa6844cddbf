//! The Range header, brought into the one form that everybody reads the same way (RFC 9110, 14.2).

use hyper::HeaderMap;
use hyper::header::{HeaderValue, RANGE};

/// Rewrites the request's Range for a file of `length` bytes: one satisfiable range stays, in
/// plain form; one that cannot be satisfied will be answered 416; anything else, such as several
/// ranges or nonsense, is ignored as the RFC allows, and the whole file is sent.
pub(super) fn normalise(headers: &mut HeaderMap, length: u64) {
    let Some(range) = headers.remove(RANGE) else { return };
    if let Some(plain) = range.to_str().ok().and_then(|text| plain(text, length))
        && let Ok(value) = HeaderValue::from_str(&plain)
    {
        headers.insert(RANGE, value);
    }
}

fn plain(text: &str, length: u64) -> Option<String> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let unsatisfiable = || format!("bytes={length}-");
    match (first, last) {
        ("", suffix) => {
            let wanted = number(suffix)?;
            let from = length.saturating_sub(wanted);
            Some(if wanted == 0 { unsatisfiable() } else { format!("bytes={from}-") })
        }
        (first, "") => number(first).map(|first| format!("bytes={}-", first.min(length))),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                None
            } else if first >= length {
                Some(unsatisfiable())
            } else {
                Some(format!("bytes={first}-{}", last.min(length - 1)))
            }
        }
    }
}

/// Digits only; more than fit are as good as the largest number.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    // M8-10
    #[test]
    fn odd_ranges_have_one_reading() {
        for (asked, expected) in [
            ("bytes=0-0", Some("bytes=0-0")),
            ("bytes=5-", Some("bytes=5-")),
            ("Bytes=5-7", Some("bytes=5-7")),
            ("bytes=5-99", Some("bytes=5-9")),
            ("bytes=0-18446744073709551615", Some("bytes=0-9")),
            ("bytes=0-99999999999999999999999", Some("bytes=0-9")),
            ("bytes=-3", Some("bytes=7-")),
            ("bytes=-99", Some("bytes=0-")),
            ("bytes=-0", Some("bytes=10-")),
            ("bytes=10-", Some("bytes=10-")),
            ("bytes=99999999999999999999999-", Some("bytes=10-")),
            ("bytes=7-5", None),
            ("bytes=0-1,5-6", None),
            ("bytes=+1-2", None),
            ("bytes=-", None),
            ("bytes", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(plain(asked, 10).as_deref(), expected, "{asked}");
        }
    }
}
