//! DHCP for IPv4: bytes, the client's states, the lease. No I/O, no clock.
//!
//! - [`frame`]: Ethernet, IPv4 and UDP around a message, checked on the way in.
//! - [`wire`]: the message and its options (RFC 2131, 2132, 3396).
//! - [`client`]: the client's states; events in, actions out.
//! - [`lease`]: what a server grants, checked and clamped (RFC 3442 for its routes).
//! - `search`: the domain search list (RFC 3397).

pub mod client;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod lease;
pub(crate) mod search;
pub mod wire;

pub use lease::Lease;
pub(crate) use lease::{check_address, shown};

use std::fmt;

/// Why a received frame was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ignored {
    /// Too short for what its headers announce.
    Short,
    /// Not IPv4 and UDP to port 68, or a fragment of one.
    OtherTraffic,
    /// For another MAC, or on a VLAN.
    OtherStation,
    /// An IPv4 header length below 20, or a wrong header checksum.
    IpHeader,
    /// The lengths of IPv4 and UDP contradict each other.
    Length,
    /// Wrong UDP checksum.
    Checksum,
    /// Not a BOOTP reply for Ethernet or InfiniBand with the DHCP magic cookie.
    NotDhcp,
    /// Options cut short, or overloaded in a way RFC 2132 does not know.
    Options,
    /// A router's message that comes from further away than the link.
    OffLink,
    /// Another client's transaction (`xid` or `chaddr`).
    OtherClient,
    /// Well-formed, but not expected in this state.
    Unexpected,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "cut short",
            Self::OtherTraffic => "not DHCP",
            Self::OtherStation => "for another station",
            Self::IpHeader => "bad IP header",
            Self::Length => "lying length",
            Self::Checksum => "bad checksum",
            Self::NotDhcp => "no DHCP reply",
            Self::Options => "bad options",
            Self::OffLink => "from beyond the link",
            Self::OtherClient => "for another client",
            Self::Unexpected => "out of turn",
        })
    }
}

/// Reads fields off the front of bytes; `Short` where they end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Ignored> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Ignored::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], Ignored> {
        let (field, rest) = self.0.split_at_checked(length).ok_or(Ignored::Short)?;
        self.0 = rest;
        Ok(field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Ignored> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Ignored> {
        self.array().map(u16::from_be_bytes)
    }
}

#[cfg(test)]
mod tests;
