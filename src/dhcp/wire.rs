//! DHCP messages as bytes: RFC 2131 section 2, options by RFC 2132, long and split ones by RFC 3396.
//!
//! Contract: [`Message::parse`] never panics, whatever the bytes; a message it cannot make sense of
//! is an [`Ignored`], never half a message.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use super::{Ignored, Reader};

const MAGIC: [u8; 4] = [99, 130, 83, 99];
const ETHERNET: u8 = 1;
const INFINIBAND: u8 = 32;
const SNAME: usize = 64;
const FILE: usize = 128;
/// BOOTP relays and servers of old drop anything shorter (RFC 1542 section 2.1).
const SHORTEST: usize = 300;

/// Option codes (RFC 2132 and where noted).
pub mod option {
    #![allow(missing_docs)]
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const LOG_SERVERS: u8 = 7;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const ROOT_PATH: u8 = 17;
    pub const MTU: u8 = 26;
    pub const NTP: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const TEXT: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    /// RFC 4578, as the next.
    pub const CLIENT_ARCH: u8 = 93;
    pub const CLIENT_UUID: u8 = 97;
    /// RFC 3397.
    pub const SEARCH: u8 = 119;
    /// RFC 3442.
    pub const CLASSLESS_ROUTES: u8 = 121;
    pub const END: u8 = 255;
}

/// Option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl Kind {
    const NAMES: [(Self, &str); 8] = [
        (Self::Discover, "DISCOVER"),
        (Self::Offer, "OFFER"),
        (Self::Request, "REQUEST"),
        (Self::Decline, "DECLINE"),
        (Self::Ack, "ACK"),
        (Self::Nak, "NAK"),
        (Self::Release, "RELEASE"),
        (Self::Inform, "INFORM"),
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::NAMES.into_iter().map(|(kind, _)| kind).find(|kind| *kind as u8 == byte)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.into_iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name))
    }
}

/// Who sends: BOOTP's `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Request = 1,
    Reply = 2,
}

/// One DHCP message between a client and a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Sent by a client or by a server.
    pub op: Op,
    /// Option 53.
    pub kind: Kind,
    /// The transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The client cannot receive unicast yet.
    pub broadcast: bool,
    /// The client's address, when it has one.
    pub ciaddr: Ipv4Addr,
    /// The address granted.
    pub yiaddr: Ipv4Addr,
    /// The server of the next step of the boot.
    pub siaddr: Ipv4Addr,
    /// The relay.
    pub giaddr: Ipv4Addr,
    /// The client's MAC. None over InfiniBand, whose addresses are too long for a message (RFC 4390): the client is known
    /// by its identifier alone.
    pub chaddr: Option<[u8; 6]>,
    /// The boot file: the `file` field, or option 67. Empty when there is none.
    pub file: Vec<u8>,
    /// The other options, joined; without 52, 53 and 67.
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    /// A client's message, everything but these three left empty.
    pub fn request(kind: Kind, xid: u32, chaddr: impl Into<Option<[u8; 6]>>) -> Self {
        Self {
            op: Op::Request,
            kind,
            xid,
            secs: 0,
            broadcast: false,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: chaddr.into(),
            file: Vec::new(),
            options: BTreeMap::new(),
        }
    }

    /// Adds an option.
    #[must_use]
    pub fn with(mut self, code: u8, value: impl Into<Vec<u8>>) -> Self {
        self.set(code, value.into());
        self
    }

    /// Apart from `with`, which is compiled for every kind of value.
    #[inline(never)]
    fn set(&mut self, code: u8, value: Vec<u8>) {
        self.options.insert(code, value);
    }

    /// Reads a UDP payload.
    ///
    /// # Errors
    /// Why it is not a usable DHCP message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Ignored> {
        let mut reader = Reader(bytes);
        let op = match reader.u8()? {
            1 => Op::Request,
            2 => Op::Reply,
            _ => return Err(Ignored::NotDhcp),
        };
        let [htype, hlen, _hops] = reader.array()?;
        let xid = u32::from_be_bytes(reader.array()?);
        let secs = reader.u16()?;
        let broadcast = reader.u16()? & 0x8000 != 0;
        let ciaddr = Ipv4Addr::from(reader.array::<4>()?);
        let yiaddr = Ipv4Addr::from(reader.array::<4>()?);
        let siaddr = Ipv4Addr::from(reader.array::<4>()?);
        let giaddr = Ipv4Addr::from(reader.array::<4>()?);
        let chaddr = reader.array::<6>()?;
        let _padding = reader.array::<10>()?;
        let sname = reader.slice(SNAME)?;
        let file = reader.slice(FILE)?;
        let chaddr = match (htype, hlen) {
            (ETHERNET, 6) => Some(chaddr),
            // Some servers put something there though nothing was.
            (INFINIBAND, _) => None,
            _ => return Err(Ignored::NotDhcp),
        };
        if reader.array::<4>()? != MAGIC {
            return Err(Ignored::NotDhcp);
        }

        let mut options = BTreeMap::new();
        read_options(reader.0, &mut options)?;
        let overload = match options.remove(&option::OVERLOAD).as_deref() {
            None => 0,
            Some([which @ 1..=3]) => *which,
            Some(_) => return Err(Ignored::Options),
        };
        // RFC 3396 section 5: the options field, then file, then sname.
        let mut boot_file = Vec::new();
        if overload & 1 != 0 {
            read_options(file, &mut options)?;
        } else {
            boot_file.extend(file.iter().take_while(|byte| **byte != 0));
        }
        if overload & 2 != 0 {
            read_options(sname, &mut options)?;
        }
        if let Some(mut named) = options.remove(&option::BOOT_FILE) {
            named.truncate(named.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            if !named.is_empty() {
                boot_file = named;
            }
        }
        let kind = match options.remove(&option::MESSAGE_TYPE).as_deref() {
            Some([byte]) => Kind::from_byte(*byte).ok_or(Ignored::NotDhcp)?,
            _ => return Err(Ignored::NotDhcp),
        };
        Ok(Self { op, kind, xid, secs, broadcast, ciaddr, yiaddr, siaddr, giaddr, chaddr, file: boot_file, options })
    }

    /// The UDP payload: the message type first, long options split (RFC 3396), at least 300 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (htype, hlen) = if self.chaddr.is_some() { (ETHERNET, 6) } else { (INFINIBAND, 0) };
        let mut bytes = vec![self.op as u8, htype, hlen, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        bytes.extend(if self.broadcast { [0x80, 0] } else { [0, 0] });
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.chaddr.unwrap_or_default());
        bytes.extend([0; 10 + SNAME + FILE]);
        bytes.extend(MAGIC);
        write_option(&mut bytes, option::MESSAGE_TYPE, &[self.kind as u8]);
        for (code, value) in &self.options {
            write_option(&mut bytes, *code, value);
        }
        if !self.file.is_empty() {
            write_option(&mut bytes, option::BOOT_FILE, &self.file);
        }
        bytes.push(option::END);
        if bytes.len() < SHORTEST {
            bytes.resize(SHORTEST, option::PAD);
        }
        bytes
    }

    /// An option of exactly `N` bytes; one of another length counts as missing.
    pub fn fixed<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.options.get(&code)?.as_slice().try_into().ok()
    }

    /// An option that is one address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.fixed::<4>(code).map(Ipv4Addr::from)
    }

    /// An option that is a list of addresses; bytes beyond a multiple of four are left out.
    pub fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let bytes = self.options.get(&code).map(Vec::as_slice).unwrap_or_default();
        bytes.as_chunks::<4>().0.iter().map(|octets| Ipv4Addr::from(*octets)).collect()
    }

    /// An option that is text, without the NULs that some servers end it with (RFC 2132 section 2).
    pub fn text(&self, code: u8) -> Option<String> {
        let text = String::from_utf8_lossy(self.options.get(&code)?).trim_end_matches('\0').to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// Adds the options in `field` to `options`, joining those that come in several pieces. A missing
/// END is forgiven, an option that runs over the field's end is not.
fn read_options(field: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) -> Result<(), Ignored> {
    let mut reader = Reader(field);
    while let Ok(code) = reader.u8() {
        match code {
            option::PAD => {}
            option::END => break,
            _ => {
                let length = reader.u8().map_err(|_| Ignored::Options)?;
                let value = reader.slice(length.into()).map_err(|_| Ignored::Options)?;
                options.entry(code).or_default().extend(value);
            }
        }
    }
    Ok(())
}

fn write_option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    if value.is_empty() {
        bytes.extend([code, 0]);
    }
    for piece in value.chunks(255) {
        bytes.push(code);
        bytes.push(u8::try_from(piece.len()).unwrap_or(u8::MAX));
        bytes.extend(piece);
    }
}
