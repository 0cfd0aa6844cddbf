//! What fetching an image cost, for the record.

use serde::Serialize;

/// The most kinds of failure that are kept.
const REASONS: usize = 16;
/// The longest reason.
const LONGEST: usize = 300;

/// What a transfer cost, whether it succeeded or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Bytes received of the image.
    pub bytes: u64,
    /// How often a request was made again or the transfer begun again.
    pub retries: u32,
    /// How often it went on at another mirror because that promised to be faster.
    pub switches: u32,
    /// What each mirror gave.
    pub mirrors: Vec<Share>,
    /// Why it was tried again: the first kinds of failure, each with the number of times.
    pub reasons: Vec<Reason>,
}

/// What one mirror gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Its URL in `rootstream.image=`.
    pub url: String,
    /// Requests made.
    pub requests: u32,
    /// Requests that failed or broke.
    pub failures: u32,
    /// Bytes of answers, also of those that were of no use.
    pub bytes: u64,
    /// Bytes per second when it was last measured.
    pub rate: Option<u64>,
}

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The URL that was asked.
    pub url: String,
    /// What went wrong.
    pub why: String,
    /// How often.
    pub count: u32,
}

impl Tally {
    /// Adds what another transfer cost.
    pub(super) fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.retries = self.retries.saturating_add(other.retries);
        self.switches = self.switches.saturating_add(other.switches);
        self.mirrors.extend(other.mirrors);
        self.reasons.extend(other.reasons);
        self.reasons.truncate(REASONS);
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self, url: &str, why: &str) {
        self.retries = self.retries.saturating_add(1);
        if let Some(known) = self.reasons.iter_mut().find(|reason| reason.url == url && reason.why == why) {
            known.count = known.count.saturating_add(1);
        } else if self.reasons.len() < REASONS {
            let end = (0..=LONGEST).rev().find(|end| why.is_char_boundary(*end)).unwrap_or_default();
            let why = why.get(..end).unwrap_or(why).to_owned();
            self.reasons.push(Reason { url: url.to_owned(), why, count: 1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_bounded() {
        let mut tally = Tally::default();
        for index in 0..100 {
            tally.failed("http://m", "refused");
            tally.failed("http://m", &format!("{index} {}", "é".repeat(10_000)));
        }
        assert_eq!((tally.retries, tally.reasons.len()), (200, REASONS));
        assert_eq!((tally.reasons[0].count, tally.reasons[0].why.as_str()), (100, "refused"));
        assert!(tally.reasons.iter().all(|reason| reason.why.len() <= LONGEST));
    }
}
