//! What an administrator sees while the image streams: one line every few seconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A line at least this often, with a second to spare against the promised five.
const EVERY: Duration = Duration::from_secs(4);

/// Counters that the fetching thread keeps.
#[derive(Debug, Default)]
pub(super) struct Progress {
    received: AtomicU64,
    /// 0: not known.
    total: AtomicU64,
    note: Mutex<Option<String>>,
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

    /// What is being waited for, or nothing.
    pub(super) fn note(&self, note: Option<String>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }

    /// Ends [`Progress::show`].
    pub(super) fn end(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Logs a line every few seconds until [`Progress::end`].
    pub(super) fn show(&self) {
        let start = Instant::now();
        let (mut before, mut then) = (0, start);
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            let (guard, timeout) = self.changed.wait_timeout(over, EVERY).unwrap_or_else(PoisonError::into_inner);
            over = guard;
            if !timeout.timed_out() {
                continue;
            }
            let received = self.received.load(Ordering::Relaxed);
            let total = self.total.load(Ordering::Relaxed);
            let note = self.note.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let rate = per_second(received.saturating_sub(before), then.elapsed());
            let line = line(received, total, rate, per_second(received, start.elapsed()), note.as_deref());
            log::info!("{line}");
            (before, then) = (received, Instant::now());
        }
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

fn line(received: u64, total: u64, rate: u64, average: u64, note: Option<&str>) -> String {
    let mut line = if total > 0 {
        let percent = u128::from(received) * 100 / u128::from(total);
        format!("image: {percent}%, {} of {} MB", megabytes(received), megabytes(total))
    } else {
        format!("image: {} MB", megabytes(received))
    };
    line += &format!(", {} MB/s", megabytes(rate));
    if total > received && average > 0 {
        let left = (total - received) / average;
        line += &format!(", {}:{:02} left", left / 60, left % 60);
    }
    if let Some(note) = note {
        line += &format!("; {note}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_how_long() {
        assert_eq!(
            line(50_000_000, 200_000_000, 12_340_000, 2_000_000, None),
            "image: 25%, 50.0 of 200.0 MB, 12.3 MB/s, 1:15 left"
        );
        assert_eq!(line(1_550_000, 0, 0, 9, Some("queued, 20 s")), "image: 1.5 MB, 0.0 MB/s; queued, 20 s");
    }
}
