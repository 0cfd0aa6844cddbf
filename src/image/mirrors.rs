//! The servers that hold a file, and what is known about them. What is asked of them is in `fetch.rs` (a whole file,
//! in order), `small.rs` (a small file at once) and `range.rs` (a piece of a file again); how they are asked one after
//! the other in `turns.rs`.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::choice::Choice;
use super::http::{Client, Refusal, Response, Span};
use super::pipe::Gone;
use super::retry::{Patience, Pause};
use super::tally::{Share, Tally};
use super::{Settings, Sources};
use crate::random;

/// One damaged piece may be a bit that fell over in a switch; at this many the file there is damaged.
const DOUBT: u32 = 2;

/// The mirrors of one image, by their place in `rootstream.image=`, and what is left of `rootstream.retry=`. Shared by
/// all threads and all passes of an installation.
pub(super) struct Mirrors<'a> {
    pub(super) settings: &'a Settings,
    client: Client,
    pub(super) start: Instant,
    /// Bytes that came from each, of use or not.
    received: Vec<Arc<AtomicU64>>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) choice: Choice,
    pub(super) patience: Patience,
    /// Cleared where answers to ranges are no use.
    ranges: Vec<bool>,
    /// Damaged pieces that each gave.
    damage: Vec<u32>,
    /// Which mirror gave the stream's bytes from this offset on, in order.
    givers: Vec<(u64, usize)>,
    /// What was wrong with each when it was last asked in vain.
    pub(super) reasons: Vec<String>,
    pub(super) tally: Tally,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(super) enum Stop {
    /// What was passed on is not the beginning of what is served now.
    Restart(&'static str),
    /// Whoever asked is gone, and knows why.
    Gone,
    /// What was passed on is not what was signed.
    Damaged(anyhow::Error),
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
            Self::Damaged(error) | Self::Failed(error) => error,
        }
    }
}

/// How one request failed.
pub(super) enum Fault {
    /// Ask the same mirror again, for the whole file.
    AskWhole(String),
    /// It may work later, or elsewhere.
    Passing(Pause, String),
    /// Nothing is wrong, but another mirror is to go on.
    Turn {
        /// Which.
        to: usize,
        /// It may be faster than this one, which brings so many bytes a second; otherwise, what this one brings cannot
        /// be joined with what is here.
        slow: Option<u64>,
    },
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

impl<'a> Mirrors<'a> {
    /// The mirrors that the settings name, none of them asked yet.
    ///
    /// # Errors
    /// One of them is `https://`, and there is no certificate to know it by.
    pub(super) fn new(sources: Sources<'a>) -> anyhow::Result<Self> {
        let Sources { settings, anchors, .. } = sources;
        anchors.certificates.check(&settings.urls)?;
        Ok(Self::beginning(sources, Client::new(sources)?, random::bits(&settings.urls)))
    }

    /// `random` decides which of them is the first.
    fn beginning(sources: Sources<'a>, client: Client, random: u64) -> Self {
        let settings = sources.settings;
        let count = settings.urls.len();
        let share = |url: &String| Share { url: url.clone(), ..Share::default() };
        let state = State {
            choice: Choice::new(count, random),
            patience: Patience::new(settings.retry),
            ranges: vec![true; count],
            damage: vec![0; count],
            givers: Vec::new(),
            reasons: vec![String::new(); count],
            tally: Tally { mirrors: settings.urls.iter().map(share).collect(), ..Tally::default() },
        };
        let received = settings.urls.iter().map(|_| Arc::default()).collect();
        Self { settings, client, start: Instant::now(), received, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all of it cost so far.
    pub(super) fn tally(&self) -> Tally {
        let state = self.state();
        let mut tally = state.tally.clone();
        for (index, (share, received)) in tally.mirrors.iter_mut().zip(&self.received).enumerate() {
            share.bytes = received.load(Ordering::Relaxed);
            share.rate = state.choice.rate(index);
        }
        tally
    }

    /// One request to a mirror, with what comes of it counted.
    ///
    /// # Errors
    /// Those of [`Client::get`].
    pub(super) fn get(&self, mirror: usize, url: &str, span: Option<Span<'_>>) -> Result<Response, Refusal> {
        if let Some(share) = self.state().tally.mirrors.get_mut(mirror) {
            share.requests += 1;
        }
        let Response { answer, url, body } = self.client.get(url, span)?;
        let count = self.received.get(mirror).cloned().unwrap_or_default();
        Ok(Response { answer, url, body: Box::new(Counted { body, count }) })
    }

    /// Whether a mirror's answers to ranges are worth asking for.
    pub(super) fn has_ranges(&self, mirror: usize) -> bool {
        self.state().ranges.get(mirror).copied().unwrap_or_default()
    }

    /// From now on this mirror is asked for whole files only.
    pub(super) fn asks_whole(&self, mirror: usize) {
        if let Some(ranges) = self.state().ranges.get_mut(mirror) {
            *ranges = false;
        }
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

    /// Notes that a piece which this mirror gave is not what it must be.
    pub(super) fn damaged(&self, mirror: usize) {
        if let Some(damage) = self.state().damage.get_mut(mirror) {
            *damage = damage.saturating_add(1);
        }
    }

    /// Lets a mirror rest for about this long before the next request, if that goes there.
    pub(super) fn spare(&self, mirror: usize, time: Duration) {
        // Not all nodes come back at once.
        let time = time + random::up_to(time);
        self.state().choice.rest(mirror, self.start.elapsed() + time);
    }

    /// Whether a mirror gave so much damage that the rest had better come from another, and there is another.
    pub(super) fn is_doubted(&self, mirror: usize) -> bool {
        let state = self.state();
        state.damage.get(mirror).is_some_and(|damage| *damage >= DOUBT) && state.choice.any_other(mirror)
    }

    /// Forgets who gave what: another stream begins.
    pub(super) fn forget_givers(&self) {
        self.state().givers.clear();
    }

    /// Gives up the mirrors that the last stream came from: it was damaged. False when none is left.
    pub(super) fn blame(&self) -> bool {
        let mut state = self.state();
        for (_, mirror) in std::mem::take(&mut state.givers) {
            state.choice.give_up(mirror);
            if let Some(reason) = state.reasons.get_mut(mirror) {
                "what came from there was damaged".clone_into(reason);
            }
        }
        state.choice.any_left()
    }

    /// Charges a pass that was in vain, and counts it; false when that was one too many.
    pub(super) fn begin_again(&self, spent: Duration) -> bool {
        let mut state = self.state();
        state.tally.retries = state.tally.retries.saturating_add(1);
        let left = state.patience.spent() < self.settings.retry;
        state.patience.charge(spent, false);
        left
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(into)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
