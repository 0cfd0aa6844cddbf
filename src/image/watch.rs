//! Reads an answer, and notices one that is as good as silent.

use std::io::Read;
use std::time::{Duration, Instant};

use super::mirrors::Fault;
use super::retry::Pause;

/// Bytes a second: slower than this over the stall time is as good as silent.
const MINIMUM_RATE: u64 = 1024;

/// Reads, and notices a body that trickles. Only time spent waiting for the network counts.
#[derive(Debug)]
pub(super) struct Watch {
    stall: Duration,
    waited: Duration,
    bytes: u64,
    took: Duration,
}

impl Watch {
    /// Of one answer, which may trickle for `stall`.
    pub(super) fn new(stall: Duration) -> Self {
        Self { stall, waited: Duration::ZERO, bytes: 0, took: Duration::ZERO }
    }

    /// How long the last read took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// Reads once; 0 at the end.
    ///
    /// # Errors
    /// The transfer broke, or brings too little.
    pub(super) fn read(&mut self, body: &mut dyn Read, into: &mut [u8]) -> Result<usize, Fault> {
        let since = Instant::now();
        let count =
            body.read(into).map_err(|error| Fault::Passing(Pause::Backoff, format!("the transfer broke: {error}")))?;
        self.took = since.elapsed();
        self.waited += self.took;
        self.bytes += count as u64;
        if self.waited >= self.stall {
            if self.bytes < MINIMUM_RATE.saturating_mul(self.waited.as_secs().max(1)) {
                let why = format!("only {} bytes in {:.1} s", self.bytes, self.waited.as_secs_f64());
                return Err(Fault::Passing(Pause::Backoff, why));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(count)
    }
}
