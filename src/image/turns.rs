//! The one way in which all requests go on after a failure: the next mirror, a pause, or the end.

use std::fmt;
use std::time::{Duration, Instant};

use super::Settings;
use super::choice::Pick;
use super::mirrors::{Fault, Mirrors, Stop};
use super::pipe::Gone;
use super::progress::megabytes;
use super::retry::{Pause, QUEUES, WORTHWHILE};
use crate::failure::refuse;
use crate::random;
use crate::say;
use crate::wording::counted;

/// What is asked of the mirrors.
pub(super) trait Work {
    /// What comes of it.
    type Done;

    /// One request to this mirror.
    fn attempt(&mut self, mirror: usize, url: &str) -> Result<Self::Done, Fault>;

    /// Bytes that are there to stay, whatever happens next; none where each request begins anew.
    fn have(&self) -> u64 {
        0
    }

    /// Since when the request that just failed brought nothing, if it brought something before.
    fn news(&self) -> Option<Instant> {
        None
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// There will be no next try.
    fn wait(&mut self, wait: &Wait<'_>) -> Result<(), Gone>;
}

/// A pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait<'a> {
    /// How long.
    pub(super) time: Duration,
    /// What went wrong before.
    pub(super) why: &'a str,
    /// The server said when to come back.
    pub(super) queued: bool,
}

/// Which mirrors are asked, and under which names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// The file's URL on each mirror, in the order of [`Mirrors`]; empty where it is not.
    pub(super) urls: &'a [String],
    /// Only this mirror.
    pub(super) only: Option<usize>,
    /// Rather not these, which brought damage as often as they are there.
    pub(super) avoid: &'a [usize],
    /// Give up after a second failure, or when the server is busy.
    pub(super) hasty: bool,
}

/// Why a hasty request was given up: later it may work.
#[derive(Debug)]
pub(super) struct Hasty(String);

impl fmt::Display for Hasty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be fetched now", self.0)
    }
}

impl Ask<'_> {
    /// Whether this mirror is asked at all.
    pub(super) fn allows(&self, mirror: usize) -> bool {
        self.only.is_none_or(|only| only == mirror) && self.urls.get(mirror).is_some_and(|url| !url.is_empty())
    }
}

impl Mirrors<'_> {
    /// Asks mirror after mirror until `work` is done or there is no point in going on.
    pub(super) fn go<W: Work>(&self, ask: Ask<'_>, work: &mut W) -> Result<W::Done, Stop> {
        let mut last: Option<(String, bool)> = None;
        let mut failures = 0;
        loop {
            let mirror = match self.pick(ask) {
                Pick::Now(mirror) => mirror,
                Pick::Wait(time) => {
                    let (why, queued) =
                        last.clone().unwrap_or_else(|| ("the servers were asked before".to_owned(), false));
                    let mut state = self.state();
                    let in_queue = state.choice.is_queued(|mirror| ask.allows(mirror));
                    state.patience.charge(time, in_queue);
                    drop(state);
                    work.wait(&Wait { time, why: &why, queued })?;
                    continue;
                }
                Pick::Nobody => return Err(Stop::Failed(nobody(ask, &self.state().reasons))),
            };
            let url = ask.urls.get(mirror).map(String::as_str).unwrap_or_default();
            let (before, begun) = (work.have(), Instant::now());
            self.state().choice.begin(mirror);
            let outcome = work.attempt(mirror, url);
            let received = work.have() - before;
            self.state().tally.bytes += received;
            let (pause, why) = match outcome {
                Ok(done) => {
                    self.state().choice.worked(mirror);
                    return Ok(done);
                }
                Err(Fault::Stop(stop)) => return Err(stop),
                Err(Fault::Turn { to: other, slow }) => {
                    let name = ask.urls.get(other).map(String::as_str).unwrap_or_default();
                    match slow.map(megabytes) {
                        Some(rate) => {
                            say::info!("image: {url} is slow ({rate} MB/s); trying whether {name} is faster");
                        }
                        None => say::info!("image: {url} may have another file; going back to {name}"),
                    }
                    let mut state = self.state();
                    state.tally.switches = state.tally.switches.saturating_add(1);
                    state.choice.begin(other);
                    continue;
                }
                Err(Fault::AskWhole(why)) => {
                    self.count(mirror, url, &why);
                    self.asks_whole(mirror);
                    say::warn!("image: {url}: {why}; asking for the whole file");
                    continue;
                }
                Err(Fault::Hopeless(why)) => {
                    self.count(mirror, url, &why);
                    self.state().choice.give_up(mirror);
                    if self.pick(ask) == Pick::Nobody {
                        let todo = "check the URL and how the server serves the file (curl -v shows it)";
                        return Err(Stop::Failed(refuse(why, todo).context(format!("fetching {url}"))));
                    }
                    say::warn!("image: {url}: {why}; this mirror is given up");
                    continue;
                }
                Err(Fault::Passing(pause, why)) => (pause, why),
            };
            self.count(mirror, url, &why);
            let wasted = work.news().unwrap_or(begun).max(begun).elapsed();
            if !self.rest(ask, mirror, pause, received, wasted) {
                return Err(Stop::Failed(given_up(url, &why, self.settings, work.have(), pause)));
            }
            let queued = matches!(pause, Pause::Queued(_));
            failures += 1;
            if ask.hasty && (queued || failures >= 2) {
                return Err(Stop::Failed(anyhow::Error::msg(why).context(Hasty(url.to_owned()))));
            }
            match self.pick(ask) {
                Pick::Wait(time) => {
                    let waiting = match time.as_secs_f64() {
                        seconds if queued => format!("queued, {seconds:.0} s"),
                        seconds => format!("next try in {seconds:.1} s"),
                    };
                    say::warn!("image: {url}: {why}; {} bytes so far, {waiting}", work.have());
                }
                Pick::Now(_) | Pick::Nobody => say::warn!("image: {url}: {why}; trying the next mirror"),
            }
            last = Some((why, queued));
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

    fn count(&self, mirror: usize, url: &str, why: &str) {
        let mut state = self.state();
        state.tally.failed(url, why);
        if let Some(share) = state.tally.mirrors.get_mut(mirror) {
            share.failures = share.failures.saturating_add(1);
        }
        if let Some(reason) = state.reasons.get_mut(mirror) {
            why.clone_into(reason);
        }
    }

    /// Lets a mirror that failed rest for a while; false when patience is over.
    fn rest(&self, ask: Ask<'_>, mirror: usize, pause: Pause, received: u64, wasted: Duration) -> bool {
        let mut state = self.state();
        if received >= WORTHWHILE {
            state.choice.worked(mirror);
        }
        let vain = state.choice.failed(mirror, matches!(pause, Pause::Queued(_)));
        let in_queue = state.choice.is_queued(|mirror| ask.allows(mirror));
        state.patience.charge(wasted, in_queue);
        let Some(pause) = state.patience.pause(pause, vain, random::bits(mirror)) else { return false };
        state.choice.rest(mirror, self.start.elapsed() + pause);
        true
    }
}

fn nobody(ask: Ask<'_>, reasons: &[String]) -> anyhow::Error {
    if ask.urls.is_empty() {
        return refuse("no image was given", "give rootstream.image=http://SERVER/IMAGE.tar.gz");
    }
    let asked = ask.urls.iter().zip(reasons).filter(|(url, _)| !url.is_empty());
    let each = asked.map(|(url, why)| format!("{url}: {why}")).collect::<Vec<_>>().join("; ");
    refuse(format!("no server is left to ask: {each}"), "mend what each server is said to do wrong")
}

fn given_up(url: &str, why: &str, settings: &Settings, have: u64, pause: Pause) -> anyhow::Error {
    let what = if have == 0 { format!("fetching {url}") } else { format!("fetching {url} beyond byte {have}") };
    let others = settings.urls.len().saturating_sub(1);
    let mirrors =
        if others == 0 { String::new() } else { format!(", {} tried", counted(others as u64, "more mirror")) };
    let todo = match pause {
        Pause::Queued(_) => format!(
            "give the server more room for transfers; its queue did not end in {} s ({QUEUES} times rootstream.retry=){mirrors}",
            settings.retry.saturating_mul(QUEUES).as_secs()
        ),
        Pause::Backoff | Pause::Slow => format!(
            "check the URL, the server and the network to it; tried for {} s (rootstream.retry=){mirrors}",
            settings.retry.as_secs()
        ),
    };
    refuse(why, todo).context(what)
}
