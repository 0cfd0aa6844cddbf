//! Random numbers for jitter and transaction ids; nothing secret.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, SystemTime};

/// Numbers that differ between nodes, boots and calls. The standard library seeds itself without
/// waiting for the kernel's entropy, which takes a second early in a boot; `salt` and the clock tell
/// nodes apart where there was none.
pub fn bits(salt: impl Hash) -> u64 {
    RandomState::new().hash_one((salt, SystemTime::now()))
}

/// A random time from nothing to `limit`, to the millisecond.
pub fn up_to(limit: Duration) -> Duration {
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(bits("pause").checked_rem(milliseconds.saturating_add(1)).unwrap_or_default())
}

/// SplitMix64: enough to tell transactions apart and to spread retransmissions.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn bits(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap_or_default()
    }

    /// From 0 up to, not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(self.bits()) / f64::from(u32::MAX).next_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_the_limit_and_varies() {
        let limit = Duration::from_millis(10);
        let drawn: std::collections::BTreeSet<Duration> = (0..200).map(|_| up_to(limit)).collect();
        assert!(drawn.len() > 5 && drawn.iter().all(|time| *time <= limit), "{drawn:?}");
        assert_eq!(up_to(Duration::ZERO), Duration::ZERO);
    }
}
