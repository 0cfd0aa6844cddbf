//! What the commands say beside their results: lines on stderr.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::say;

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Other crates' details are not the administrator's.
        metadata.target().starts_with("rootstream") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            Level::Error => say::note(format_args!("rootstream: error: {}", record.args())),
            Level::Warn => say::note(format_args!("rootstream: warning: {}", record.args())),
            _ => say::note(format_args!("rootstream: {}", record.args())),
        }
    }

    fn flush(&self) {}
}

/// Starts logging; `verbose` shows details too.
pub(crate) fn start(verbose: bool) {
    // A second start, in one process, changes nothing.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(if verbose { LevelFilter::Debug } else { LevelFilter::Info });
}
