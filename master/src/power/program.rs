//! A program that is run to its end, for a bounded time.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often an end is looked for.
const PACE: Duration = Duration::from_millis(10);

/// How a program ended, and what it said.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a program with nothing to read.
///
/// # Errors
/// It cannot be started ([`io::Error`] is on the chain), or has not ended after `limit`; it is killed then.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // Read aside: a program whose pipe is full would never end.
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let Some(status) = wait(&mut child, limit)? else {
        // Both fail only when it has ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
        bail!("no answer within {} s", limit.as_secs());
    };
    let text =
        |reader: thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
    Ok(Ended { status, stdout: text(stdout), stderr: text(stderr) })
}

/// How a child ended, or `None` where it still runs after `limit`.
///
/// # Errors
/// The kernel cannot say.
pub(super) fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("waiting for a program's end")? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(PACE);
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is all there is.
        let _: io::Result<usize> = pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let start = Instant::now();
        let error = run(Command::new("sleep").arg("600"), Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 0 s");
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn what_it_says_is_kept_however_much() {
        let ended = run(Command::new("sh").args(["-c", "seq 100000; echo no >&2; exit 3"]), Duration::from_secs(60));
        let ended = ended.unwrap();
        assert_eq!(
            (ended.stdout.lines().count(), ended.stderr.as_str(), ended.status.code()),
            (100_000, "no\n", Some(3))
        );
    }
}
