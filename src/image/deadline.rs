//! How long one read of a body may take, whatever comes meanwhile: a chunk's length, a trailer or a TLS record that
//! arrives byte by byte is no byte of the file, and keeps a timer on single reads of the socket from ever ending.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// The time by which the read under way has to bring something, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    fn set(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// A timeout that ends no later than this.
    fn cap(&self, timeout: NextTimeout) -> NextTimeout {
        let deadline = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(left) if left < *timeout.after => {
                NextTimeout { after: left.into(), reason: ureq::Timeout::PerRead, ..timeout }
            }
            _ => timeout,
        }
    }
}

impl<In: Transport> Connector<In> for Deadline {
    type Out = Limited<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(|transport| Limited { transport, deadline: self.clone() }))
    }
}

/// A connection whose reads end at the deadline.
#[derive(Debug)]
pub(super) struct Limited<In: Transport> {
    transport: In,
    deadline: Deadline,
}

impl<In: Transport> Transport for Limited<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.transport.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.transport.await_input(self.deadline.cap(timeout))
    }

    fn is_open(&mut self) -> bool {
        self.transport.is_open()
    }
}

/// The body of an answer on such a connection.
pub(super) struct Timely<R> {
    pub(super) body: R,
    pub(super) deadline: Deadline,
    /// How long each read may take.
    pub(super) limit: Duration,
}

impl<R: Read> Read for Timely<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.deadline.set(Instant::now() + self.limit);
        self.body.read(into)
    }
}
