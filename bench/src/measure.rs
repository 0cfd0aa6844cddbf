//! What one command takes.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// How often the memory is looked at: short against a run of seconds.
const LOOK: Duration = Duration::from_millis(5);

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Seconds of CPU, user and system, of all its processes.
    pub(crate) cpu: f64,
    /// Peak resident memory of the first process, in KiB.
    pub(crate) peak_kib: f64,
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or fails; what it said is part of the error.
pub(crate) fn measure(command: &mut Command) -> Result<Run> {
    let before = cpu()?;
    let start = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting it")?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0.0_f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak_kib =
            peak_kib.max(fs::read_to_string(&status_file).ok().and_then(|status| high_water(&status)).unwrap_or(0.0));
        sleep(LOOK);
    };
    let wall = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(Run { wall, cpu: cpu()? - before, peak_kib })
}

/// `VmHWM` of proc_pid_status(5), in KiB.
fn high_water(status: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// CPU seconds of all children that have ended.
fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("asking for the children's CPU time")?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(microseconds.try_into().unwrap_or_default()).as_secs_f64())
}

/// The middle value; 0 of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_measured_with_its_children() {
        let run = measure(
            Command::new("sh").args(["-c", "sleep 0.1; sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'"]),
        )
        .unwrap();
        assert!(run.wall > 0.1 && run.cpu > 0.0 && run.cpu < run.wall && run.peak_kib > 100.0, "{run:?}");
        assert!(measure(&mut Command::new("false")).is_err());
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
