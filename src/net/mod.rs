//! The network: from bare ports to one port with a lease.

pub mod namespace;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dhcp::Lease;
use crate::image::Resolve;

/// How the network is brought up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `rootstream.net=`, or the device of `ip=DEVICE:dhcp`: ports to try, by name, MAC or driver; empty means all.
    pub ports: Vec<String>,
    /// `BOOTIF=`: the MAC of the port that the firmware booted from.
    pub bootif: Option<[u8; 6]>,
    /// `rootstream.clientid=`: what option 61 carries.
    pub client_id: ClientId,
    /// `rootstream.carrier=`: how long to wait for any port to have carrier.
    pub carrier: Duration,
    /// `rootstream.dhcp=`: how long to wait for a lease after the first carrier.
    pub dhcp: Duration,
    /// `nameserver=`: used before the lease's servers.
    pub nameservers: Vec<IpAddr>,
}

/// What DHCP option 61 carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientId {
    /// 01 and the port's MAC, as PXE ROMs and stage 2 can be told to use too.
    Mac,
    /// No option 61; servers key on `chaddr`.
    None,
    /// RFC 4361: ff, an IAID and a DUID-LL made of the MAC.
    Duid,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A port that is up and configured with a lease.
#[derive(Debug)]
pub struct Network {
    /// Kernel name of the port.
    pub port: String,
    /// Its MAC.
    pub mac: [u8; 6],
    /// What the server granted.
    pub lease: Lease,
}

impl Network {
    /// A resolver that asks `nameserver=` and the lease's servers, in-process.
    pub fn resolver(&self) -> Arc<dyn Resolve> {
        unreachable!()
    }

    /// Gives the lease back (RELEASE) and leaves the ports as they were found.
    ///
    /// # Errors
    /// netlink refuses.
    pub fn leave(self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Brings up the ports, waits for carrier, and takes the first usable lease; its address, routes
/// and MTU are applied to the port.
///
/// # Errors
/// No port, no carrier in time, or no usable lease in time; the message names ports and MACs.
pub fn bring_up(settings: &Settings) -> anyhow::Result<Network> {
    let _ = settings;
    Err(anyhow::anyhow!("the network is missing"))
}
