//! How fast a transfer is, as far as the network decides it. No I/O, no clock.

use std::time::Duration;

/// Time spent waiting for the network after which the first verdict is given.
const WINDOW: Duration = Duration::from_secs(3);
/// A transfer that ends this soon is not worth leaving.
const SOON: u64 = 15;

/// Measures one transfer from one mirror.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// `switches` is how often it went to another mirror before: each time it stays twice as long.
    pub(super) fn new(switches: u32) -> Self {
        Self { window: WINDOW * (1 << switches.min(6)), waited: Duration::ZERO, bytes: 0 }
    }

    /// Counts bytes that took `waited` to come; the rate in bytes per second when it is time for a verdict. Time in
    /// which nobody asked for bytes, because decoding is slow, is not the network's.
    pub(super) fn add(&mut self, bytes: u64, waited: Duration) -> Option<u64> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.window {
            return None;
        }
        let millis = u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = self.bytes.saturating_mul(1000) / millis;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Some(rate)
    }
}

/// Whether a transfer is worth speeding up: `left` bytes at this rate take long, or nobody knows how long.
pub(super) fn takes_long(left: Option<u64>, rate: u64) -> bool {
    left.is_none_or(|left| left / rate.max(1) >= SOON)
}

#[cfg(test)]
mod tests {
    use super::*;

    // F26
    #[test]
    fn only_time_on_the_network_counts_and_verdicts_come_rarer() {
        let mut pace = Pace::new(0);
        assert_eq!(pace.add(1_000_000, Duration::from_secs(2)), None);
        assert_eq!(pace.add(0, Duration::from_millis(999)), None);
        assert_eq!(pace.add(2_000_000, Duration::from_millis(1)), Some(1_000_000));
        assert_eq!(pace.add(1, Duration::from_secs(2)), None, "from the beginning");
        assert_eq!(Pace::new(2).add(12, Duration::from_secs(11)), None);
        assert_eq!(Pace::new(2).add(12, Duration::from_secs(12)), Some(1));
        assert_eq!(Pace::new(u32::MAX).add(0, Duration::from_secs(3 * 64)), Some(0));
    }

    #[test]
    fn what_ends_soon_is_not_left() {
        assert!(takes_long(None, 1 << 40));
        assert!(takes_long(Some(15_000), 1000) && !takes_long(Some(14_999), 1000));
        assert!(takes_long(Some(15), 0));
    }
}
