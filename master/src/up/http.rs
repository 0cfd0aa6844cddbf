//! The HTTP server: images and boot files, as plain files.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http_serve::ChunkedReadFile;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::access::{AccessLog, Logged, Visit};
use super::entity::{Tagged, Unreadable};
use super::files::Roots;
use super::range;
use crate::config::site::{OVERLAYS, Site};

/// Requests' heads are small and come at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_LIMIT: usize = 16 << 10;
/// A client that acknowledges nothing for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// What a client that is one too many is told to wait.
const COME_BACK: &str = "5";
/// More connections than this are told to come back.
const MOST: usize = 4096;
/// Of those, so many at once are told so; the rest is closed.
const MOST_TURNED_AWAY: usize = 128;

type Plain = http_serve::Body<Bytes, Unreadable>;
type Body = Logged<Plain>;

/// The server, bound to its port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    site: Arc<Shared>,
    connections: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    roots: Roots,
    log: AccessLog,
}

impl Server {
    /// Serves `site`'s store and boot files on `listener`.
    ///
    /// # Errors
    /// The folders cannot be opened.
    pub fn new(site: &Site, listener: TcpListener) -> Result<Self> {
        let (store, tftp) = (site.folder("store")?, site.folder("tftp")?);
        let overlays = site.folder(&format!("store/{OVERLAYS}"))?;
        let roots = Roots::open(&store, &overlays, &tftp).with_context(|| format!("opening {}", store.display()))?;
        let log = AccessLog::open(&site.folder("log")?.join("http.log"))?;
        let connections = Arc::new(Semaphore::new(connection_limit()));
        Ok(Self { listener, site: Arc::new(Shared { roots, log }), connections })
    }

    /// The same with another number of connections at once; who is one too many is told to come back.
    pub fn limited_to(self, connections: usize) -> Self {
        Self { connections: Arc::new(Semaphore::new(connections)), ..self }
    }

    /// Answers until `stop` is done; then gives the transfers that are under way `grace` to end.
    pub async fn run(self, stop: impl Future<Output = ()>, grace: Duration) {
        let graceful = GracefulShutdown::new();
        let turned_away = Arc::new(Semaphore::new(MOST_TURNED_AWAY));
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut stop => break,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: without a pause this would spin.
                    log::warn!("accepting a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.connections).try_acquire_owned() else {
                if let Ok(place) = Arc::clone(&turned_away).try_acquire_owned() {
                    tokio::spawn(async move {
                        turn_away(stream).await;
                        drop(place);
                    });
                }
                continue;
            };
            if let Err(error) = tune(&stream) {
                log::debug!("{client}: {error}");
            }
            let site = Arc::clone(&self.site);
            let service = service_fn(move |request| {
                let site = Arc::clone(&site);
                async move { Ok::<_, std::convert::Infallible>(answer(&site, client, request)) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_LIMIT)
                .serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    log::debug!("{client}: {error}");
                }
                drop(place);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
            log::info!("some transfers were cut; nodes resume them when the server is back");
        }
        self.site.log.written().await;
    }
}

/// What is left of the process's file descriptors for connections: two each, and some to spare.
fn connection_limit() -> usize {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    let files = raised.ok().and_then(|files| usize::try_from(files).ok()).unwrap_or(1024);
    (files.saturating_sub(128) / 2).clamp(16, MOST)
}

fn tune(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    let millis = u32::try_from(GONE_AFTER.as_millis()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::TcpUserTimeout, &millis).context("setting TCP_USER_TIMEOUT")?;
    setsockopt(stream, sockopt::KeepAlive, &true).context("setting SO_KEEPALIVE")
}

/// Says 503 without reading more than there is.
async fn turn_away(stream: TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = stream;
    let talk = async {
        // Closing with unread bytes would reset the connection, and the answer with it.
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await?;
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {COME_BACK}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whoever does not take the answer in time goes without.
    let _ = tokio::time::timeout(Duration::from_secs(2), talk).await;
}

fn answer(site: &Shared, client: SocketAddr, mut request: Request<Incoming>) -> Response<Body> {
    let visit = Visit::begin(client, &request);
    let mut response = match site.roots.find(request.uri().path()) {
        // Nothing here takes a body, and one of doubtful length could hide another request
        // (RFC 9112, 6.1).
        _ if request.headers().contains_key(TRANSFER_ENCODING) => refuse(StatusCode::BAD_REQUEST, "no body, please\n"),
        Ok(found) => {
            range::normalise(request.headers_mut(), found.metadata.len());
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(found.media));
            // Names of images are never given to other bytes, so what their manifest says of them holds.
            let etag = found.sha256.and_then(|sha256| HeaderValue::try_from(format!("\"{sha256}\"")).ok());
            match ChunkedReadFile::new_with_metadata(found.file, &found.metadata, headers) {
                Ok(file) => {
                    let mut response = http_serve::serve(Tagged { file, etag }, &request);
                    let cache = if found.immutable { "public, max-age=31536000, immutable" } else { "max-age=5" };
                    if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
                        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache));
                    }
                    response
                }
                Err(error) if error.kind() == ErrorKind::NotFound => refuse(StatusCode::NOT_FOUND, "no such file\n"),
                Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n"),
            }
        }
        Err(Errno::ENOENT) => refuse(StatusCode::NOT_FOUND, "no such file\n"),
        Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => busy(),
        Err(errno) => {
            log::warn!("{}: {errno}", request.uri().path());
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be opened\n")
        }
    };
    // A refused request may have a body that nobody reads.
    if response.status().is_client_error() || response.status().is_server_error() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    response.map(|body| Logged::new(body, visit.answered(status), site.log.clone()))
}

fn refuse(status: StatusCode, why: &'static str) -> Response<Plain> {
    let mut response = Response::new(http_serve::Body::from(why));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn busy() -> Response<Plain> {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, "come back later\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(COME_BACK));
    response
}
