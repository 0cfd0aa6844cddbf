//! Random numbers for jitter and transaction ids; nothing secret.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// 64 random bits. The hasher's keys come from the kernel without waiting for its entropy, which early
/// in a boot can take a second.
pub fn bits() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u128(Instant::now().elapsed().as_nanos());
    hasher.finish()
}

/// A random time from nothing to `limit`, to the millisecond.
pub fn up_to(limit: Duration) -> Duration {
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(bits().checked_rem(milliseconds.saturating_add(1)).unwrap_or_default())
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
