//! DHCP for IPv4 (RFC 2131, 2132, 3396, 3442): bytes, the client's states, the lease. No I/O, no clock.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

/// What a server granted, checked and clamped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// Our address (`yiaddr`).
    pub address: Ipv4Addr,
    /// Prefix length of the subnet mask.
    pub prefix: u8,
    /// The server's identifier (option 54).
    pub server: Ipv4Addr,
    /// Routes in order: destination, prefix length, gateway (option 121, else option 3).
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Domain name (option 15).
    pub domain: Option<String>,
    /// Host name (option 12).
    pub hostname: Option<String>,
    /// Interface MTU (option 26).
    pub mtu: Option<u16>,
    /// NTP servers (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// Lease time; `None` is infinite.
    pub time: Option<Duration>,
}
