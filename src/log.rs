//! The kernel log as the agent's log.
//!
//! A write to /dev/kmsg can block for as long as a serial console takes, so nothing that boots ever
//! does it: messages go into a pipe without waiting, and a small process of its own carries them
//! from there to /dev/kmsg. The pipe is the bounded queue; what does not fit is counted and said.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, pipe2};

use crate::sys;

/// The kernel cuts a record at 1024 bytes less its prefix.
const RECORD: usize = 900;
const NAME: &str = "rootstream: ";
/// Tells the log's process that nothing follows. No line of ours begins so.
const END: &[u8] = b"end\n";

/// The process that writes the kernel log.
#[derive(Debug)]
pub struct KernelLog {
    writer: Pid,
    queue: OwnedFd,
}

impl KernelLog {
    /// Starts it and makes it the target of the `log` macros, in this process and those it forks.
    ///
    /// # Errors
    /// The caller has several threads, or pipe or process cannot be made.
    pub fn start(level: LevelFilter) -> Result<Self> {
        // Without this the kernel passes 10 lines in 5 seconds and drops the rest.
        let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
        let (messages, queue) = pipe2(OFlag::O_CLOEXEC).context("making the log's pipe")?;
        let writer = match sys::fork_single_threaded().context("starting the log's process")? {
            ForkResult::Child => {
                drop(queue);
                carry(messages);
                std::process::exit(0);
            }
            ForkResult::Parent { child } => child,
        };
        fcntl(&queue, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("making the log's pipe non-blocking")?;
        let own = queue.try_clone().context("duplicating the log's pipe")?;
        log::set_boxed_logger(Box::new(Queue { pipe: File::from(own), lost: AtomicU64::new(0) }))
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        log::set_max_level(level);
        Ok(Self { writer, queue })
    }

    /// Waits until everything is written, but not longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while Instant::now() < end && sys::unread(self.queue.as_fd()).is_ok_and(|bytes| bytes > 0) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // What the writer has taken out of the pipe already is on its way for a moment longer.
        std::thread::sleep(Duration::from_millis(20));
    }

    /// Has the process write all it was given and end, at most for `limit`; later messages go to the
    /// kernel directly.
    pub fn stop(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while Instant::now() < end && nix::unistd::write(&self.queue, END).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        wait_for_end(self.writer, end);
        let _ = kill(self.writer, Signal::SIGKILL);
    }
}

/// Waits until a child has ended, but not beyond `end`.
fn wait_for_end(child: Pid, end: Instant) {
    while Instant::now() < end && matches!(waitpid(child, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The near end of the pipe.
struct Queue {
    pipe: File,
    lost: AtomicU64,
}

impl Log for Queue {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Crates below us have nothing to say to an administrator.
        metadata.target().starts_with("rootstream") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && !self.put(Level::Warn, &format!("log: {lost} lines lost, the console is slow")) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        for line in lines(&record.args().to_string()) {
            if !self.put(record.level(), line) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn flush(&self) {}
}

impl Queue {
    /// Whether the line was taken. At most PIPE_BUF bytes: the kernel takes all of it or nothing.
    fn put(&self, level: Level, line: &str) -> bool {
        let record = format!("<{}>{NAME}{line}\n", priority(level));
        match (&self.pipe).write(record.as_bytes()) {
            Ok(_) => true,
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => direct(record.as_bytes()),
            Err(_) => false,
        }
    }
}

/// To the kernel without the queue, for the moments when there is none.
fn direct(record: &[u8]) -> bool {
    let kmsg = OpenOptions::new().append(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/dev/kmsg");
    kmsg.and_then(|mut kmsg| kmsg.write_all(record)).is_ok()
}

/// Carries every line to /dev/kmsg until the last writer has gone.
fn carry(messages: OwnedFd) {
    let Ok(mut kmsg) = OpenOptions::new().append(true).open("/dev/kmsg") else { return };
    // Small, so that little is neither in the pipe nor written.
    let mut messages = BufReader::with_capacity(RECORD, File::from(messages));
    let mut line = Vec::new();
    while messages.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) && line != END {
        // A line that the kernel will not take (EINVAL) is not worth losing the rest for.
        let _ = kmsg.write_all(&line);
        line.clear();
    }
}

/// syslog(2) priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The lines of a message, none longer than a kernel record, split at character boundaries.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let mut rest = line;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = (0..=RECORD.min(rest.len())).rev().find(|at| rest.is_char_boundary(*at))?;
            let (head, tail) = rest.split_at_checked(end)?;
            rest = tail;
            Some(head)
        })
    })
}

/// Where PID 1 says what an administrator must not miss. Opened early, because /dev moves away in a
/// hand-over.
#[derive(Debug)]
pub struct Consoles {
    kmsg: Option<File>,
}

impl Consoles {
    /// Opens /dev/kmsg, if it is there.
    pub fn open() -> Self {
        Self { kmsg: OpenOptions::new().append(true).open("/dev/kmsg").ok() }
    }

    /// Says `text` in the kernel log at error level, which `quiet` lets through to every console; and on
    /// /dev/console itself where there is no kernel log or the kernel's own level hides it. Takes at most
    /// 10 s: a console that blocks does not hold up what comes next.
    pub fn say(&self, text: &str) {
        match sys::fork_single_threaded() {
            Ok(ForkResult::Child) => {
                self.write(text);
                std::process::exit(0);
            }
            Ok(ForkResult::Parent { child }) => wait_for_end(child, Instant::now() + Duration::from_secs(10)),
            Err(_) => self.write(text),
        }
    }

    fn write(&self, text: &str) {
        let error = priority(Level::Error);
        let logged = self.kmsg.as_ref().is_some_and(|mut kmsg| {
            lines(text).all(|line| kmsg.write_all(format!("<{error}>{NAME}{line}\n").as_bytes()).is_ok())
        });
        let printk = fs::read_to_string("/proc/sys/kernel/printk").unwrap_or_default();
        let console_level: u8 = printk.split_whitespace().next().and_then(|level| level.parse().ok()).unwrap_or(0);
        if logged && console_level > error {
            return;
        }
        // The kernel opened /dev/console as PID 1's standard error, if there is one.
        for line in text.lines() {
            let _ = std::io::stderr().write_all(format!("{NAME}{line}\r\n").as_bytes());
        }
    }
}

/// The log of `init rehearse`: stderr.
#[derive(Debug)]
pub struct StderrLog;

impl StderrLog {
    /// Makes it the target of the `log` macros.
    pub fn start(level: LevelFilter) {
        if log::set_boxed_logger(Box::new(Self)).is_ok() {
            log::set_max_level(level);
        }
    }
}

impl Log for StderrLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("rootstream") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let _ = writeln!(std::io::stderr(), "{}", record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_kernel_records() {
        let long = "é".repeat(600);
        let text = format!("first\n\n{long}\n");
        let records: Vec<&str> = lines(&text).collect();
        assert_eq!(records.len(), 3);
        assert_eq!(records[0], "first");
        assert_eq!(records[1].len(), 900);
        assert_eq!(format!("{}{}", records[1], records[2]), long);
    }

    // F59
    #[test]
    fn a_full_queue_drops_and_counts_instead_of_waiting() {
        let (messages, pipe) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let queue = Queue { pipe: File::from(pipe), lost: AtomicU64::new(0) };
        let record = |text: &str| {
            queue.log(&Record::builder().args(format_args!("{text}")).level(Level::Info).target("rootstream").build());
        };
        let line = "x".repeat(800);
        for _ in 0..200 {
            record(&line);
        }
        let lost = queue.lost.load(Ordering::Relaxed);
        assert!((100..200).contains(&lost), "{lost}");
        let mut buffer = vec![0; 1 << 17];
        let held = nix::unistd::read(&messages, &mut buffer).unwrap();
        assert_eq!(buffer[..held].iter().filter(|byte| **byte == b'\n').count() as u64, 200 - lost);
        record("after");
        let held = nix::unistd::read(&messages, &mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..held]).into_owned();
        assert_eq!(text, format!("<4>rootstream: log: {lost} lines lost, the console is slow\n<6>rootstream: after\n"));
    }
}
