//! Power-ons one after the other: a rack that is switched on at once trips its breaker.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two power-ons. What flows into a power supply's empty capacitors is several times what the node takes later,
/// for some tens of milliseconds, and its fans run at full speed for some seconds: two a second leave the first
/// to one node at a time and the second to a handful. A thousand nodes are on after 500 s.
pub(super) const BETWEEN: Duration = Duration::from_millis(500);

/// Whose turn it is to be switched on; shared by all that switch.
#[derive(Debug)]
pub(super) struct Turns {
    between: Duration,
    /// Before this nobody else may.
    next: Mutex<Option<Instant>>,
}

impl Turns {
    /// Turns with this much time between them.
    pub(super) fn new(between: Duration) -> Self {
        Self { between, next: Mutex::new(None) }
    }

    /// Waits for a turn.
    pub(super) fn wait(&self) {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = turn(*next, Instant::now());
            *next = Some(turn + self.between);
            turn
        };
        thread::sleep(turn.saturating_duration_since(Instant::now()));
    }
}

/// When someone who asks `now` may switch on, where nobody may before `next`.
fn turn(next: Option<Instant>, now: Instant) -> Instant {
    next.map_or(now, |next| next.max(now))
}

/// How long the last of `nodes` waits when all ask at once.
pub(super) fn last_of(nodes: usize, between: Duration) -> Duration {
    between.saturating_mul(u32::try_from(nodes.saturating_sub(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    // M17
    #[test]
    fn a_thousand_power_ons_are_never_closer_than_told() {
        let start = Instant::now();
        let (mut next, mut turns) = (None, Vec::new());
        for node in 0..1000_u64 {
            // They ask in bursts of 32, as BMCs answer, and once nobody asks for a while.
            let pause = if node < 500 { 0 } else { 400_000 };
            let now = start + Duration::from_millis(node / 32 * 700 + pause);
            let at = turn(next, now);
            assert!(at >= now);
            next = Some(at + BETWEEN);
            turns.push(at);
        }
        assert!(turns.windows(2).all(|pair| pair[1] - pair[0] >= BETWEEN));
        let in_a_second =
            |from: Instant| turns.iter().filter(|at| (from..from + Duration::from_secs(1)).contains(*at)).count();
        assert!(turns.iter().all(|from| in_a_second(*from) <= 2));
        // No time is given away while someone waits.
        let first = turns.iter().take(500).copied().collect::<Vec<_>>();
        assert!(first.windows(2).all(|pair| pair[1] - pair[0] == BETWEEN));
        assert_eq!(last_of(1000, BETWEEN), Duration::from_millis(499_500));
        assert_eq!(last_of(0, BETWEEN), Duration::ZERO);
    }

    #[test]
    fn threads_take_turns() {
        let turns = Turns::new(Duration::from_millis(20));
        let start = Instant::now();
        let mut taken: Vec<Duration> = thread::scope(|scope| {
            let threads: Vec<_> = (0..5)
                .map(|_| {
                    scope.spawn(|| {
                        turns.wait();
                        start.elapsed()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        taken.sort();
        for (number, at) in taken.iter().enumerate() {
            assert!(*at >= last_of(number + 1, Duration::from_millis(20)), "{taken:?}");
        }
    }
}
