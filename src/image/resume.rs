//! Whether an answer continues the image that is already half unpacked. No I/O.
//!
//! Two images are never spliced. An answer is believed to continue ours when it carries the same
//! strong validator, and comes from the same server or the validator is a digest; any other whole
//! answer is compared with the digest of what we have.

/// What names one version of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// A strong entity tag, with its quotes.
    pub(super) etag: Option<String>,
    /// The Last-Modified date as sent.
    pub(super) modified: Option<String>,
    /// Length of the whole file.
    pub(super) total: Option<u64>,
}

impl Version {
    /// What If-Range may carry. Last-Modified has a resolution of a second and so is weak.
    pub(super) fn strong(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// Whether its entity tag is made of the bytes themselves, so that it means the same on every server: a sha256, as
    /// `rootstream up` sends. Other servers' tags are numbers of their own, of dates or versions.
    pub(super) fn is_digest(&self) -> bool {
        let tag = self.etag.as_deref().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
        tag.is_some_and(|tag| tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    fn same_as(&self, other: &Self) -> bool {
        self.etag.is_some() && self.etag == other.etag && !self.length_differs(other)
    }

    fn length_differs(&self, other: &Self) -> bool {
        matches!((self.total, other.total), (Some(ours), Some(theirs)) if ours != theirs)
    }

    fn differs(&self, other: &Self) -> bool {
        self.length_differs(other)
            || matches!((&self.etag, &other.etag), (Some(ours), Some(theirs)) if ours != theirs)
            || (self.etag.is_none() && self.modified.is_some() && self.modified != other.modified)
    }
}

/// The head of an answer that has a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200: the whole file.
    Whole(Version),
    /// 206 from this offset.
    Part {
        /// The first byte's offset.
        start: u64,
        /// What it is a part of.
        version: Version,
    },
    /// 206 without a usable Content-Range, or 416; what the server did.
    Useless(&'static str),
}

/// What to do with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on after dropping this many bytes, which are ours already.
    Skip(u64),
    /// Go on after this many bytes, if their digest is that of ours.
    Compare(u64),
    /// Ask again, for the whole file: what the server sent is no use.
    AskWhole(String),
    /// It is another file: begin again in an empty tree.
    Restart(&'static str),
}

/// Judges an answer when `have` bytes of `ours` have been passed on. `same_server` says that ours
/// came from where this answer comes from; other mirrors may tag the same bytes differently, and others the same.
pub(super) fn judge(have: u64, ours: &Version, answer: &Answer, same_server: bool) -> Verdict {
    match answer {
        Answer::Whole(_) if have == 0 => Verdict::Skip(0),
        Answer::Whole(theirs) if ours.length_differs(theirs) => Verdict::Restart("the image's length has changed"),
        Answer::Whole(theirs) if same_server && ours.differs(theirs) => Verdict::Restart("the image was replaced"),
        Answer::Whole(_) => Verdict::Compare(have),
        Answer::Part { .. } if have == 0 => {
            Verdict::AskWhole("the server sent a part, which was not asked for".to_owned())
        }
        Answer::Part { start, .. } if *start > have => Verdict::AskWhole(beyond(*start, have)),
        Answer::Part { start, version } if ours.same_as(version) && (same_server || ours.is_digest()) => {
            Verdict::Skip(have - start)
        }
        Answer::Part { version, .. } if ours.length_differs(version) => {
            Verdict::Restart("the image's length has changed")
        }
        Answer::Part { version, .. } if same_server && ours.differs(version) => {
            Verdict::Restart("the image was replaced")
        }
        Answer::Part { .. } => {
            Verdict::AskWhole("the server sent a part without proof that it belongs to what is here".to_owned())
        }
        Answer::Useless(what) => Verdict::AskWhole(format!("the server {what}")),
    }
}

/// What to do with an answer of a file whose every piece is checked against a digest of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Go on after dropping this many bytes, which are ours already.
    Skip(u64),
    /// Ask again, for the whole file: what the server sent is no use.
    AskWhole(String),
    /// Another file has this name there: this many bytes long.
    Other(u64),
}

/// Judges an answer when `have` bytes of a file of `size` bytes are ours, and each piece of it is checked later: any
/// answer that covers what comes next will do.
pub(super) fn fit(have: u64, size: u64, answer: &Answer) -> Fit {
    let total = match answer {
        Answer::Whole(version) | Answer::Part { version, .. } => version.total,
        Answer::Useless(what) => return Fit::AskWhole(format!("the server {what}")),
    };
    match (answer, total) {
        (_, Some(total)) if total != size => Fit::Other(total),
        (Answer::Part { start, .. }, _) if *start > have => Fit::AskWhole(beyond(*start, have)),
        (Answer::Part { start, .. }, _) => Fit::Skip(have - start),
        _ => Fit::Skip(have),
    }
}

fn beyond(start: u64, have: u64) -> String {
    format!("the server sent bytes {start}.. instead of {have}..")
}

/// Reads `bytes START-END/TOTAL`; START and TOTAL if it is one well-formed range.
pub(super) fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let sound = start <= end && total.is_none_or(|total| end < total);
    sound.then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(etag: Option<&str>, total: u64) -> Version {
        Version { etag: etag.map(str::to_owned), modified: None, total: Some(total) }
    }

    // F27, F28
    #[test]
    fn every_answer_to_a_resume_is_judged() {
        let ours = version(Some("\"a\""), 1000);
        let bare = version(None, 1000);
        let sha256 = version(Some(&format!("\"{}\"", "0aF".repeat(22).split_at(64).0)), 1000);
        let short = version(Some(&format!("\"{}\"", "0".repeat(63))), 1000);
        let other = version(Some(&format!("\"{}\"", "g".repeat(64))), 1000);
        let part = |start, version: &Version| Answer::Part { start, version: version.clone() };
        let whole = |version: &Version| Answer::Whole(version.clone());
        let cases = [
            (400, &ours, part(400, &ours), true, Verdict::Skip(0)),
            (400, &ours, part(100, &ours), true, Verdict::Skip(300)),
            (400, &sha256, part(100, &sha256), false, Verdict::Skip(300)),
            (400, &ours, whole(&ours), true, Verdict::Compare(400)),
            (400, &ours, whole(&ours), false, Verdict::Compare(400)),
            (400, &ours, whole(&version(Some("\"b\""), 1000)), true, Verdict::Restart("the image was replaced")),
            (400, &ours, whole(&version(Some("\"b\""), 1000)), false, Verdict::Compare(400)),
            (400, &ours, part(400, &version(Some("\"b\""), 1000)), true, Verdict::Restart("the image was replaced")),
            (400, &ours, whole(&version(Some("\"a\""), 999)), true, Verdict::Restart("the image's length has changed")),
            (
                400,
                &ours,
                part(400, &version(Some("\"a\""), 9)),
                false,
                Verdict::Restart("the image's length has changed"),
            ),
            (400, &bare, whole(&bare), true, Verdict::Compare(400)),
            (0, &Version::default(), whole(&bare), true, Verdict::Skip(0)),
        ];
        for (have, ours, answer, same_server, verdict) in cases {
            assert_eq!(judge(have, ours, &answer, same_server), verdict, "{have} {ours:?} {answer:?} {same_server}");
        }
        for (have, ours, answer, same_server) in [
            (400, &ours, part(401, &ours), true),
            (400, &ours, part(400, &ours), false),
            (400, &short, part(400, &short), false),
            (400, &other, part(400, &other), false),
            (400, &ours, part(400, &bare), true),
            (400, &ours, part(400, &version(Some("\"b\""), 1000)), false),
            (400, &bare, part(400, &bare), true),
            (0, &ours, part(0, &ours), true),
            (400, &ours, Answer::Useless("sent 416"), true),
        ] {
            let verdict = judge(have, ours, &answer, same_server);
            assert!(matches!(verdict, Verdict::AskWhole(_)), "{have} {ours:?} {answer:?}: {verdict:?}");
        }
    }

    // F24, F27
    #[test]
    fn any_answer_of_the_right_length_continues_what_is_checked_by_pieces() {
        let part = |start, total| Answer::Part { start, version: Version { total, ..Version::default() } };
        let whole = |total| Answer::Whole(Version { total, ..Version::default() });
        for (have, answer, wanted) in [
            (400, part(400, Some(1000)), Fit::Skip(0)),
            (400, part(100, Some(1000)), Fit::Skip(300)),
            (400, part(100, None), Fit::Skip(300)),
            (0, part(0, Some(1000)), Fit::Skip(0)),
            (400, whole(Some(1000)), Fit::Skip(400)),
            (400, whole(None), Fit::Skip(400)),
            (400, part(400, Some(999)), Fit::Other(999)),
            (0, whole(Some(1001)), Fit::Other(1001)),
            (400, part(401, Some(1000)), Fit::AskWhole("the server sent bytes 401.. instead of 400..".to_owned())),
            (400, Answer::Useless("sent 416"), Fit::AskWhole("the server sent 416".to_owned())),
        ] {
            assert_eq!(fit(have, 1000, &answer), wanted, "{have} {answer:?}");
        }
    }

    #[test]
    fn a_date_that_moved_is_another_image() {
        let dated = |date: &str| Version { etag: None, modified: Some(date.to_owned()), total: Some(9) };
        assert_eq!(judge(4, &dated("x"), &Answer::Whole(dated("x")), true), Verdict::Compare(4));
        assert_eq!(judge(4, &dated("x"), &Answer::Whole(dated("y")), true), Verdict::Restart("the image was replaced"));
    }

    #[test]
    fn ranges_are_read_strictly() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in
            ["bytes */10", "bytes 5-10/10", "bytes 9-5/10", "5-9/10", "bytes 5-9", "bytes -5-9/10", "bytes a-b/c"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
