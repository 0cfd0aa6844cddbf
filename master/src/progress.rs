//! What long work shows: a bar or spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::say;

/// One piece of long work.
pub(crate) struct Progress {
    label: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work whose length is not known.
    pub(crate) fn spinner(label: impl Into<String>) -> Self {
        let progress = Self::start(label, || {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        progress.style("{spinner} {prefix}: {msg} ({elapsed})");
        progress
    }

    /// Work on this many bytes.
    pub(crate) fn bytes(label: impl Into<String>, total: u64) -> Self {
        let progress = Self::start(label, || ProgressBar::new(total));
        progress.style("{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        progress
    }

    fn start(label: impl Into<String>, bar: impl FnOnce() -> ProgressBar) -> Self {
        let label = label.into();
        let bar = std::io::stderr().is_terminal().then(bar);
        match &bar {
            Some(bar) => bar.set_prefix(label.clone()),
            None => say::note(format_args!("{label} ...")),
        }
        Self { label, started: Instant::now(), bar }
    }

    fn style(&self, template: &str) {
        if let (Some(bar), Ok(style)) = (&self.bar, ProgressStyle::with_template(template)) {
            bar.set_style(style);
        }
    }

    /// Says which step the work has come to.
    pub(crate) fn step(&self, step: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(step.to_owned()),
            None => say::note(format_args!("{}: {step}", self.label)),
        }
    }

    /// Says that this many bytes more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Ends with one line that stays.
    pub(crate) fn done(self, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say::note(format_args!("{}: {result} ({:.1} s)", self.label, self.started.elapsed().as_secs_f64()));
    }
}

/// Bytes for people: `66.2 MB`.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
