//! What one command takes.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// What one run took.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of CPU, user and system, of all its processes.
    pub cpu: f64,
    /// Peak resident memory of its largest process, in KiB.
    pub peak_kib: f64,
    /// What it printed.
    pub printed: String,
}

/// Words of bash that put its session before the others on this machine, where the kernel shares the processor among
/// sessions.
pub(crate) const COME_FIRST: &str = "{ echo -20 >/proc/self/autogroup; } 2>/dev/null || true;";

/// Runs a shell command, with these variables, to its end.
///
/// # Errors
/// It cannot be started, or fails; what it said is part of the error.
pub fn measure(command: &str, variables: &[(&str, &str)]) -> Result<Run> {
    let folder = tempfile::tempdir().context("making a folder for what time(1) says")?;
    let [peak, said, printed] = ["peak", "said", "printed"].map(|name| folder.path().join(name));
    let before = cpu()?;
    let start = Instant::now();
    // The kernel counts the memory of the process that a process was forked from as its own. That of time(1) is
    // about 1 MiB; this program's would be taken for the command's.
    let status = Command::new("setsid")
        .args(["--wait", "/usr/bin/time", "-f", "%M", "-o"])
        .arg(&peak)
        .args(["bash", "-e", "-o", "pipefail", "-c", &format!("{COME_FIRST} {command}")])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&printed).context("making a file for what the command prints")?)
        .stderr(fs::File::create(&said).context("making a file for what the command says")?)
        .status()
        .context("starting setsid")?;
    let wall = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{command}: {status}: {}", fs::read_to_string(&said).unwrap_or_default().trim());
    let peak_kib = fs::read_to_string(&peak).context("reading what time(1) says")?;
    let peak_kib = peak_kib.trim().parse().with_context(|| format!("time(1) says {peak_kib:?}"))?;
    let printed = fs::read_to_string(&printed).context("reading what the command printed")?;
    Ok(Run { wall, cpu: cpu()? - before, peak_kib, printed })
}

/// CPU seconds of all children that have ended.
fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("asking for the children's CPU time")?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(microseconds.try_into().unwrap_or_default()).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_measured_with_its_children() {
        let loops = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let run = measure(r#"sleep 0.1; sh -c "$LOOPS"; true"#, &[("LOOPS", loops)]).unwrap();
        assert!(run.wall > 0.1 && run.cpu > 0.0 && run.peak_kib > 100.0, "{run:?}");
    }

    #[test]
    fn even_a_short_peak_is_seen() {
        let small = measure("true", &[]).unwrap().peak_kib;
        let large = measure("head -c 64M /dev/zero | dd bs=64M iflag=fullblock of=/dev/null", &[]).unwrap().peak_kib;
        assert!(small < 16_000.0 && large > 64_000.0, "{small} {large}");
    }

    #[test]
    fn a_failure_says_what_the_command_said() {
        let error = measure("echo hopeless >&2; false | true", &[]).unwrap_err().to_string();
        assert!(error.contains("hopeless"), "{error}");
    }
}
