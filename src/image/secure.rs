//! TLS between ureq and its socket, with the certificates of `tls.rs`.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::http::refuse;
use super::tls::explain;

/// Encrypts the connections of `https://` requests, and leaves others alone.
#[derive(Debug)]
pub(super) struct Secure {
    /// Nothing where nobody is believed.
    pub(super) config: Option<Arc<ClientConfig>>,
}

impl<In: Transport> Connector<In> for Secure {
    type Out = Either<In, Encrypted<In>>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let Some(config) = &self.config else {
            let why =
                format!("{} needs a certificate to know the server by, and none is in this initramfs", details.uri);
            return Err(refuse(why));
        };
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| refuse(format!("{host}: {error}")))?;
        let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(|error| wrapped(&error))?;
        let mut socket = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket).map_err(failed)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// rustls's errors come wrapped in those of the socket.
fn failed(error: io::Error) -> ureq::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => wrapped(inner),
        None => error.into(),
    }
}

fn wrapped(error: &rustls::Error) -> ureq::Error {
    let (why, hopeless) = explain(error);
    if hopeless { refuse(why) } else { ureq::Error::Other(why.into()) }
}

/// An encrypted connection.
pub(super) struct Encrypted<In: Transport> {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter<In>>,
}

impl<In: Transport> fmt::Debug for Encrypted<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS over {:?}", self.stream.sock.inner())
    }
}

impl<In: Transport> Transport for Encrypted<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
