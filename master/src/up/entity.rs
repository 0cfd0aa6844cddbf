//! A file as HTTP sees it: with an entity tag that is the same on every mirror, where that is known.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::time::SystemTime;

use futures_core::Stream;
use http_serve::{ChunkedReadFile, Entity};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderValue};

/// A file that could not be read to its end. The client sees a connection that is closed early.
#[derive(Debug)]
pub(super) struct Unreadable(Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading the file: {}", self.0)
    }
}

impl std::error::Error for Unreadable {}

impl From<Box<dyn std::error::Error + Send + Sync>> for Unreadable {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self(error)
    }
}

/// An open file and its tag.
pub(super) struct Tagged {
    pub(super) file: ChunkedReadFile<Bytes, Unreadable>,
    /// The tag, with its quotes; without one the file's inode, length and time make one that holds
    /// on this machine only.
    pub(super) etag: Option<HeaderValue>,
}

impl Entity for Tagged {
    type Data = Bytes;
    type Error = Unreadable;

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn get_range(&self, range: Range<u64>) -> Pin<Box<dyn Stream<Item = Result<Bytes, Unreadable>> + Send + Sync>> {
        self.file.get_range(range)
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        self.file.add_headers(headers);
    }

    fn etag(&self) -> Option<HeaderValue> {
        self.etag.clone().or_else(|| self.file.etag())
    }

    fn last_modified(&self) -> Option<SystemTime> {
        self.file.last_modified()
    }
}
