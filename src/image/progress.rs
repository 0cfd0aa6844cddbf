//! What an administrator sees while the image streams: one line every few seconds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::say;

/// A line at least this often, with a second to spare against the promised five.
const EVERY: Duration = Duration::from_secs(4);
/// Lines over which the time that is left is reckoned.
const LINES: usize = 4;

/// What the fetching thread is at.
#[derive(Clone, Debug, Default)]
pub(super) enum Doing {
    /// Bytes come, or should.
    #[default]
    Receiving,
    /// It asked, and has no answer yet.
    Asking,
    /// It waits for the next try.
    Waiting {
        /// What for.
        why: String,
        /// A server said when to come back.
        queued: bool,
        /// When it ends.
        until: Instant,
    },
}

impl Doing {
    /// What there is to say about it.
    fn text(&self, now: Instant) -> Option<String> {
        match self {
            Self::Receiving => None,
            Self::Asking => Some("no answer yet".to_owned()),
            Self::Waiting { why, queued, until } => {
                let seconds = until.saturating_duration_since(now).as_secs_f64().ceil();
                let next = if *queued { "queued," } else { "next try in" };
                Some(format!("{why}, {next} {seconds} s"))
            }
        }
    }
}

/// What is shown beside the counters.
#[derive(Clone, Debug, Default)]
struct State {
    doing: Doing,
    /// The server, where there is a choice of them.
    from: Option<String>,
    retries: u32,
}

/// Counters that the fetching thread keeps.
#[derive(Debug, Default)]
pub(super) struct Progress {
    received: AtomicU64,
    /// 0: not known.
    total: AtomicU64,
    /// Microseconds that it waited for the other threads to take what was received.
    held_up: AtomicU64,
    state: Mutex<State>,
    over: Mutex<bool>,
    changed: Condvar,
}

impl Progress {
    /// Counts bytes passed on to the decoder.
    pub(super) fn received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    /// The length of the file, once it is known.
    pub(super) fn total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// The length of the file, 0 while it is not known.
    pub(super) fn known_total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts time that went by because decoding or writing is slower than the network.
    pub(super) fn held_up(&self, time: Duration) {
        self.held_up.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What the fetching thread is at.
    pub(super) fn doing(&self, doing: Doing) {
        self.state().doing = doing;
    }

    /// Which server is asked now, where there is a choice, and how many tries failed before.
    pub(super) fn from(&self, server: Option<String>, retries: u32) {
        *self.state() = State { doing: Doing::Asking, from: server, retries };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends [`Progress::show`].
    pub(super) fn end(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Calls `each` every few seconds until [`Progress::end`].
    fn every(&self, mut each: impl FnMut(Instant)) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            let (guard, timeout) = self.changed.wait_timeout(over, EVERY).unwrap_or_else(PoisonError::into_inner);
            over = guard;
            if timeout.timed_out() {
                each(Instant::now());
            }
        }
    }

    /// Logs a line every few seconds until [`Progress::end`], about a file of which nothing but the wait for it takes
    /// long.
    pub(super) fn show_waits(&self) {
        self.every(|now| {
            let State { doing, from, .. } = self.state().clone();
            let waiting = doing.text(now).unwrap_or_else(|| "no more bytes yet".to_owned());
            say::info!("image: {}: {waiting}", from.unwrap_or_default());
        });
    }

    /// Logs a line every few seconds until [`Progress::end`].
    pub(super) fn show(&self) {
        let mut lines = VecDeque::from([(Instant::now(), 0)]);
        let (mut before, mut then, mut held_before) = (0, Instant::now(), 0);
        self.every(|now| {
            let received = self.received.load(Ordering::Relaxed);
            let held_up = self.held_up.load(Ordering::Relaxed);
            let (first, first_received) = lines.front().copied().unwrap_or((now, received));
            let line = Line {
                received,
                total: self.total.load(Ordering::Relaxed),
                rate: per_second(received.saturating_sub(before), now - then),
                lately: per_second(received.saturating_sub(first_received), now - first),
                held_up: Duration::from_micros(held_up - held_before) * 2 > now - then,
            };
            say::info!("{}", line.text(&self.state().clone(), now));
            lines.push_back((now, received));
            if lines.len() > LINES {
                lines.pop_front();
            }
            (before, then, held_before) = (received, now, held_up);
        });
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / millis
}

/// Bytes as MB with one decimal.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// The numbers of one line.
struct Line {
    received: u64,
    total: u64,
    /// Bytes per second since the last line.
    rate: u64,
    /// The same over the last few lines.
    lately: u64,
    /// Most of the time went into waiting for the decoder and the writers.
    held_up: bool,
}

impl Line {
    fn text(&self, state: &State, now: Instant) -> String {
        let &Self { received, total, rate, lately, held_up } = self;
        let mut line = if total > 0 {
            let percent = u128::from(received) * 100 / u128::from(total);
            format!("image: {percent}%, {} of {} MB", megabytes(received), megabytes(total))
        } else {
            format!("image: {} MB", megabytes(received))
        };
        line += &format!(", {} MB/s", megabytes(rate));
        if total > received && lately > 0 {
            let left = (total - received) / lately;
            line += &format!(", {}:{:02} left", left / 60, left % 60);
        }
        if let Some(from) = &state.from {
            line += &format!(", from {from}");
        }
        match state.retries {
            0 => {}
            1 => line += ", 1 retry",
            retries => line += &format!(", {retries} retries"),
        }
        match state.doing.text(now) {
            Some(doing) => line += &format!("; {doing}"),
            None if held_up => line += "; unpacking is slower than the network",
            None => {}
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { received: 0, total: 0, rate: 0, lately: 0, held_up: false };

    #[test]
    fn a_line_says_how_far_and_how_long() {
        let now = Instant::now();
        let mut state = State::default();
        let line = Line { received: 50_000_000, total: 200_000_000, rate: 12_340_000, lately: 2_000_000, ..LINE };
        assert_eq!(line.text(&state, now), "image: 25%, 50.0 of 200.0 MB, 12.3 MB/s, 1:15 left");
        state = State { from: Some("m2:8080".to_owned()), retries: 1, ..state };
        assert_eq!(line.text(&state, now), "image: 25%, 50.0 of 200.0 MB, 12.3 MB/s, 1:15 left, from m2:8080, 1 retry");
        state = State { from: None, retries: 12, ..state };
        let line = Line { received: 1_550_000, rate: 9, lately: 9, held_up: true, ..LINE };
        assert_eq!(line.text(&state, now), "image: 1.5 MB, 0.0 MB/s, 12 retries; unpacking is slower than the network");
        state.doing = Doing::Asking;
        assert_eq!(line.text(&state, now), "image: 1.5 MB, 0.0 MB/s, 12 retries; no answer yet");
    }

    // F22
    #[test]
    fn a_wait_counts_down() {
        let now = Instant::now();
        let waiting = |why: &str, queued| State {
            doing: Doing::Waiting { why: why.to_owned(), queued, until: now + Duration::from_secs(20) },
            ..State::default()
        };
        let after = |seconds: u64| now + Duration::from_millis(seconds * 1000 + 1);
        let state = waiting("the server answered 503", true);
        assert_eq!(LINE.text(&state, after(0)), "image: 0.0 MB, 0.0 MB/s; the server answered 503, queued, 20 s");
        assert_eq!(LINE.text(&state, after(4)), "image: 0.0 MB, 0.0 MB/s; the server answered 503, queued, 16 s");
        let state = waiting("refused", false);
        assert_eq!(LINE.text(&state, after(16)), "image: 0.0 MB, 0.0 MB/s; refused, next try in 4 s");
        assert_eq!(LINE.text(&state, after(30)), "image: 0.0 MB, 0.0 MB/s; refused, next try in 0 s");
    }
}
