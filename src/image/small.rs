//! A small file, whole and in memory: a manifest, a signature, a pointer.

use std::collections::HashSet;
use std::io::Read as _;
use std::thread;
use std::time::Instant;

use ureq::http::StatusCode;

use super::http::Refusal;
use super::mirrors::{Fault, Mirrors, Stop};
use super::pipe::Gone;
use super::progress::{Doing, Progress};
use super::resume::Answer;
use super::retry::Pause;
use super::turns::{Ask, Wait, Work};
use super::watch::Watch;

/// Bytes that are read at once.
const BLOCK: usize = 16 * 1024;

/// The file.
#[derive(Debug)]
pub(super) struct Small {
    /// All of it.
    pub(super) bytes: Vec<u8>,
    /// The mirror's place in `rootstream.image=`.
    pub(super) mirror: usize,
}

/// What became of a request for one.
#[derive(Debug)]
pub(super) enum Found {
    /// It is there.
    Here(Small),
    /// Each mirror's last word is that it has no such file.
    Absent(StatusCode),
}

/// What it means that a server has no such file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It may come yet: ask again, slowly, and fail in the end.
    Must,
    /// That is an answer.
    May,
}

/// Whether there is a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// There is.
    Here,
    /// The servers say that there is none.
    Missing,
}

impl Mirrors<'_> {
    /// Asks whether there is a file. Passing faults are tried again as long as `rootstream.retry=` allows.
    ///
    /// # Errors
    /// That cannot be found out.
    pub(super) fn presence(&self, urls: &[String]) -> anyhow::Result<Presence> {
        let ask = Ask { urls, only: None, avoid: &[], hasty: false };
        let question = |progress: &Progress| self.go(ask, &mut Question { mirrors: self, progress });
        self.showing(question).map_err(Stop::into_error)
    }

    /// Fetches a file of at most `limit` bytes. `urls` are its names on each mirror; with `only`, that mirror alone is
    /// asked. Passing faults are tried again as long as `rootstream.retry=` allows.
    ///
    /// # Errors
    /// It cannot be had, or is longer.
    pub(super) fn small(&self, urls: &[String], only: Option<usize>, limit: u64, need: Need) -> anyhow::Result<Found> {
        self.request(Ask { urls, only, avoid: &[], hasty: false }, limit, need)
    }

    /// The same from one mirror while others may do better: it has two tries, and none when it is busy.
    ///
    /// # Errors
    /// Those of [`Mirrors::small`], and [`Hasty`](super::turns::Hasty).
    pub(super) fn small_hastily(&self, urls: &[String], only: usize, limit: u64, need: Need) -> anyhow::Result<Found> {
        self.request(Ask { urls, only: Some(only), avoid: &[], hasty: true }, limit, need)
    }

    fn request(&self, ask: Ask<'_>, limit: u64, need: Need) -> anyhow::Result<Found> {
        self.showing(|progress| {
            let mut request = Request { mirrors: self, ask, limit, need, absent: HashSet::new(), progress };
            self.go(ask, &mut request).map_err(Stop::into_error)
        })
    }

    /// Shows what is waited for.
    fn showing<T>(&self, ask: impl FnOnce(&Progress) -> T) -> T {
        let progress = Progress::default();
        thread::scope(|scope| {
            scope.spawn(|| progress.show_waits());
            let done = ask(&progress);
            progress.end();
            done
        })
    }
}

struct Request<'a> {
    mirrors: &'a Mirrors<'a>,
    ask: Ask<'a>,
    limit: u64,
    need: Need,
    /// The mirrors that last said that they have no such file.
    absent: HashSet<usize>,
    progress: &'a Progress,
}

/// Whether there is a file, whatever is in it.
struct Question<'a> {
    mirrors: &'a Mirrors<'a>,
    progress: &'a Progress,
}

impl Work for Question<'_> {
    type Done = Presence;

    fn attempt(&mut self, mirror: usize, url: &str) -> Result<Presence, Fault> {
        self.progress.from(Some(url.to_owned()), 0);
        match self.mirrors.get(mirror, url, None) {
            Ok(_) => Ok(Presence::Here),
            Err(Refusal::Status(status)) if is_absence(status) => Ok(Presence::Missing),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn wait(&mut self, wait: &Wait<'_>) -> Result<(), Gone> {
        sleep(self.progress, wait)
    }
}

/// Whether an answer says that there is nothing; what else a server may refuse with, such as 403, does not.
fn is_absence(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Sleeps to the end: while a small file is fetched there is nothing else that could end it.
fn sleep(progress: &Progress, wait: &Wait<'_>) -> Result<(), Gone> {
    let until = Instant::now() + wait.time;
    progress.doing(Doing::Waiting { why: wait.why.to_owned(), queued: wait.queued, until });
    thread::sleep(wait.time);
    Ok(())
}

impl Request<'_> {
    /// Whether no mirror that is left has the file, by its own last word.
    fn is_absent(&self) -> bool {
        let choice = &self.mirrors.state().choice;
        let mut left = (0..self.ask.urls.len()).filter(|mirror| self.ask.allows(*mirror) && choice.is_left(*mirror));
        left.all(|mirror| self.absent.contains(&mirror))
    }
}

impl Work for Request<'_> {
    type Done = Found;

    fn attempt(&mut self, mirror: usize, url: &str) -> Result<Found, Fault> {
        self.absent.remove(&mirror);
        self.progress.from(Some(url.to_owned()), 0);
        let response = match self.mirrors.get(mirror, url, None) {
            Err(Refusal::Status(status)) if is_absence(status) => {
                self.absent.insert(mirror);
                if self.need == Need::May && self.is_absent() {
                    return Ok(Found::Absent(status));
                }
                return Err(Refusal::Status(status).into());
            }
            response => response?,
        };
        self.progress.doing(Doing::Receiving);
        let Answer::Whole(version) = &response.answer else {
            return Err(Fault::Passing(Pause::Backoff, "the server sent a part, which was not asked for".to_owned()));
        };
        let too_long = || Fault::Hopeless(format!("it is longer than {} bytes", self.limit));
        if version.total.is_some_and(|total| total > self.limit) {
            return Err(too_long());
        }
        let (mut bytes, mut block) = (Vec::new(), vec![0; BLOCK]);
        let mut body = response.body.take(self.limit + 1);
        let mut watch = Watch::new(self.mirrors.settings.stall);
        loop {
            match watch.read(&mut body, &mut block)? {
                0 => break,
                count => bytes.extend_from_slice(block.get(..count).unwrap_or_default()),
            }
        }
        if bytes.len() as u64 > self.limit {
            return Err(too_long());
        }
        if version.total.is_some_and(|total| total != bytes.len() as u64) {
            return Err(Fault::Passing(Pause::Backoff, "the answer ended early".to_owned()));
        }
        Ok(Found::Here(Small { bytes, mirror }))
    }

    fn wait(&mut self, wait: &Wait<'_>) -> Result<(), Gone> {
        sleep(self.progress, wait)
    }
}
