//! How long to go on with a fetch that fails: no I/O, no clock, no random numbers.

use std::time::Duration;

/// The longest pause between two tries.
const CAP: Duration = Duration::from_secs(30);
/// The longest pause that a server's Retry-After is believed.
const QUEUE_CAP: Duration = Duration::from_secs(300);
/// How many times as long as on faults is waited where a server says when to come back: a queue that moves is none.
pub(super) const QUEUES: u32 = 10;
/// A try that brought this much was not in vain: the next pause is short again.
pub(super) const WORTHWHILE: u64 = 1 << 20;

/// What a failed try asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// A fault that may pass soon.
    Backoff,
    /// The server answered, and the answer will not change soon (404).
    Slow,
    /// The server said when to come back.
    Queued(Duration),
}

/// The budget of `rootstream.retry=`. Only time that brought nothing is charged, so that a slow
/// but steady download may take as long as it likes. Time in a queue has a larger budget of its own.
#[derive(Debug)]
pub(super) struct Patience {
    budget: Duration,
    spent: Duration,
    queued: Duration,
}

impl Patience {
    pub(super) fn new(budget: Duration) -> Self {
        Self { budget, spent: Duration::ZERO, queued: Duration::ZERO }
    }

    /// Charges time that brought nothing; `queued`: a server had said when to come back.
    pub(super) fn charge(&mut self, time: Duration, queued: bool) {
        let spent = if queued { &mut self.queued } else { &mut self.spent };
        *spent = spent.saturating_add(time);
    }

    /// Time charged so far, but for queues.
    pub(super) fn spent(&self) -> Duration {
        self.spent
    }

    /// The pause before this mirror's next try, or `None` when the budget for its kind is spent. `vain` is how often it
    /// failed since it last brought something [`WORTHWHILE`], `random` any number.
    pub(super) fn pause(&self, pause: Pause, vain: u32, random: u64) -> Option<Duration> {
        let left = match pause {
            Pause::Queued(_) => self.budget.saturating_mul(QUEUES).saturating_sub(self.queued),
            Pause::Backoff | Pause::Slow => self.budget.saturating_sub(self.spent),
        };
        if left.is_zero() {
            return None;
        }
        let step = 1u32.checked_shl(vain.saturating_sub(1)).unwrap_or(u32::MAX);
        let wanted = match pause {
            // Full jitter: a thousand nodes cut off at once must not come back at once.
            Pause::Backoff => fraction(Duration::from_millis(500).saturating_mul(step).min(CAP), random),
            Pause::Slow => {
                let half = Duration::from_secs(5).saturating_mul(step).min(CAP) / 2;
                half + fraction(half, random)
            }
            Pause::Queued(time) => time.clamp(Duration::from_secs(1), QUEUE_CAP),
        };
        // The last try happens when the budget ends, not before.
        Some(wanted.min(left))
    }
}

fn fraction(of: Duration, random: u64) -> Duration {
    let millis = u64::try_from(of.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random % millis.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    // F18-20
    #[test]
    fn pauses_grow_to_the_cap_with_full_jitter() {
        let patience = Patience::new(HOUR);
        let longest: Vec<u128> = [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
            .into_iter()
            .zip(1..)
            .map(|(longest, vain)| patience.pause(Pause::Backoff, vain, longest).unwrap().as_millis())
            .collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(patience.pause(Pause::Backoff, 9, 0), Some(Duration::ZERO));
        for vain in 0..100 {
            assert!(patience.pause(Pause::Backoff, vain, u64::MAX).unwrap() <= CAP);
        }
        assert_eq!(patience.pause(Pause::Backoff, 0, 500), Some(Duration::from_millis(500)), "short after progress");
    }

    // F22
    #[test]
    fn a_queue_is_believed_within_limits() {
        let patience = Patience::new(HOUR);
        let ask = |seconds| patience.pause(Pause::Queued(Duration::from_secs(seconds)), 1, 9);
        assert_eq!(ask(20), Some(Duration::from_secs(20)));
        assert_eq!(ask(0), Some(Duration::from_secs(1)));
        assert_eq!(ask(1 << 40), Some(QUEUE_CAP));
    }

    #[test]
    fn the_budget_ends_it() {
        let mut patience = Patience::new(Duration::from_secs(10));
        patience.charge(Duration::from_secs(9), false);
        assert_eq!(patience.pause(Pause::Slow, 9, u64::MAX - 15_000), Some(Duration::from_secs(1)));
        patience.charge(Duration::from_secs(1), false);
        assert_eq!(patience.pause(Pause::Backoff, 1, 0), None);
    }

    // F22
    #[test]
    fn a_queue_has_a_larger_budget_of_its_own() {
        let mut patience = Patience::new(Duration::from_secs(10));
        let queue = Pause::Queued(Duration::from_secs(60));
        patience.charge(Duration::from_secs(60), true);
        assert_eq!(patience.pause(Pause::Backoff, 1, 500), Some(Duration::from_millis(500)), "not a fault");
        assert_eq!(patience.pause(queue, 2, 0), Some(Duration::from_secs(40)));
        patience.charge(Duration::from_secs(10), false);
        assert_eq!(patience.pause(queue, 3, 0), Some(Duration::from_secs(40)));
        patience.charge(Duration::from_secs(40), true);
        assert_eq!(patience.pause(queue, 4, 0), None);
    }
}
