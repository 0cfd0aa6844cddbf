//! What the lab hears: consoles and server logs, each line stamped when it arrived.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::patience::Patience;
use crate::plain::plain;

/// How often a followed file is read, and so how exact the stamps are.
const PACE: Duration = Duration::from_millis(20);

/// A line, or the start of one that has no end yet, such as a prompt.
#[derive(Clone, Debug)]
pub struct Line {
    /// Who said it.
    pub source: String,
    /// What it said, without escape sequences.
    pub text: String,
    /// When its last byte arrived.
    pub at: Instant,
}

/// The lines of all sources in the order they arrived. Clones share it.
#[derive(Clone, Debug)]
pub struct Transcript {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug)]
struct State {
    lines: Vec<Line>,
    /// What each source has said since its last newline, and when.
    open: BTreeMap<String, (Vec<u8>, Instant)>,
    last_byte: Instant,
}

impl Default for Transcript {
    fn default() -> Self {
        let state = State { lines: Vec::new(), open: BTreeMap::new(), last_byte: Instant::now() };
        Self { shared: Arc::new((Mutex::new(state), Condvar::new())) }
    }
}

impl Transcript {
    /// Follows a file that may not exist yet, until the transcript is dropped.
    pub fn follow(&self, source: &str, path: &Path) {
        let (source, path) = (source.to_owned(), path.to_owned());
        let shared = Arc::downgrade(&self.shared);
        thread::spawn(move || {
            let mut file = None;
            let mut bytes = vec![0; 64 << 10];
            while let Some(shared) = shared.upgrade() {
                file = file.or_else(|| File::open(&path).ok());
                let count = file.as_mut().and_then(|f: &mut File| f.read(&mut bytes).ok()).unwrap_or(0);
                match bytes.get(..count) {
                    Some(fresh) if count > 0 => Self { shared }.feed(&source, fresh),
                    _ => {
                        drop(shared);
                        thread::sleep(PACE);
                    }
                }
            }
        });
    }

    /// Adds what a source said.
    fn feed(&self, source: &str, bytes: &[u8]) {
        let at = Instant::now();
        let mut state = self.lock();
        state.last_byte = at;
        let (mut open, _) = state.open.remove(source).unwrap_or((Vec::new(), at));
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(part);
            if part.ends_with(b"\n") {
                state.lines.push(Line { source: source.to_owned(), text: plain(&open), at });
                open.clear();
            }
        }
        state.open.insert(source.to_owned(), (open, at));
        self.shared.1.notify_all();
    }

    /// Shows `look` every line from the first on, those still to come too, until it answers.
    ///
    /// A line that has no end yet is shown again and again while it grows. `alive` is asked now and
    /// then whether waiting still makes sense.
    ///
    /// # Errors
    /// That of `look` or `alive`, or patience ran out.
    pub fn wait<T>(
        &self,
        patience: Patience,
        mut alive: impl FnMut() -> Result<()>,
        mut look: impl FnMut(&Line) -> Result<Option<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut seen = 0;
        loop {
            let living = alive();
            if living.is_err() {
                // A machine that just ended has said all it will say, once its file is read again.
                thread::sleep(PACE.saturating_mul(4));
            }
            let (fresh, last_byte) = self.after(&mut seen);
            for line in &fresh {
                if let Some(answer) = look(line)? {
                    return Ok(answer);
                }
            }
            living?;
            if let Some(reason) = patience.exhausted(last_byte.max(start).elapsed(), start.elapsed()) {
                bail!(reason);
            }
        }
    }

    /// The lines from number `seen` on and all open ones, and when the last byte came; waits a moment
    /// for the next byte when there are none.
    fn after(&self, seen: &mut usize) -> (Vec<Line>, Instant) {
        let mut state = self.lock();
        if state.lines.len() == *seen {
            let waited = self.shared.1.wait_timeout(state, Duration::from_millis(200));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut fresh: Vec<Line> = state.lines.iter().skip(*seen).cloned().collect();
        *seen = state.lines.len();
        fresh.extend(state.open.iter().filter(|(_, (bytes, _))| !bytes.is_empty()).map(open_line));
        (fresh, state.last_byte)
    }

    /// All complete lines of one source.
    pub fn lines(&self, source: &str) -> Vec<Line> {
        self.lock().lines.iter().filter(|line| line.source == source).cloned().collect()
    }

    /// The lines of all sources, open ones too, that contain `words`.
    pub fn containing(&self, words: &str) -> Vec<Line> {
        let state = self.lock();
        let lines = state.lines.iter().cloned().chain(state.open.iter().map(open_line));
        lines.filter(|line| line.text.contains(words)).collect()
    }

    /// The last `count` lines of one source, for an error message.
    pub fn tail(&self, source: &str, count: usize) -> String {
        let state = self.lock();
        let open = state.open.get_key_value(source).map(open_line).map(|line| line.text);
        let lines = state.lines.iter().filter(|line| line.source == source).map(|line| line.text.clone());
        let all: Vec<String> = lines.chain(open).filter(|text| !text.trim().is_empty()).collect();
        let start = all.len().saturating_sub(count);
        all.iter().skip(start).map(|text| format!("    | {text}\n")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_line((source, (bytes, at)): (&String, &(Vec<u8>, Instant))) -> Line {
    Line { source: source.clone(), text: plain(bytes), at: *at }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_are_whole_even_when_they_come_in_pieces() {
        let transcript = Transcript::default();
        transcript.feed("n1", b"Linux ver");
        transcript.feed("n2", b"other\n");
        transcript.feed("n1", b"sion 6.1\r\nn1 login: ");
        let texts: Vec<String> = transcript.lines("n1").into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["Linux version 6.1"]);
        assert_eq!(transcript.tail("n1", 2), "    | Linux version 6.1\n    | n1 login: \n");
        assert_eq!(transcript.tail("n1", 1), "    | n1 login: \n");
    }

    #[test]
    fn a_prompt_without_newline_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console");
        let transcript = Transcript::default();
        transcript.follow("n1", &log);
        fs::write(&log, "Debian GNU/Linux 12 n1 ttyS0\r\n\r\nn1 login: ").unwrap();
        let look = |line: &Line| Ok(line.text.ends_with("login: ").then(|| line.text.clone()));
        assert_eq!(transcript.wait(Patience::with(1), || Ok(()), look).unwrap(), "n1 login: ");
    }

    #[test]
    fn the_last_words_of_a_dead_machine_count() {
        let transcript = Transcript::default();
        transcript.feed("n1", b"Power down\n");
        let dead = || bail!("ended");
        assert!(transcript.wait(Patience::with(1), dead, |line| Ok(line.text.contains("Power").then_some(()))).is_ok());
        let error = transcript.wait(Patience::with(1), dead, |_| Ok(None::<()>)).unwrap_err();
        assert_eq!(error.to_string(), "ended");
    }
}
