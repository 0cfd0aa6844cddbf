//! How long to wait for a machine that may be slow only because this one is busy.

use std::fs;
use std::time::Duration;

/// A console that says nothing for this long on an idle machine is stuck.
const SILENCE: Duration = Duration::from_secs(45);
/// No boot takes this long on an idle machine, however much it says.
const TOTAL: Duration = Duration::from_secs(400);

/// Two bounds on a wait: without any output, and in all.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    silence: Duration,
    total: Duration,
}

impl Patience {
    /// Patience with `nodes` virtual machines that share this machine's processors.
    pub fn with(nodes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = u32::try_from(nodes.div_ceil(cores)).unwrap_or(u32::MAX).max(1);
        Self { silence: SILENCE.saturating_mul(share), total: TOTAL.saturating_mul(share) }
    }

    /// Says why to give up after `silent` without output and `waited` in all, or `None` to go on.
    pub fn exhausted(self, silent: Duration, waited: Duration) -> Option<String> {
        if silent < self.silence && waited < self.total {
            return None;
        }
        // The pressure is read at the end, when it tells how busy the wait was.
        self.judge(silent, waited, busy())
    }

    fn judge(self, silent: Duration, waited: Duration, busy: bool) -> Option<String> {
        let slack = if busy { 2 } else { 1 };
        if silent >= self.silence.saturating_mul(slack) {
            Some(format!("no output for {} s", silent.as_secs()))
        } else if waited >= self.total.saturating_mul(slack) {
            Some(format!("not within {} s", waited.as_secs()))
        } else {
            None
        }
    }
}

/// Whether this machine's processors were contended for most of the last ten seconds.
fn busy() -> bool {
    fs::read_to_string("/proc/pressure/cpu").is_ok_and(|text| pressure(&text).is_some_and(|share| share > 50.0))
}

/// The ten-second average, in percent, of a file in `/proc/pressure`.
fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Patience = Patience { silence: SILENCE, total: TOTAL };

    #[test]
    fn pressure_is_the_ten_second_average_of_some() {
        let text =
            "some avg10=61.20 avg60=0.53 avg300=1.51 total=31343696\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure(text), Some(61.2));
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn a_busy_machine_gets_twice_the_time() {
        let fifty = Duration::from_secs(50);
        assert_eq!(ONE.judge(fifty, fifty, false).as_deref(), Some("no output for 50 s"));
        assert_eq!(ONE.judge(fifty, fifty, true), None);
        assert_eq!(ONE.judge(Duration::ZERO, TOTAL, false).as_deref(), Some("not within 400 s"));
        assert_eq!(ONE.judge(Duration::ZERO, TOTAL, true), None);
    }
}
