//! Brings the file's bytes to the decoder, in order, each once, whatever happens to connections,
//! and digests them on the way.

use std::time::Instant;

use minisign_verify::StreamVerifier;
use sha2::{Digest as _, Sha256};

use super::http::Response;
use super::mirrors::{Fault, Mirrors, Stop};
use super::pace::{Pace, takes_long};
use super::pipe::{Gone, Writer};
use super::progress::{Doing, Progress, megabytes};
use super::range::another;
use super::resume::Answer;
use super::retry::Pause;
use super::transfer::{Difference, End, Proof, Step, Transfer};
use super::trust;
use super::turns::{Ask, Wait, Work};
use super::watch::Watch;
use crate::failure::{Advise as _, refuse};
use crate::say;
use crate::url::authority;

/// More than this is not read again only to find out whether another mirror is faster.
const CHEAP: u64 = 1 << 20;

/// The whole file was passed on.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Where the last byte came from.
    pub(super) url: String,
    /// Its length.
    pub(super) bytes: u64,
    /// Its digest, with [`Proof::Stream`].
    pub(super) sha256: Option<[u8; 32]>,
}

/// Where the bytes go.
pub(super) struct Target<'a> {
    /// Told how far it is.
    pub(super) progress: &'a Progress,
    /// Takes the bytes.
    pub(super) out: Writer,
    /// Free bytes where the image goes.
    pub(super) room: u64,
    /// Compares the bytes with a signature.
    pub(super) verifier: Option<StreamVerifier<'a>>,
}

impl Mirrors<'_> {
    /// Passes a whole file on, in order, each byte once. `urls` are its names on each mirror.
    ///
    /// # Errors
    /// See [`Stop`].
    pub(super) fn stream(&self, urls: &[String], proof: Proof, target: Target<'_>) -> Result<Fetched, Stop> {
        let Target { progress, out, room, verifier } = target;
        let digest = match proof {
            Proof::Stream => Some(Sha256::new()),
            Proof::Chunks { size } => {
                progress.total(size);
                None
            }
        };
        self.forget_givers();
        let ask = Ask { urls, only: None, avoid: &[], hasty: false };
        let mut fetch = Fetch {
            mirrors: self,
            ask,
            progress,
            out,
            room,
            transfer: Transfer::new(proof),
            turned: None,
            digest,
            verifier,
            news: None,
        };
        let url = self.go(ask, &mut fetch)?;
        fetch.out.finish();
        if let Some(verifier) = fetch.verifier {
            let todo = "sign the file again where it is made, and compare the two on each server (minisign -V)";
            let verified = trust::finish(verifier).advise(format!("{url} is refused"), todo);
            verified.map_err(Stop::Damaged)?;
        }
        Ok(Fetched { url, bytes: fetch.transfer.have(), sha256: fetch.digest.map(|digest| digest.finalize().into()) })
    }
}

/// A file on its way.
struct Fetch<'a> {
    mirrors: &'a Mirrors<'a>,
    ask: Ask<'a>,
    progress: &'a Progress,
    out: Writer,
    room: u64,
    transfer: Transfer,
    /// The mirror that was left although it did well, in the hope of a faster one.
    turned: Option<usize>,
    digest: Option<Sha256>,
    verifier: Option<StreamVerifier<'a>>,
    /// When the last byte came that was news.
    news: Option<Instant>,
}

impl Work for Fetch<'_> {
    type Done = String;

    fn attempt(&mut self, mirror: usize, url: &str) -> Result<String, Fault> {
        let span = self.transfer.span(mirror, self.mirrors.has_ranges(mirror));
        let asked_whole = span.is_none();
        let several = self.ask.urls.len() > 1;
        self.progress.from(several.then(|| authority(url).to_owned()), self.mirrors.tally().retries);
        let response = self.mirrors.get(mirror, url, span)?;
        let (skip, compare) = self.judge(mirror, &response.answer, asked_whole)?;
        say::debug!("image: {}: {:?}: after {skip} bytes", response.url, response.answer);
        if let Some(before) = self.turned.take()
            && compare
            && skip > CHEAP
        {
            self.mirrors.state().choice.measured(mirror, 0);
            return Err(Fault::Turn { to: before, slow: None });
        }
        self.progress.doing(Doing::Receiving);
        self.receive(mirror, response, skip, compare)
    }

    fn have(&self) -> u64 {
        self.transfer.have()
    }

    fn news(&self) -> Option<Instant> {
        self.news
    }

    fn wait(&mut self, wait: &Wait<'_>) -> Result<(), Gone> {
        let until = Instant::now() + wait.time;
        self.progress.doing(Doing::Waiting { why: wait.why.to_owned(), queued: wait.queued, until });
        self.out.sleep(wait.time)
    }
}

impl Fetch<'_> {
    /// How many bytes of an answer to leave out, and whether they must be compared with what we have.
    fn judge(&mut self, mirror: usize, answer: &Answer, asked_whole: bool) -> Result<(u64, bool), Fault> {
        match self.transfer.judge(mirror, answer) {
            Step::Skip(skip) => Ok((skip, false)),
            Step::Compare(skip) => Ok((skip, true)),
            Step::AskWhole(why) if asked_whole => Err(Fault::Passing(Pause::Backoff, why)),
            Step::AskWhole(why) => Err(Fault::AskWhole(why)),
            Step::Other(bytes, wanted) => Err(Fault::Hopeless(another(bytes, wanted))),
            Step::Differs(difference) => Err(difference.into()),
        }
    }

    fn receive(&mut self, mirror: usize, response: Response, skip: u64, compare: bool) -> Result<String, Fault> {
        let Response { answer, url, mut body } = response;
        let mut watch = Watch::new(self.mirrors.settings.stall);
        let mut pace = Pace::new(self.mirrors.tally().switches);
        let mut copy = compare.then(Sha256::new);
        let mut left = skip;
        while left > 0 {
            let space = self.out.space()?;
            let room = space.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let space = space.get_mut(..room).unwrap_or_default();
            let count = watch.read(&mut body, space)?;
            if count == 0 {
                return Err(Fault::Passing(Pause::Backoff, "the answer ended before what we have".to_owned()));
            }
            if let Some(copy) = &mut copy {
                copy.update(space.get(..count).unwrap_or_default());
            }
            left -= count as u64;
        }
        if copy.map(Sha256::finalize) != self.digest.clone().filter(|_| compare).map(Sha256::finalize) {
            return Err(self.transfer.differs(mirror, "the image was replaced").into());
        }
        self.transfer.adopt(mirror, answer);
        self.progress.total(self.transfer.total().unwrap_or(0));
        self.refuse_too_large(&url)?;
        self.mirrors.gives(self.transfer.have(), mirror);
        while !self.transfer.is_complete() {
            let since = Instant::now();
            let space = self.out.space()?;
            self.progress.held_up(since.elapsed());
            let count = watch.read(&mut body, space)?;
            if count == 0 {
                break;
            }
            if let Some(digest) = &mut self.digest {
                digest.update(space.get(..count).unwrap_or_default());
            }
            if let Some(verifier) = &mut self.verifier {
                verifier.update(space.get(..count).unwrap_or_default());
            }
            self.out.wrote(count);
            self.transfer.received(count as u64);
            self.progress.received(self.transfer.have());
            self.news = Some(Instant::now());
            if self.mirrors.is_doubted(mirror) {
                return Err(Fault::Hopeless("what comes from there is damaged".to_owned()));
            }
            if let Some(rate) = pace.add(count as u64, watch.took()) {
                self.mirrors.state().choice.measured(mirror, rate);
                self.rather_another(mirror, rate)?;
            }
        }
        match self.transfer.ended() {
            End::Complete => Ok(url),
            End::Early(missing) => {
                Err(Fault::Passing(Pause::Backoff, format!("the answer ended {missing} bytes early")))
            }
            End::Beyond(total) => {
                let what = format!("fetching {url}: {} bytes came, {total} were announced", self.transfer.have());
                Err(Fault::Stop(Stop::Failed(refuse(what, "check the server, or a proxy in between"))))
            }
        }
    }

    /// Leaves a slow mirror for one that may be faster, where that costs next to nothing.
    fn rather_another(&mut self, mirror: usize, rate: u64) -> Result<(), Fault> {
        let joins = self.transfer.joins_anywhere(self.mirrors.has_ranges(mirror));
        let left = self.transfer.total().map(|total| total.saturating_sub(self.transfer.have()));
        if !joins || !takes_long(left, rate) {
            return Ok(());
        }
        let now = self.mirrors.start.elapsed();
        let Some(other) = self.mirrors.state().choice.faster(mirror, now, |other| self.ask.allows(other)) else {
            return Ok(());
        };
        self.turned = Some(mirror);
        Err(Fault::Turn { to: other, slow: Some(rate) })
    }

    /// An image that is larger packed than the room for it unpacked is not worth downloading.
    fn refuse_too_large(&self, url: &str) -> Result<(), Fault> {
        match self.transfer.total() {
            Some(total) if self.transfer.have() == 0 && total > self.room => {
                let (total, room) = (megabytes(total), megabytes(self.room));
                let what = format!("{url} is {total} MB, but only {room} MB are free where it goes");
                let todo = "give the node more memory (or rootstream.tmpfs=size=), or make the image smaller";
                Err(Fault::Stop(Stop::Failed(refuse(what, todo))))
            }
            _ => Ok(()),
        }
    }
}

impl From<Difference> for Fault {
    fn from(difference: Difference) -> Self {
        match difference {
            Difference::Certain(why) => Self::Stop(Stop::Restart(why)),
            Difference::Doubtful(why) => {
                Self::Passing(Pause::Slow, format!("another version than the one that is half here ({why})"))
            }
        }
    }
}
