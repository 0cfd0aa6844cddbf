//! Brings the file's bytes to the decoder, in order, each once, whatever happens to connections,
//! and digests them on the way.

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::http::{Client, Refusal, Response};
use super::pipe::{Gone, Writer};
use super::progress::{Progress, megabytes};
use super::resume::{Answer, Verdict, Version, judge};
use super::retry::{Patience, Pause};
use super::{Settings, Sources};
use crate::failure::refuse;
use crate::random;

/// Slower than this over the stall time is as good as silent.
const MINIMUM_RATE: u64 = 1024;

/// The whole file was passed on.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Where the last byte came from.
    pub(super) url: String,
    /// Its length.
    pub(super) bytes: u64,
    /// Its digest.
    pub(super) sha256: [u8; 32],
}

/// Why it was not.
#[derive(Debug)]
pub(super) enum Stop {
    /// What was passed on is not the beginning of what is served now.
    Restart(&'static str),
    /// The decoder stopped; it knows why.
    Gone,
    /// Final.
    Failed(anyhow::Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// What happened to one request.
enum End {
    Complete(String),
    /// Ask again for the whole file.
    AskWhole(&'static str),
    Trouble(Pause, String),
    /// This mirror will never do.
    Hopeless(String),
    Stop(Stop),
}

impl From<Gone> for End {
    fn from(gone: Gone) -> Self {
        Self::Stop(gone.into())
    }
}

/// State that survives a restart in an empty tree.
#[derive(Debug)]
pub(super) struct Account {
    /// What is left of `rootstream.retry=`.
    pub(super) patience: Patience,
    /// How often a request had to be made again.
    pub(super) retries: u32,
    /// Bytes passed on to the decoder, in all passes.
    pub(super) received: u64,
}

/// One pass over the file.
pub(super) struct Fetch<'a> {
    settings: &'a Settings,
    mirrors: Vec<Mirror>,
    progress: &'a Progress,
    account: &'a mut Account,
    out: Writer,
    /// Free bytes where the image goes.
    room: u64,
    have: u64,
    version: Version,
    /// The mirror that `version` came from.
    origin: usize,
    digest: Sha256,
    /// When the last byte came that was news, or the request began.
    news: Instant,
}

struct Mirror {
    client: Client,
    /// Cleared when its answers to ranges are no use.
    ranges: bool,
    /// Set when no further try can help.
    hopeless: bool,
}

impl<'a> Fetch<'a> {
    pub(super) fn new(
        sources: Sources<'a>,
        progress: &'a Progress,
        account: &'a mut Account,
        out: Writer,
        room: u64,
    ) -> Self {
        let Sources { settings, resolver: resolve, .. } = sources;
        let mirror =
            |url: &String| Mirror { client: Client::new(url, settings.stall, resolve), ranges: true, hopeless: false };
        let mirrors = settings.urls.iter().map(mirror).collect();
        Self {
            settings,
            mirrors,
            progress,
            account,
            out,
            room,
            have: 0,
            version: Version::default(),
            origin: 0,
            digest: Sha256::new(),
            news: Instant::now(),
        }
    }

    /// Passes the whole file on.
    ///
    /// # Errors
    /// See [`Stop`].
    pub(super) fn run(mut self) -> Result<Fetched, Stop> {
        let mut turn = 0;
        loop {
            let Some(index) = self.next_mirror(turn) else {
                let todo = "give rootstream.image=http://SERVER/IMAGE.tar.gz";
                return Err(Stop::Failed(refuse("no image was given", todo)));
            };
            let url = self.settings.urls.get(index).cloned().unwrap_or_default();
            let before = self.have;
            self.news = Instant::now();
            let end = self.attempt(index).unwrap_or_else(|end| end);
            let received = self.have - before;
            self.account.received += received;
            let (pause, why) = match end {
                End::Complete(url) => {
                    self.out.finish();
                    return Ok(Fetched { url, bytes: self.have, sha256: self.digest.finalize().into() });
                }
                End::Stop(stop) => return Err(stop),
                End::AskWhole(why) => {
                    log::warn!("image: {url}: {why}; asking for the whole file");
                    self.account.retries += 1;
                    continue;
                }
                End::Hopeless(why) => {
                    if let Some(mirror) = self.mirrors.get_mut(index) {
                        mirror.hopeless = true;
                    }
                    if self.next_mirror(turn).is_none() {
                        let todo = "check rootstream.image= and how the server serves the file (curl -v shows it)";
                        return Err(Stop::Failed(refuse(why, todo).context(format!("fetching {url}"))));
                    }
                    log::warn!("image: {url}: {why}; this mirror is given up");
                    self.account.retries += 1;
                    continue;
                }
                End::Trouble(pause, why) => (pause, why),
            };
            self.account.patience.charge(self.news.elapsed());
            turn += 1;
            self.account.retries += 1;
            // A fresh mirror is tried at once; a pause comes when each has had its turn.
            let fresh = turn % self.mirrors.len().max(1) != 0;
            let Some(time) = self.account.patience.pause(pause, received, random::bits(&url)) else {
                return Err(Stop::Failed(given_up(&url, &why, self.settings, self.have)));
            };
            if fresh {
                log::warn!("image: {url}: {why}; trying the next mirror");
                continue;
            }
            self.wait(&url, &why, time, pause)?;
        }
    }

    /// The first mirror from this turn on that is not hopeless.
    fn next_mirror(&self, turn: usize) -> Option<usize> {
        let count = self.mirrors.len();
        (0..count)
            .map(|step| (turn % count + step) % count)
            .find(|index| self.mirrors.get(*index).is_some_and(|mirror| !mirror.hopeless))
    }

    fn wait(&mut self, url: &str, why: &str, pause: Duration, kind: Pause) -> Result<(), Stop> {
        let seconds = pause.as_secs_f64();
        let waiting = match kind {
            Pause::Queued(_) => format!("queued, {seconds:.0} s"),
            _ => format!("next try in {seconds:.1} s"),
        };
        log::warn!("image: {url}: {why}; {} bytes so far, {waiting}", self.have);
        self.progress.note(Some(format!("{why}, {waiting}")));
        self.account.patience.charge(pause);
        let slept = self.out.sleep(pause);
        self.progress.note(None);
        Ok(slept?)
    }

    /// One request and as much of its body as comes.
    fn attempt(&mut self, index: usize) -> Result<End, End> {
        let Some(mirror) = self.mirrors.get(index) else {
            return Err(End::Hopeless("there is no such mirror".to_owned()));
        };
        let ranged = self.have > 0 && mirror.ranges;
        let resume = self.version.strong().filter(|_| ranged).map(|strong| (self.have, strong));
        let asked_whole = resume.is_none();
        let response = match mirror.client.get(resume) {
            Ok(response) => response,
            Err(refusal) => return Err(refused(&refusal)),
        };
        let verdict = judge(self.have, &self.version, &response.answer, index == self.origin);
        log::debug!("image: {}: {:?}: {verdict:?}", response.url, response.answer);
        let (skip, compare) = match verdict {
            Verdict::Skip(skip) => (skip, false),
            Verdict::Compare(skip) => (skip, true),
            Verdict::Restart(why) => return Err(End::Stop(Stop::Restart(why))),
            Verdict::AskWhole(why) if asked_whole => {
                return Err(End::Trouble(Pause::Backoff, format!("useless answer: {why}")));
            }
            Verdict::AskWhole(why) => {
                if let Some(mirror) = self.mirrors.get_mut(index) {
                    mirror.ranges = false;
                }
                return Err(End::AskWhole(why));
            }
        };
        self.receive(index, response, skip, compare)
    }

    fn receive(&mut self, index: usize, response: Response, skip: u64, compare: bool) -> Result<End, End> {
        let Response { answer, url, mut body } = response;
        let mut watch = Watch { stall: self.settings.stall, waited: Duration::ZERO, bytes: 0 };
        let mut copy = compare.then(Sha256::new);
        let mut left = skip;
        while left > 0 {
            let space = self.out.space()?;
            let room = space.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let space = space.get_mut(..room).unwrap_or_default();
            let count = watch.read(&mut body, space)?;
            if count == 0 {
                return Err(End::Trouble(Pause::Backoff, "the answer ended before what we have".to_owned()));
            }
            if let Some(copy) = &mut copy {
                copy.update(space.get(..count).unwrap_or_default());
            }
            left -= count as u64;
        }
        if copy.is_some_and(|copy| copy.finalize() != self.digest.clone().finalize()) {
            return Err(End::Stop(Stop::Restart("the image was replaced")));
        }
        self.adopt(index, answer);
        self.refuse_too_large(&url)?;
        loop {
            let space = self.out.space()?;
            let count = watch.read(&mut body, space)?;
            if count == 0 {
                break;
            }
            self.digest.update(space.get(..count).unwrap_or_default());
            self.out.wrote(count);
            self.have += count as u64;
            self.progress.received(self.have);
            self.news = Instant::now();
        }
        match self.version.total {
            Some(total) if self.have < total => {
                Err(End::Trouble(Pause::Backoff, format!("the answer ended {} bytes early", total - self.have)))
            }
            Some(total) if self.have > total => {
                let what = format!("fetching {url}: {} bytes came, {total} were announced", self.have);
                Err(End::Stop(Stop::Failed(refuse(what, "check the server, or a proxy in between"))))
            }
            _ => Ok(End::Complete(url)),
        }
    }

    /// An image that is larger packed than the room for it unpacked is not worth downloading.
    fn refuse_too_large(&self, url: &str) -> Result<(), End> {
        match self.version.total {
            Some(total) if self.have == 0 && total > self.room => {
                let (total, room) = (megabytes(total), megabytes(self.room));
                let what = format!("{url} is {total} MB, but only {room} MB are free where it goes");
                let todo = "give the node more memory (or rootstream.tmpfs=size=), or make the image smaller";
                Err(End::Stop(Stop::Failed(refuse(what, todo))))
            }
            _ => Ok(()),
        }
    }

    /// From now on this mirror's names for the file are ours.
    fn adopt(&mut self, index: usize, answer: Answer) {
        self.version = match answer {
            Answer::Whole(version) => version,
            Answer::Part { version, .. } => Version { total: version.total.or(self.version.total), ..version },
            Answer::Useless(_) => return,
        };
        self.origin = index;
        self.progress.total(self.version.total.unwrap_or(0));
    }
}

/// What a refusal means for the tries to come.
fn refused(refusal: &Refusal) -> End {
    let why = refusal.to_string();
    match refusal {
        Refusal::Passing(_) => End::Trouble(Pause::Backoff, why),
        Refusal::Status(_) | Refusal::Busy(_, None) => End::Trouble(Pause::Slow, why),
        Refusal::Busy(_, Some(after)) => End::Trouble(Pause::Queued(*after), why),
        Refusal::Permanent(_) => End::Hopeless(why),
    }
}

/// Reads, and notices a body that trickles. Only time spent waiting for the network counts.
struct Watch {
    stall: Duration,
    waited: Duration,
    bytes: u64,
}

impl Watch {
    fn read(&mut self, body: &mut dyn std::io::Read, into: &mut [u8]) -> Result<usize, End> {
        let since = Instant::now();
        let count =
            body.read(into).map_err(|error| End::Trouble(Pause::Backoff, format!("the transfer broke: {error}")))?;
        self.waited += since.elapsed();
        self.bytes += count as u64;
        if self.waited >= self.stall {
            if self.bytes < MINIMUM_RATE.saturating_mul(self.waited.as_secs().max(1)) {
                let why = format!("only {} bytes in {:.1} s", self.bytes, self.waited.as_secs_f64());
                return Err(End::Trouble(Pause::Backoff, why));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(count)
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
