//! A file that is half here: what to ask for, which answers continue it, and when it is whole. No I/O.

use super::http::Span;
use super::resume::{Answer, Fit, Verdict, Version, fit, judge};

/// How it will be known that the bytes belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// By nothing but the servers' word: two answers are joined only where entity tags or digests say so.
    Stream,
    /// Each piece is checked later against a digest of its own, and the file has `size` bytes: any answer may be joined,
    /// and there is no digest of the whole.
    Chunks {
        /// Bytes of the file.
        size: u64,
    },
}

/// What is known of it.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    proof: Proof,
    have: u64,
    version: Version,
    /// The mirror that `version` came from.
    origin: Option<usize>,
    /// Mirrors that have another version, as they said once.
    others: Vec<usize>,
}

/// What to do with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on after dropping this many bytes, which are here already.
    Skip(u64),
    /// Go on after this many bytes, if they are those that are here; otherwise see [`Transfer::differs`].
    Compare(u64),
    /// What the server sent is no use; for the whole file it may be.
    AskWhole(String),
    /// Another file has this name there, of this many bytes instead of those that it must have.
    Other(u64, u64),
    /// Another version than the one that is half here.
    Differs(Difference),
}

/// A mirror has another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// The one that what is here came from may come back, and so that is not thrown away at the first such word.
    Doubtful(&'static str),
    /// Begin again with nothing.
    Certain(&'static str),
}

/// What the end of an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All is here, as far as anybody said how much that is.
    Complete,
    /// So many bytes are missing.
    Early(u64),
    /// More came than this.
    Beyond(u64),
}

impl Transfer {
    /// Nothing is here.
    pub(super) fn new(proof: Proof) -> Self {
        Self { proof, have: 0, version: Version::default(), origin: None, others: Vec::new() }
    }

    /// How many bytes are here.
    pub(super) fn have(&self) -> u64 {
        self.have
    }

    /// What to ask a mirror for, instead of the whole file; `ranged`: its answers to that are of use.
    pub(super) fn span(&self, mirror: usize, ranged: bool) -> Option<Span<'_>> {
        if self.have == 0 || !ranged {
            return None;
        }
        let strong = match self.proof {
            Proof::Chunks { .. } => None,
            Proof::Stream if self.origin == Some(mirror) || self.version.is_digest() => Some(self.version.strong()?),
            Proof::Stream => return None,
        };
        Some(Span { from: self.have, last: None, strong })
    }

    /// Judges a mirror's answer by its head.
    pub(super) fn judge(&mut self, mirror: usize, answer: &Answer) -> Step {
        match self.proof {
            Proof::Chunks { size } => match fit(self.have, size, answer) {
                Fit::Skip(skip) => Step::Skip(skip),
                Fit::AskWhole(why) => Step::AskWhole(why),
                Fit::Other(bytes) => Step::Other(bytes, size),
            },
            Proof::Stream => match judge(self.have, &self.version, answer, self.origin == Some(mirror)) {
                Verdict::Skip(skip) => Step::Skip(skip),
                Verdict::Compare(skip) => Step::Compare(skip),
                Verdict::AskWhole(why) => Step::AskWhole(why),
                Verdict::Restart(why) => Step::Differs(self.differs(mirror, why)),
            },
        }
    }

    /// A mirror has another version.
    pub(super) fn differs(&mut self, mirror: usize, why: &'static str) -> Difference {
        if self.origin == Some(mirror) || self.others.contains(&mirror) {
            return Difference::Certain(why);
        }
        self.others.push(mirror);
        Difference::Doubtful(why)
    }

    /// Its answer is what continues: from now on this mirror's names for the file are ours.
    pub(super) fn adopt(&mut self, mirror: usize, answer: Answer) {
        self.version = match answer {
            Answer::Whole(version) => version,
            Answer::Part { version, .. } => Version { total: version.total.or(self.version.total), ..version },
            Answer::Useless(_) => return,
        };
        self.origin = Some(mirror);
    }

    /// That many bytes more are here.
    pub(super) fn received(&mut self, bytes: u64) {
        self.have += bytes;
    }

    /// The length of the file, where it is known.
    pub(super) fn total(&self) -> Option<u64> {
        match self.proof {
            Proof::Chunks { size } => Some(size),
            Proof::Stream => self.version.total,
        }
    }

    /// Whether another mirror could go on from here at no cost; `ranged`: this one's answers to ranges are of use.
    pub(super) fn joins_anywhere(&self, ranged: bool) -> bool {
        match self.proof {
            Proof::Chunks { .. } => true,
            Proof::Stream => self.version.is_digest() && ranged,
        }
    }

    /// Whether all is here, without having seen the end: only where the length is no server's word.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.proof, Proof::Chunks { size } if self.have >= size)
    }

    /// An answer has ended.
    pub(super) fn ended(&self) -> End {
        match self.total() {
            Some(total) if self.have < total => End::Early(total - self.have),
            Some(total) if self.have > total => End::Beyond(total),
            _ => End::Complete,
        }
    }
}
