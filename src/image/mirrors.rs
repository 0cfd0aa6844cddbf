//! The servers that hold a file, and the one way in which all requests go on after a failure: the next mirror, a
//! pause, or the end. What is asked of them is in `fetch.rs` (a whole file, piece by piece), `small.rs` (a small file
//! at once) and `range.rs` (a piece of a file again).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::choice::{Choice, Pick};
use super::http::{Client, Refusal};
use super::pipe::Gone;
use super::retry::{Patience, Pause, WORTHWHILE};
use super::{Settings, Sources, Tally};
use crate::failure::refuse;
use crate::random;

/// The mirrors of one image, by their place in `rootstream.image=`, and what is left of `rootstream.retry=`. Shared by
/// all threads and all passes of an installation.
pub(super) struct Mirrors<'a> {
    pub(super) settings: &'a Settings,
    pub(super) client: Client,
    start: Instant,
    state: Mutex<State>,
}

struct State {
    choice: Choice,
    patience: Patience,
    /// Cleared where answers to ranges are no use.
    ranges: Vec<bool>,
    /// Which mirror gave the stream's bytes from this offset on, in order.
    givers: Vec<(u64, usize)>,
    tally: Tally,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(super) enum Stop {
    /// What was passed on is not the beginning of what is served now.
    Restart(&'static str),
    /// Whoever asked is gone, and knows why.
    Gone,
    /// Final.
    Failed(anyhow::Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Stop {
    /// As an error, for whoever neither restarts nor stops by himself.
    pub(super) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Restart(why) => anyhow::anyhow!(why),
            Self::Gone => anyhow::Error::new(Gone),
            Self::Failed(error) => error,
        }
    }
}

/// How one request failed.
pub(super) enum Fault {
    /// Ask the same mirror again, for the whole file.
    AskWhole(&'static str),
    /// It may work later, or elsewhere.
    Passing(Pause, String),
    /// This mirror will never do.
    Hopeless(String),
    /// All is over.
    Stop(Stop),
}

impl From<Gone> for Fault {
    fn from(gone: Gone) -> Self {
        Self::Stop(gone.into())
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let why = refusal.to_string();
        match refusal {
            Refusal::Passing(_) => Self::Passing(Pause::Backoff, why),
            Refusal::Status(_) | Refusal::Busy(_, None) => Self::Passing(Pause::Slow, why),
            Refusal::Busy(_, Some(after)) => Self::Passing(Pause::Queued(after), why),
            Refusal::Permanent(_) => Self::Hopeless(why),
        }
    }
}

/// What is asked of the mirrors.
pub(super) trait Work {
    /// What comes of it.
    type Done;

    /// One request to this mirror.
    fn attempt(&mut self, mirror: usize, url: &str) -> Result<Self::Done, Fault>;

    /// Bytes that are there to stay, whatever happens next.
    fn have(&self) -> u64;

    /// Since when the request that just failed brought nothing, if it brought something before.
    fn news(&self) -> Option<Instant>;

    /// Waits for the next try; `why` says what for.
    ///
    /// # Errors
    /// There will be no next try.
    fn wait(&mut self, time: Duration, why: &str) -> Result<(), Gone>;
}

/// Which mirrors are asked, and under which names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// The file's URL on each mirror, in the order of [`Mirrors`]; empty where it is not.
    pub(super) urls: &'a [String],
    /// Only this mirror.
    pub(super) only: Option<usize>,
    /// Rather not these.
    pub(super) avoid: &'a [usize],
}

impl Ask<'_> {
    /// Whether this mirror is asked at all.
    pub(super) fn allows(&self, mirror: usize) -> bool {
        self.only.is_none_or(|only| only == mirror) && self.urls.get(mirror).is_some_and(|url| !url.is_empty())
    }
}

impl<'a> Mirrors<'a> {
    /// The mirrors that the settings name, none of them asked yet.
    ///
    /// # Errors
    /// One of them is `https://`, and there is no certificate to know it by.
    pub(super) fn new(sources: Sources<'a>) -> anyhow::Result<Self> {
        let Sources { settings, anchors, .. } = sources;
        anchors.certificates.check(&settings.urls)?;
        let count = settings.urls.len();
        let state = State {
            choice: Choice::new(count, 0),
            patience: Patience::new(settings.retry),
            ranges: vec![true; count],
            givers: Vec::new(),
            tally: Tally::default(),
        };
        Ok(Self { settings, client: Client::new(sources)?, start: Instant::now(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all of it cost so far.
    pub(super) fn tally(&self) -> Tally {
        self.state().tally
    }

    /// Whether a mirror's answers to ranges are worth asking for.
    pub(super) fn has_ranges(&self, mirror: usize) -> bool {
        self.state().ranges.get(mirror).copied().unwrap_or_default()
    }

    /// Notes that the stream's bytes from `offset` on come from this mirror.
    pub(super) fn gives(&self, offset: u64, mirror: usize) {
        let givers = &mut self.state().givers;
        givers.retain(|(before, _)| *before < offset);
        if givers.last().is_none_or(|(_, last)| *last != mirror) {
            givers.push((offset, mirror));
        }
    }

    /// The mirror that the stream's byte at `offset` came from.
    pub(super) fn giver(&self, offset: u64) -> Option<usize> {
        self.state().givers.iter().rev().find(|(from, _)| *from <= offset).map(|(_, mirror)| *mirror)
    }

    /// Charges a pass that was in vain, and counts it; false when that was one too many.
    pub(super) fn begin_again(&self, spent: Duration) -> bool {
        let mut state = self.state();
        state.tally.retries += 1;
        let left = state.patience.spent() < self.settings.retry;
        state.patience.charge(spent);
        left
    }

    /// Asks mirror after mirror until `work` is done or there is no point in going on.
    pub(super) fn go<W: Work>(&self, ask: Ask<'_>, work: &mut W) -> Result<W::Done, Stop> {
        loop {
            let mirror = match self.pick(ask) {
                Pick::Now(mirror) => mirror,
                Pick::Wait(time) => {
                    work.wait(time, "the mirrors rest")?;
                    continue;
                }
                Pick::Nobody => {
                    let todo = "give rootstream.image=http://SERVER/IMAGE.tar.gz";
                    return Err(Stop::Failed(refuse("no image was given", todo)));
                }
            };
            let url = ask.urls.get(mirror).map(String::as_str).unwrap_or_default();
            let (before, begun) = (work.have(), Instant::now());
            self.state().choice.begin(mirror);
            let outcome = work.attempt(mirror, url);
            let received = work.have() - before;
            self.state().tally.bytes += received;
            let fault = match outcome {
                Ok(done) => {
                    self.state().choice.worked(mirror);
                    return Ok(done);
                }
                Err(fault) => fault,
            };
            if let Fault::Stop(stop) = fault {
                return Err(stop);
            }
            self.state().tally.retries += 1;
            let (pause, why) = match fault {
                Fault::Stop(stop) => return Err(stop),
                Fault::AskWhole(why) => {
                    self.asks_whole(mirror);
                    log::warn!("image: {url}: {why}; asking for the whole file");
                    continue;
                }
                Fault::Hopeless(why) => {
                    self.state().choice.give_up(mirror);
                    if self.pick(ask) == Pick::Nobody {
                        let todo = "check the URL and how the server serves the file (curl -v shows it)";
                        return Err(Stop::Failed(refuse(why, todo).context(format!("fetching {url}"))));
                    }
                    log::warn!("image: {url}: {why}; this mirror is given up");
                    continue;
                }
                Fault::Passing(pause, why) => (pause, why),
            };
            let wasted = work.news().unwrap_or(begun).max(begun).elapsed();
            if !self.rest(mirror, pause, received, wasted) {
                return Err(Stop::Failed(given_up(url, &why, self.settings, work.have())));
            }
            match self.pick(ask) {
                Pick::Now(_) => log::warn!("image: {url}: {why}; trying the next mirror"),
                Pick::Nobody => {}
                Pick::Wait(time) => {
                    let seconds = time.as_secs_f64();
                    let waiting = match pause {
                        Pause::Queued(_) => format!("queued, {seconds:.0} s"),
                        _ => format!("next try in {seconds:.1} s"),
                    };
                    log::warn!("image: {url}: {why}; {} bytes so far, {waiting}", work.have());
                    self.state().patience.charge(time);
                    work.wait(time, &format!("{why}, {waiting}"))?;
                }
            }
        }
    }

    /// The next mirror; a wait is from now on.
    fn pick(&self, ask: Ask<'_>) -> Pick {
        let now = self.start.elapsed();
        match self.state().choice.pick(now, |mirror| ask.allows(mirror), ask.avoid) {
            Pick::Wait(until) => Pick::Wait(until.saturating_sub(now)),
            pick => pick,
        }
    }

    fn asks_whole(&self, mirror: usize) {
        if let Some(ranges) = self.state().ranges.get_mut(mirror) {
            *ranges = false;
        }
    }

    /// Lets a mirror that failed rest for a while; false when patience is over.
    fn rest(&self, mirror: usize, pause: Pause, received: u64, wasted: Duration) -> bool {
        let mut state = self.state();
        if received >= WORTHWHILE {
            state.choice.worked(mirror);
        }
        let vain = state.choice.failed(mirror);
        state.patience.charge(wasted);
        let Some(pause) = state.patience.pause(pause, vain, random::bits(mirror)) else { return false };
        state.choice.rest(mirror, self.start.elapsed() + pause);
        true
    }
}

fn given_up(url: &str, why: &str, settings: &Settings, have: u64) -> anyhow::Error {
    let what = if have == 0 { format!("fetching {url}") } else { format!("fetching {url} beyond byte {have}") };
    let others = settings.urls.len().saturating_sub(1);
    let mirrors = if others == 0 { String::new() } else { format!(", {others} more mirrors tried") };
    let todo = format!(
        "check the URL, the server and the network to it; tried for {} s (rootstream.retry=){mirrors}",
        settings.retry.as_secs()
    );
    refuse(why, todo).context(what)
}

#[cfg(test)]
mod tests;
