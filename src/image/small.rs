//! A small file, whole and in memory: a manifest, a signature, a pointer.

use std::io::Read as _;
use std::thread;

use ureq::http::StatusCode;

use super::http::Refusal;
use super::mirrors::{Fault, Mirrors, Stop};
use super::pipe::Gone;
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
    /// Each mirror that answers says that it has no such file.
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
        self.go(Ask { urls, only: None, avoid: &[], hasty: false }, &mut Question(self)).map_err(Stop::into_error)
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
        let untried = (0..ask.urls.len()).filter(|mirror| ask.allows(*mirror)).collect();
        let mut request = Request { mirrors: self, limit, need, untried };
        self.go(ask, &mut request).map_err(Stop::into_error)
    }
}

struct Request<'a> {
    mirrors: &'a Mirrors<'a>,
    limit: u64,
    need: Need,
    untried: Vec<usize>,
}

/// Whether there is a file, whatever is in it.
struct Question<'a>(&'a Mirrors<'a>);

impl Work for Question<'_> {
    type Done = Presence;

    fn attempt(&mut self, mirror: usize, url: &str) -> Result<Presence, Fault> {
        match self.0.get(mirror, url, None) {
            Ok(_) => Ok(Presence::Here),
            // What else a server may refuse, such as 403, does not say that there is nothing.
            Err(Refusal::Status(StatusCode::NOT_FOUND | StatusCode::GONE)) => Ok(Presence::Missing),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn wait(&mut self, wait: &Wait<'_>) -> Result<(), Gone> {
        thread::sleep(wait.time);
        Ok(())
    }
}

impl Work for Request<'_> {
    type Done = Found;

    fn attempt(&mut self, mirror: usize, url: &str) -> Result<Found, Fault> {
        self.untried.retain(|untried| *untried != mirror);
        let response = match self.mirrors.get(mirror, url, None) {
            Err(Refusal::Status(status)) if self.need == Need::May && self.untried.is_empty() => {
                return Ok(Found::Absent(status));
            }
            response => response?,
        };
        let Answer::Whole(version) = &response.answer else {
            return Err(Fault::Passing(Pause::Backoff, "a part, which was not asked for".to_owned()));
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
        thread::sleep(wait.time);
        Ok(())
    }
}
