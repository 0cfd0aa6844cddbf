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
