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
    straight: bool,
    /// Whether it tried to.
    dry: bool,
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
        let mut why = ureq::Error::HostNotFound;
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
                Err(error) => why = ended(error, Timeout::Connect),
            }
        }
        Err(why)
    }
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
        if state.straight && self.buffers.input().is_empty() {
            state.dry = true;
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
pub(super) struct Body<R> {
    body: R,
    line: Line,
    limit: Duration,
    /// Bytes to come, where they may come straight.
    left: Option<u64>,
    /// The connection, from when they do.
    socket: Option<Arc<TcpStream>>,
}

impl<R: Read> Body<R> {
    /// ureq's `body`, each read of which may take `limit`; `plain`: its length, where nothing encrypts or divides it.
    pub(super) fn new(body: R, line: Line, limit: Duration, plain: Option<u64>) -> Self {
        line.state().straight = plain.is_some();
        Self { body, line, limit, left: plain, socket: None }
    }

    fn straight(&mut self, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
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

impl<R: Read> Read for Body<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = if let Some(socket) = self.socket.clone() {
            self.straight(&socket, into)?
        } else {
            self.line.state().deadline = Some(Instant::now() + self.limit);
            match self.body.read(into) {
                Err(_) if self.line.state().dry => {
                    let socket = self.line.state().socket.clone().ok_or(io::ErrorKind::NotConnected)?;
                    socket.set_read_timeout(Some(self.limit))?;
                    self.socket = Some(Arc::clone(&socket));
                    self.straight(&socket, into)?
                }
                result => result?,
            }
        };
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        Ok(count)
    }
}
