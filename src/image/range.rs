//! A piece of a file, fetched again because the first copy was damaged.

use std::io::Read;
use std::ops::Range;

use super::halt::Halt;
use super::http::{Response, Span};
use super::mirrors::{Fault, Mirrors, Stop};
use super::pipe::Gone;
use super::resume::{Fit, fit};
use super::retry::Pause;
use super::turns::{Ask, Wait, Work};
use super::watch::Watch;

/// Which piece of which file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// The file's URL on each mirror, in the order of `rootstream.image=`.
    pub(super) urls: &'a [String],
    /// Its length.
    pub(super) total: u64,
    /// Where the piece begins.
    pub(super) offset: u64,
    /// Mirrors that brought it damaged, each as often as it did: asked last.
    pub(super) avoid: &'a [usize],
}

impl Mirrors<'_> {
    /// Fills `into` with a piece of a file, by one request at a time, and says which mirror it came from. Whether it
    /// is sound is for the caller to check.
    ///
    /// # Errors
    /// `halt` was set, or no mirror has it within `rootstream.retry=`.
    pub(super) fn range(&self, piece: Piece<'_>, halt: &Halt, into: &mut [u8]) -> Result<usize, Stop> {
        let ask = Ask { urls: piece.urls, only: None, avoid: piece.avoid, hasty: false };
        self.go(ask, &mut Request { mirrors: self, piece, halt, into })
    }
}

struct Request<'a> {
    mirrors: &'a Mirrors<'a>,
    piece: Piece<'a>,
    halt: &'a Halt,
    into: &'a mut [u8],
}

impl Work for Request<'_> {
    type Done = usize;

    fn attempt(&mut self, mirror: usize, url: &str) -> Result<usize, Fault> {
        let (from, total) = (self.piece.offset, self.piece.total);
        let last = from.saturating_add(self.into.len() as u64).saturating_sub(1);
        let ranged = self.mirrors.has_ranges(mirror);
        let span = ranged.then_some(Span { from, last: Some(last), strong: None });
        let Response { answer, mut body, .. } = self.mirrors.get(mirror, url, span)?;
        let skip = match fit(from, total, &answer) {
            Fit::Skip(skip) => skip,
            Fit::AskWhole(why) if ranged => return Err(Fault::AskWhole(why)),
            Fit::AskWhole(why) => return Err(Fault::Passing(Pause::Backoff, why)),
            Fit::Other(bytes) => return Err(Fault::Hopeless(another(bytes, total))),
        };
        let mut watch = Watch::new(self.mirrors.settings.stall);
        // What is left out passes through the place of what is wanted.
        let mut left = skip;
        while left > 0 {
            let room = self.into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= self.read(&mut watch, &mut body, 0..room)? as u64;
        }
        let mut filled = 0;
        while filled < self.into.len() {
            filled += self.read(&mut watch, &mut body, filled..self.into.len())?;
        }
        Ok(mirror)
    }

    fn wait(&mut self, wait: &Wait<'_>) -> Result<(), Gone> {
        self.halt.sleep(wait.time)
    }
}

impl Request<'_> {
    /// Reads once, at least one byte.
    fn read(&mut self, watch: &mut Watch, body: &mut dyn Read, place: Range<usize>) -> Result<usize, Fault> {
        self.halt.check()?;
        match watch.read(body, self.into.get_mut(place).unwrap_or_default())? {
            0 => Err(Fault::Passing(Pause::Backoff, "the answer ended early".to_owned())),
            count => Ok(count),
        }
    }
}

/// Why a file of another length is no use.
pub(super) fn another(bytes: u64, wanted: u64) -> String {
    format!("the file there has {bytes} bytes instead of {wanted}: it is another build's, or cut")
}
