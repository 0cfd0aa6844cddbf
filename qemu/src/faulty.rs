//! An HTTP server on loopback that answers as badly as a test wants.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt::Linger};

/// One request, as far as a test cares.
#[derive(Clone, Debug)]
pub struct Request {
    /// 0 for the first one that the server got.
    pub number: usize,
    /// The path with its query.
    pub path: String,
    /// Headers by lower-case name.
    pub headers: HashMap<String, String>,
}

impl Request {
    /// The first byte of `Range: bytes=N-`.
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    /// Starts it on a free port; `answer` writes to the connection, which is closed after it.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(
        answer: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// Starts it at an address of this network namespace.
    ///
    /// # Errors
    /// The address is taken or not here.
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (seen, stop, answer) = (Arc::clone(&requests), Arc::clone(&over), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || {
                    if let Ok(request) = read(&stream, &seen) {
                        // A client that hangs up is what many tests are about.
                        let _ = answer(&request, &mut stream);
                    }
                });
            }
        });
        Ok(Self { address, requests, over })
    }

    /// The URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

/// Writes a whole answer with its Content-Length.
///
/// # Errors
/// The client hung up.
pub fn answer(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
    head(stream, status, headers, Some(body.len()))?;
    stream.write_all(body)
}

/// Writes the head of an answer.
///
/// # Errors
/// The client hung up.
pub fn head(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], length: Option<usize>) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = length {
        head += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes())
}

/// Makes closing the connection send a reset.
///
/// # Errors
/// The kernel refuses.
pub fn reset(stream: &TcpStream) -> io::Result<()> {
    Ok(setsockopt(stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?)
}

fn read(stream: &TcpStream, seen: &Mutex<Vec<Request>>) -> io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Err(io::ErrorKind::UnexpectedEof.into()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let request = Request { number: seen.len(), path, headers };
    seen.push(request.clone());
    Ok(request)
}
