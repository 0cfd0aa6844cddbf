//! One line per request, written when its answer has ended or broken off.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::task::{Context as Wakeup, Poll};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use hyper::body::{Body, Buf, Frame, SizeHint};
use hyper::header::RANGE;
use hyper::{Request, StatusCode};
use tokio::sync::oneshot;

use crate::clock;
use crate::say;

/// How long the end of the service waits for the disk and the terminal.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Lines that wait for the disk or the terminal; more are dropped, and counted.
const QUEUE: usize = 4096;

/// Where the lines go: `log/http.log` and stderr.
#[derive(Clone, Debug)]
pub(super) struct AccessLog {
    lines: SyncSender<Entry>,
}

/// What goes to the thread that writes.
#[derive(Debug)]
enum Entry {
    Line(String),
    /// Everything before this is written: answered.
    Written(oneshot::Sender<()>),
}

impl AccessLog {
    /// Appends to the file at `path`.
    ///
    /// # Errors
    /// It cannot be opened, or no thread can be started.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || write_lines(file, &queue))
            .context("starting a thread")?;
        Ok(Self { lines })
    }

    fn line(&self, line: String) {
        // A blocked terminal must not block a transfer.
        if let Err(TrySendError::Full(Entry::Line(line))) = self.lines.try_send(Entry::Line(line)) {
            log::debug!("access log full, dropped: {line}");
        }
    }

    /// Waits, for a moment at most, until all lines are written.
    pub(super) async fn written(&self) {
        let (answer, written) = oneshot::channel();
        if self.lines.try_send(Entry::Written(answer)).is_ok() {
            // Late or gone: the lines are lost, and nobody is kept waiting for them.
            let _ = tokio::time::timeout(LAST_WORDS, written).await;
        }
    }
}

fn write_lines(mut file: File, queue: &Receiver<Entry>) {
    while let Ok(entry) = queue.recv() {
        let line = match entry {
            Entry::Line(line) => line,
            Entry::Written(answer) => {
                // Whoever asked may have left.
                let _ = answer.send(());
                continue;
            }
        };
        if let Err(error) = file.write_all(line.as_bytes()) {
            log::warn!("writing the access log: {error}");
        }
        say::note(line.trim_end());
    }
}

/// One request, as far as the log tells of it.
#[derive(Debug)]
pub(super) struct Visit {
    began: Instant,
    client: SocketAddr,
    method: String,
    path: String,
    range: String,
    status: StatusCode,
}

impl Visit {
    /// Notes who asks for what.
    pub(super) fn begin<B>(client: SocketAddr, request: &Request<B>) -> Self {
        let range =
            request.headers().get(RANGE).map_or("-".to_owned(), |r| word(&String::from_utf8_lossy(r.as_bytes())));
        Self {
            began: Instant::now(),
            client,
            method: request.method().to_string(),
            path: word(request.uri().path()),
            range,
            status: StatusCode::OK,
        }
    }

    /// Notes the answer.
    pub(super) fn answered(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    fn line(&self, bytes: u64, complete: bool) -> String {
        format!(
            "{} {} {} {} {} {} {bytes} {:.3} {}\n",
            clock::rfc3339_millis(SystemTime::now()),
            self.client.ip(),
            self.method,
            self.path,
            self.range,
            self.status.as_u16(),
            self.began.elapsed().as_secs_f64(),
            if complete { "done" } else { "broken-off" },
        )
    }
}

/// Text of a client as one word of a line that it cannot fake or stretch.
fn word(text: &str) -> String {
    text.chars().take(256).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// A body that counts itself, and writes the line when it is dropped.
#[derive(Debug)]
pub(super) struct Logged<B> {
    body: B,
    visit: Visit,
    log: AccessLog,
    bytes: u64,
    expected: u64,
}

impl<B: Body> Logged<B> {
    /// Wraps the body of the answer to `visit`.
    pub(super) fn new(body: B, visit: Visit, log: AccessLog) -> Self {
        let expected = body.size_hint().exact().unwrap_or(0);
        // A HEAD's body is never read, and is complete.
        let expected = if visit.method == "HEAD" { 0 } else { expected };
        Self { body, visit, log, bytes: 0, expected }
    }
}

impl<B: Body + Unpin> Body for Logged<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, wakeup: &mut Wakeup<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(wakeup);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.bytes += data.remaining() as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Logged<B> {
    fn drop(&mut self) {
        self.log.line(self.visit.line(self.bytes, self.bytes == self.expected));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_write_lines_of_its_own() {
        let request = Request::builder().uri("/images/a").header(RANGE, "bytes=1-\t2").body(()).unwrap();
        let visit = Visit::begin("10.0.0.1:5".parse().unwrap(), &request).answered(StatusCode::NOT_FOUND);
        let line = visit.line(7, false);
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z'));
        assert!(rest.starts_with("10.0.0.1 GET /images/a bytes=1-?2 404 7 0.0"), "{rest}");
        assert!(rest.ends_with(" broken-off\n"));
    }
}
