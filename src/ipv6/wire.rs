//! DHCPv6 messages as bytes: RFC 8415 sections 8 and 21.
//!
//! Contract: [`Message::parse`] never panics, whatever the bytes; a message it cannot make sense of is an [`Ignored`],
//! never half a message.

use std::fmt;
use std::net::Ipv6Addr;

use crate::dhcp::{Ignored, Reader};

/// Option codes (RFC 8415 and where noted).
pub mod option {
    #![allow(missing_docs)]
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const ASSOCIATION: u16 = 3;
    pub const ADDRESS: u16 = 5;
    pub const PARAMETERS: u16 = 6;
    pub const PREFERENCE: u16 = 7;
    pub const ELAPSED: u16 = 8;
    pub const STATUS: u16 = 13;
    pub const VENDOR_CLASS: u16 = 16;
    /// RFC 3646, as the next.
    pub const DNS: u16 = 23;
    pub const SEARCH: u16 = 24;
    /// RFC 4075.
    pub const SNTP: u16 = 31;
    pub const REFRESH: u16 = 32;
    /// RFC 4704.
    pub const NAME: u16 = 39;
    /// RFC 5908.
    pub const NTP: u16 = 56;
    /// RFC 5970, as the next.
    pub const BOOT_FILE: u16 = 59;
    pub const CLIENT_ARCH: u16 = 61;
    pub const SOLICIT_MAX: u16 = 82;
    pub const INFORMATION_MAX: u16 = 83;
}

/// Status codes (RFC 8415 section 21.13).
pub mod status {
    #![allow(missing_docs)]
    pub const SUCCESS: u16 = 0;
    pub const NO_ADDRESSES: u16 = 2;
    pub const NO_BINDING: u16 = 3;
    pub const NOT_ON_LINK: u16 = 4;
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Kind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
    Decline = 9,
    InformationRequest = 11,
}

impl Kind {
    const NAMES: [(Self, &str); 9] = [
        (Self::Solicit, "SOLICIT"),
        (Self::Advertise, "ADVERTISE"),
        (Self::Request, "REQUEST"),
        (Self::Renew, "RENEW"),
        (Self::Rebind, "REBIND"),
        (Self::Reply, "REPLY"),
        (Self::Release, "RELEASE"),
        (Self::Decline, "DECLINE"),
        (Self::InformationRequest, "INFORMATION-REQUEST"),
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

/// Options in order; one code may come several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<(u16, Vec<u8>)>);

impl Options {
    fn parse(bytes: &[u8]) -> Result<Self, Ignored> {
        let mut reader = Reader(bytes);
        let mut options = Vec::new();
        while !reader.0.is_empty() {
            let code = reader.u16().map_err(|_| Ignored::Options)?;
            let length = reader.u16().map_err(|_| Ignored::Options)?;
            let value = reader.slice(length.into()).map_err(|_| Ignored::Options)?;
            options.push((code, value.to_vec()));
        }
        Ok(Self(options))
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        for (code, value) in &self.0 {
            bytes.extend(code.to_be_bytes());
            // None of ours comes near the limit, and none that was read can be above it.
            bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(value);
        }
    }

    /// Adds an option.
    pub fn push(&mut self, code: u16, value: Vec<u8>) {
        self.0.push((code, value));
    }

    /// The first option of this code.
    pub fn get(&self, code: u16) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == code).map(|(_, value)| value.as_slice())
    }

    /// An option of exactly `N` bytes; one of another length counts as missing.
    pub fn fixed<const N: usize>(&self, code: u16) -> Option<[u8; N]> {
        self.get(code)?.try_into().ok()
    }

    /// An option that is a list of addresses; bytes beyond a multiple of sixteen are left out.
    pub fn addresses(&self, code: u16) -> Vec<Ipv6Addr> {
        let bytes = self.get(code).unwrap_or_default();
        bytes.as_chunks::<16>().0.iter().map(|octets| Ipv6Addr::from(*octets)).collect()
    }

    /// What the server made of the request; without the option it is success.
    pub fn status(&self) -> Status {
        let (code, text) =
            self.get(option::STATUS).and_then(|bytes| bytes.split_first_chunk()).unwrap_or((&[0; 2], &[]));
        Status { code: u16::from_be_bytes(*code), text: String::from_utf8_lossy(text).into_owned() }
    }

    /// The options in the value of another, such as the time servers in [`option::NTP`].
    pub fn nested(&self, code: u16) -> Self {
        self.get(code).and_then(|bytes| Self::parse(bytes).ok()).unwrap_or_default()
    }

    /// Each value of this code.
    pub fn all(&self, code: u16) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(other, _)| *other == code).map(|(_, value)| value.as_slice())
    }
}

/// A status code with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// See [`status`].
    pub code: u16,
    /// For people.
    pub text: String,
}

/// One address of an association, with its times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The address.
    pub address: Ipv6Addr,
    /// How long new connections may use it.
    pub preferred: u32,
    /// How long it is ours.
    pub valid: u32,
}

/// The addresses of one port: IA_NA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// Which of the client's ports it is.
    pub iaid: u32,
    /// When to renew, in seconds; 0 leaves it to the client.
    pub t1: u32,
    /// When to ask any server.
    pub t2: u32,
    /// Those that the server did not refuse.
    pub addresses: Vec<Granted>,
    /// What became of the whole.
    pub status: Status,
}

impl Association {
    fn parse(bytes: &[u8]) -> Result<Self, Ignored> {
        let mut reader = Reader(bytes);
        let iaid = u32::from_be_bytes(reader.array()?);
        let t1 = u32::from_be_bytes(reader.array()?);
        let t2 = u32::from_be_bytes(reader.array()?);
        let options = Options::parse(reader.0)?;
        let addresses = options.all(option::ADDRESS).filter_map(|bytes| granted(bytes).ok().flatten()).collect();
        Ok(Self { iaid, t1, t2, addresses, status: options.status() })
    }

    /// The option's value in a client's message: no times, at most one address.
    pub fn asked(iaid: u32, address: Option<Ipv6Addr>) -> Vec<u8> {
        let mut bytes = iaid.to_be_bytes().to_vec();
        bytes.extend([0; 8]);
        if let Some(address) = address {
            let mut options = Options::default();
            options.push(option::ADDRESS, [&address.octets()[..], &[0; 8]].concat());
            options.write(&mut bytes);
        }
        bytes
    }
}

fn granted(bytes: &[u8]) -> Result<Option<Granted>, Ignored> {
    let mut reader = Reader(bytes);
    let address = Ipv6Addr::from(reader.array::<16>()?);
    let preferred = u32::from_be_bytes(reader.array()?);
    let valid = u32::from_be_bytes(reader.array()?);
    let taken = Options::parse(reader.0)?.status().code == status::SUCCESS;
    Ok(taken.then_some(Granted { address, preferred, valid }))
}

/// One DHCPv6 message between a client and a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The transaction, 24 bits.
    pub xid: u32,
    /// All that it says.
    pub options: Options,
}

impl Message {
    /// A message without options.
    pub fn new(kind: Kind, xid: u32) -> Self {
        Self { kind, xid: xid & 0x00ff_ffff, options: Options::default() }
    }

    /// Adds an option.
    #[must_use]
    pub fn with(mut self, code: u16, value: &[u8]) -> Self {
        self.options.push(code, value.to_vec());
        self
    }

    /// Reads a UDP payload.
    ///
    /// # Errors
    /// Why it is not a usable DHCPv6 message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Ignored> {
        let mut reader = Reader(bytes);
        let [kind, a, b, c] = reader.array()?;
        let kind = Kind::from_byte(kind).ok_or(Ignored::NotDhcp)?;
        Ok(Self { kind, xid: u32::from_be_bytes([0, a, b, c]), options: Options::parse(reader.0)? })
    }

    /// The UDP payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        let [_, a, b, c] = self.xid.to_be_bytes();
        let mut bytes = vec![self.kind as u8, a, b, c];
        self.options.write(&mut bytes);
        bytes
    }

    /// The association of the port with this number.
    pub fn association(&self, iaid: u32) -> Option<Association> {
        let all = self.options.all(option::ASSOCIATION);
        all.filter_map(|bytes| Association::parse(bytes).ok()).find(|association| association.iaid == iaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_it_was_read() {
        let address: Ipv6Addr = "fd00::5".parse().unwrap();
        let message = Message::new(Kind::Request, 0xff12_3456)
            .with(option::CLIENT_ID, &[0, 3, 0, 1, 2, 2, 2, 2, 2, 2])
            .with(option::ASSOCIATION, &Association::asked(7, Some(address)))
            .with(option::ASSOCIATION, &Association::asked(8, None));
        let bytes = message.to_bytes();
        assert_eq!(bytes[..8], [3, 0x12, 0x34, 0x56, 0, 1, 0, 10]);
        assert_eq!(Message::parse(&bytes), Ok(message.clone()));
        let seven = message.association(7).unwrap();
        assert_eq!(seven.addresses, [Granted { address, preferred: 0, valid: 0 }]);
        assert_eq!((seven.t1, seven.status.code), (0, status::SUCCESS));
        assert_eq!(message.association(8).unwrap().addresses, []);
        assert_eq!(message.association(9), None);
        // Between two options the rest is a shorter message.
        let whole = [4, 18, 62, 78];
        for end in (0..bytes.len()).filter(|end| !whole.contains(end)) {
            assert!(Message::parse(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(Message::parse(&[4, 0, 0, 0]), Err(Ignored::NotDhcp));
    }

    #[test]
    fn what_a_server_refuses_is_no_address() {
        let refused = [&[0, 13, 0, 6, 0, 2][..], b"none"].concat();
        let mut bytes = Association::asked(7, Some("fd00::5".parse().unwrap()));
        // Inside the address.
        bytes.extend(&refused);
        bytes[15] += 10;
        let message = Message::new(Kind::Reply, 1).with(option::ASSOCIATION, &bytes);
        assert_eq!(message.association(7).unwrap().addresses, []);
        let bytes = [&Association::asked(7, None)[..], &refused].concat();
        let message = Message::new(Kind::Reply, 1).with(option::ASSOCIATION, &bytes);
        assert_eq!(message.association(7).unwrap().status, Status { code: 2, text: "none".to_owned() });
    }
}
