//! What is joined out of the answers of HTTP servers.

use crate::image::resume::{Answer, Fit, Version, content_range, fit};
use crate::image::transfer::{Difference, End, Proof, Step, Transfer};

/// Transfers of two versions of a file from servers that break off, ignore ranges, replace the one by the other, and
/// tell little about which they serve; but a strong entity tag is never that of another version. What is received is
/// always the beginning of one version. The input decides what the servers do.
pub fn ranges(input: &[u8]) {
    if let Some((start, total)) = std::str::from_utf8(input).ok().and_then(content_range) {
        assert!(total.is_none_or(|total| start < total));
    }
    let mut bytes = input.iter().copied();
    let mut take = || usize::from(bytes.next().unwrap_or_default());
    let files = files(take(), take(), take());
    let mut client = Client::new();
    let mut had = Vec::new();
    for _ in 0..24 {
        let (what, start, cut) = (take(), take(), take());
        let mirror = what & 1;
        let version = usize::from(what & 2 != 0);
        let told = Told { etag: what & 4 != 0, date: what & 8 != 0, length: what & 16 != 0 };
        let file = &files[version];
        let known = told.version(version, mirror * usize::from(what & 128 != 0), file.len());
        let start = match what >> 5 & 3 {
            0 => None,
            // What was asked for, and what was not.
            1 => Some(client.have.len()),
            _ => Some(start),
        };
        let (answer, body) = match start {
            None => (Answer::Whole(known), file.as_slice()),
            Some(start) if start < file.len() => (Answer::Part { start: start as u64, version: known }, &file[start..]),
            Some(_) => (Answer::Useless("answered 416: no such range"), &[][..]),
        };
        let body = &body[..body.len().saturating_sub(cut)];
        fitting(&answer, client.have.len() as u64, file.len() as u64);
        client.receive(mirror, &answer, body);
        assert!(files.iter().any(|file| file.starts_with(&client.have)), "two files were joined: {answer:?}");
        if client.is_complete() {
            assert!(files.contains(&client.have), "a file was cut: {answer:?}");
            had.push(client.have.len());
            client = Client::new();
        }
    }
}

/// Two files that begin alike.
fn files(length: usize, other: usize, common: usize) -> [Vec<u8>; 2] {
    let file = |salt: usize, length: usize| -> Vec<u8> {
        (0..length + 1).map(|at| if at < common { at as u8 } else { (at * 7 + salt) as u8 }).collect()
    };
    // As often as not they are equally long.
    [file(0, length), file(1, if other.is_multiple_of(2) { length } else { other })]
}

/// What a server tells about a file.
struct Told {
    etag: bool,
    date: bool,
    length: bool,
}

impl Told {
    fn version(&self, version: usize, naming: usize, length: usize) -> Version {
        Version {
            etag: self.etag.then(|| format!("\"{version}-{naming}\"")),
            // A second is long enough to replace a file in.
            modified: self.date.then(|| "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
            total: self.length.then_some(length as u64),
        }
    }
}

/// The transfer that `fetch` keeps, and the bytes that it passed on.
struct Client {
    transfer: Transfer,
    have: Vec<u8>,
    ended: Option<End>,
}

impl Client {
    fn new() -> Self {
        Self { transfer: Transfer::new(Proof::Stream), have: Vec::new(), ended: None }
    }

    fn receive(&mut self, mirror: usize, answer: &Answer, body: &[u8]) {
        let have = self.have.len();
        assert_eq!(self.transfer.have(), have as u64);
        self.ended = None;
        match self.transfer.judge(mirror, answer) {
            Step::Skip(skip) => {
                if have > 0 {
                    let Answer::Part { start, version } = answer else { panic!("joined with a whole file unseen") };
                    let tag = self.transfer.span(mirror, true).and_then(|span| span.strong);
                    assert_eq!(start + skip, have as u64);
                    assert!(tag.is_some() && version.etag.as_deref() == tag);
                }
                self.take(mirror, answer, body, skip as usize);
            }
            Step::Compare(skip) => {
                assert_eq!(skip, have as u64);
                if body.len() < have {
                    return;
                }
                if !body.starts_with(&self.have) {
                    return self.differs(mirror, "other bytes");
                }
                self.take(mirror, answer, body, have);
            }
            Step::AskWhole(_) | Step::Differs(Difference::Doubtful(_)) => {}
            Step::Differs(Difference::Certain(_)) => *self = Self::new(),
            Step::Other(..) => panic!("nobody said how long it must be"),
        }
    }

    fn differs(&mut self, mirror: usize, why: &'static str) {
        if let Difference::Certain(_) = self.transfer.differs(mirror, why) {
            *self = Self::new();
        }
    }

    fn take(&mut self, mirror: usize, answer: &Answer, body: &[u8], skip: usize) {
        let Some(news) = body.get(skip..) else { return };
        self.have.extend_from_slice(news);
        self.transfer.adopt(mirror, answer.clone());
        self.transfer.received(news.len() as u64);
        self.ended = Some(self.transfer.ended());
    }

    /// Whether the transfer is over, and the length is known by which to tell whether it is whole.
    fn is_complete(&self) -> bool {
        assert!(!matches!(self.ended, Some(End::Beyond(_))), "more came than there is");
        self.ended == Some(End::Complete) && self.transfer.total().is_some()
    }
}

/// For a file whose pieces are checked later, only place and length count.
fn fitting(answer: &Answer, have: u64, size: u64) {
    match (fit(have, size, answer), answer) {
        (Fit::Skip(skip), Answer::Part { start, .. }) => assert_eq!(start + skip, have),
        (Fit::Skip(skip), Answer::Whole(_)) => assert_eq!(skip, have),
        (Fit::Skip(_), Answer::Useless(_)) => panic!("an answer without a place was taken"),
        (Fit::Other(other), _) => assert_ne!(other, size),
        (Fit::AskWhole(_), _) => {}
    }
}
