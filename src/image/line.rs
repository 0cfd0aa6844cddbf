//! The connection that an answer comes by. Its head goes through ureq's buffers; of its body only what came with the
//! head does, and the rest goes straight from the socket to where it belongs, if its length is known and nothing
//! encrypts it. So each byte is copied once less.
//!
//! It also bounds how long one read of a body may take, whatever comes meanwhile: a chunk's length, a trailer or a TLS
//! record that arrives byte by byte is no byte of the file, and keeps a timer on single reads of the socket from ever
//! ending.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::Timeout;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

/// The connections of one request, of which the answer comes by the last; copies are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The time by which the read under way has to bring something, if there is one.
    deadline: Option<Instant>,
    /// The last connection.
    socket: Option<Arc<TcpStream>>,
    /// Whether ureq may take no more from the socket.
    ureq_stops: bool,
    /// Whether it tried to: what came with the head has been taken.
    ureq_was_refused: bool,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A timeout that ends no later than the deadline.
    fn cap(&self, timeout: NextTimeout) -> NextTimeout {
        let timeout = timeout.for_read();
        match self.state().deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(left) if left < *timeout.after => {
                NextTimeout { after: left.into(), reason: Timeout::PerRead, ..timeout }
            }
            _ => timeout,
        }
    }
}

impl<In: Transport> Connector<In> for Line {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<In>) -> Result<Option<Socket>, ureq::Error> {
        let end = details.timeout.not_zero().map(|time| Instant::now() + *time);
        let mut whys = Vec::new();
        for (index, address) in details.addrs.iter().enumerate() {
            let others = u32::try_from(details.addrs.len() - index).unwrap_or(1);
            let limit = end.map(|end| end.saturating_duration_since(Instant::now()) / others);
            match connect(address, limit) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    self.state().socket = Some(Arc::clone(&socket));
                    let config = &details.config;
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Socket { socket, buffers, line: self.clone() }));
                }
                Err(error) => whys.push((address, ended(error, Timeout::Connect))),
            }
        }
        Err(all(whys))
    }
}

/// Why no address of a server can be connected to.
fn all(mut whys: Vec<(&SocketAddr, ureq::Error)>) -> ureq::Error {
    if whys.len() > 1 {
        let whys: Vec<String> = whys.iter().map(|(address, why)| format!("{address}: {why}")).collect();
        return ureq::Error::Other(whys.join("; ").into());
    }
    whys.pop().map_or(ureq::Error::HostNotFound, |(_, why)| why)
}

fn connect(address: &SocketAddr, limit: Option<Duration>) -> io::Result<TcpStream> {
    let socket = match limit {
        Some(limit) => TcpStream::connect_timeout(address, limit.max(Duration::from_millis(1)))?,
        None => TcpStream::connect(address)?,
    };
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The kernel says "would block" of a read or write that ran out of time.
fn ended(error: io::Error, reason: Timeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(reason),
        _ => error.into(),
    }
}

/// What ureq sends and receives by.
#[derive(Debug)]
pub(super) struct Socket {
    socket: Arc<TcpStream>,
    buffers: LazyBuffers,
    line: Line,
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        self.socket.set_write_timeout(timeout.not_zero().map(|time| *time))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        (&*self.socket).write_all(output).map_err(|error| ended(error, timeout.reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = self.line.cap(timeout);
        let mut state = self.line.state();
        if state.ureq_stops && self.buffers.input().is_empty() {
            state.ureq_was_refused = true;
            // Any error makes ureq hand back to us.
            return Err(ureq::Error::BodyStalled);
        }
        drop(state);
        if timeout.after.is_zero() {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        self.socket.set_read_timeout(timeout.not_zero().map(|time| *time))?;
        let room = self.buffers.input_append_buf();
        let amount = read(&self.socket, room).map_err(|error| ended(error, timeout.reason))?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Nothing is sent on a connection that has answered.
        false
    }
}

fn read(mut socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The body of an answer that came by a [`Line`].
pub(super) struct Direct<R> {
    body: R,
    line: Line,
    limit: Duration,
    /// Bytes to come, where they may come straight.
    left: Option<u64>,
    /// The connection, from when they do.
    socket: Option<Arc<TcpStream>>,
}

impl<R: Read> Direct<R> {
    /// ureq's `body`, each read of which may take `limit`; `plain`: its length, where nothing encrypts or divides it.
    pub(super) fn new(body: R, line: Line, limit: Duration, plain: Option<u64>) -> Self {
        line.state().ureq_stops = plain.is_some();
        Self { body, line, limit, left: plain, socket: None }
    }

    fn receive(&mut self, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(self.left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX));
        let into = into.get_mut(..most).unwrap_or_default();
        if into.is_empty() {
            return Ok(0);
        }
        let count = read(socket, into).map_err(|error| ended(error, Timeout::PerRead).into_io())?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        Ok(count)
    }
}

impl<R: Read> Read for Direct<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = if let Some(socket) = self.socket.clone() {
            self.receive(&socket, into)?
        } else {
            self.line.state().deadline = Some(Instant::now() + self.limit);
            match self.body.read(into) {
                Err(_) if self.line.state().ureq_was_refused => {
                    let socket = self.line.state().socket.clone().ok_or(io::ErrorKind::NotConnected)?;
                    socket.set_read_timeout(Some(self.limit))?;
                    self.socket = Some(Arc::clone(&socket));
                    self.receive(&socket, into)?
                }
                result => result?,
            }
        };
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use ureq::Agent;
    use ureq::config::Config;
    use ureq::http::Uri;
    use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};

    use super::*;

    /// A name with these addresses.
    #[derive(Debug)]
    struct Addresses(Vec<SocketAddr>);

    impl Resolver for Addresses {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut kept = self.empty();
            self.0.iter().for_each(|address| kept.push(*address));
            Ok(kept)
        }
    }

    /// Answers one request with these parts, each after its pause, and closes the connection after `open`.
    fn serve(parts: Vec<(Duration, Vec<u8>)>, open: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            for (pause, part) in parts {
                thread::sleep(pause);
                // A client that has gone away is what some tests are about.
                let _ = socket.write_all(&part);
            }
            thread::sleep(open);
        });
        address
    }

    fn head(length: usize) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes()
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    fn ask(addresses: Vec<SocketAddr>, limit: Duration) -> Result<(Direct<impl Read>, Line), ureq::Error> {
        let line = Line::default();
        let config = Agent::config_builder().timeout_connect(Some(limit)).max_idle_connections(0).build();
        let agent = Agent::with_parts(config, line.clone(), Addresses(addresses));
        let body = agent.get("http://name/x").call()?.into_body();
        let length = body.content_length();
        Ok((Direct::new(body.into_reader(), line.clone(), limit, length), line))
    }

    const LONG: Duration = Duration::from_secs(20);
    const PAUSE: Duration = Duration::from_millis(100);
    const NONE: Duration = Duration::ZERO;

    #[test]
    fn a_body_comes_through_ureq_and_then_straight_from_the_socket() {
        for with_head in [0, 1, 5000] {
            let sent = bytes(600_000);
            let (first, rest) = sent.split_at(with_head);
            let parts = vec![(NONE, [head(sent.len()), first.to_vec()].concat()), (PAUSE, rest.to_vec())];
            // A body ends where its length says, while the server keeps the connection.
            let (mut body, line) = ask(vec![serve(parts, LONG)], LONG).unwrap();
            let mut came = Vec::new();
            body.read_to_end(&mut came).unwrap();
            assert!(came == sent, "{with_head} bytes with the head");
            assert!(line.state().ureq_was_refused, "{with_head} bytes with the head");
        }
    }

    #[test]
    fn what_follows_a_body_is_not_of_it() {
        for with_head in [0, 700_000] {
            let sent = [bytes(600_000), vec![0xff; 300_000]].concat();
            let (first, rest) = sent.split_at(with_head);
            let parts = vec![(NONE, [head(600_000), first.to_vec()].concat()), (PAUSE, rest.to_vec())];
            let mut came = Vec::new();
            ask(vec![serve(parts, LONG)], LONG).unwrap().0.read_to_end(&mut came).unwrap();
            assert!(came == bytes(600_000), "{} bytes came", came.len());
        }
    }

    // F24
    #[test]
    fn a_connection_that_closes_early_is_an_error() {
        let parts = vec![(NONE, head(600_000)), (PAUSE, bytes(599_999))];
        let error = ask(vec![serve(parts, NONE)], LONG).unwrap().0.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    }

    // F26
    #[test]
    fn silence_ends_with_the_limit() {
        let limit = Duration::from_millis(500);
        let parts = vec![(NONE, head(600_000)), (PAUSE, bytes(1000))];
        let (mut body, _) = ask(vec![serve(parts, LONG)], limit).unwrap();
        let since = Instant::now();
        let error = body.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("timeout"), "{error}");
        assert!(since.elapsed() >= limit && since.elapsed() < LONG / 2, "{:?}", since.elapsed());
    }

    #[test]
    fn the_next_address_is_tried_and_all_are_named() {
        // Nobody listens at these ports of loopback any more.
        let gone = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let parts = vec![(NONE, head(3)), (NONE, b"abc".to_vec())];
        let (mut body, _) = ask(vec![gone(), serve(parts, NONE)], LONG).unwrap();
        let mut came = String::new();
        body.read_to_string(&mut came).unwrap();
        assert_eq!(came, "abc");
        let nobody = [gone(), gone()];
        let error = ask(nobody.to_vec(), LONG).err().unwrap().to_string();
        assert!(nobody.iter().all(|address| error.contains(&format!("{address}: "))), "{error}");
    }
}
