//! Ethernet II, IPv4 and UDP around a DHCP message; without Ethernet where the kernel makes the link's header.
//!
//! Contract: [`parse`] and [`parse_packet`] never panic, and return a payload only when every header holds true.

use std::net::Ipv4Addr;

use super::{Ignored, Reader};

const IPV4: u16 = 0x0800;
const UDP: u8 = 17;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// The MAC that every station listens to.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// A datagram to the DHCP client's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The MAC it came from: the server, or the relay in front of it.
    pub from: [u8; 6],
    /// UDP payload.
    pub payload: &'a [u8],
}

/// Unwraps a frame that arrived at the port with this `mac`.
///
/// `checksum_done` is false when the kernel says that the UDP checksum was left to the sender's
/// NIC, as between veth ports and on virtio: then there is none to check.
///
/// # Errors
/// Why the frame is not a valid datagram for the DHCP client at this port.
pub fn parse(frame: &[u8], mac: [u8; 6], checksum_done: bool) -> Result<Datagram<'_>, Ignored> {
    let mut reader = Reader(frame);
    let destination: [u8; 6] = reader.array()?;
    let from: [u8; 6] = reader.array()?;
    if reader.u16()? != IPV4 {
        return Err(Ignored::OtherTraffic);
    }
    if destination != mac && destination != BROADCAST {
        return Err(Ignored::OtherStation);
    }

    Ok(Datagram { from, payload: parse_packet(reader.0, checksum_done)? })
}

/// Unwraps an IPv4 packet, behind which padding may stand.
///
/// # Errors
/// As [`parse`].
pub fn parse_packet(packet: &[u8], checksum_done: bool) -> Result<&[u8], Ignored> {
    let mut reader = Reader(packet);
    let version_and_length = reader.u8()?;
    let _tos = reader.u8()?;
    let total = usize::from(reader.u16()?);
    let _id = reader.u16()?;
    let fragment = reader.u16()?;
    let _ttl = reader.u8()?;
    let protocol = reader.u8()?;
    let _checksum = reader.u16()?;
    let source: [u8; 4] = reader.array()?;
    let target: [u8; 4] = reader.array()?;
    let header_length = usize::from(version_and_length & 0xf) * 4;
    if version_and_length >> 4 != 4 || header_length < IP_HEADER {
        return Err(Ignored::IpHeader);
    }
    // Ethernet pads short frames, so bytes may follow the packet, but none may be missing.
    let packet = packet.get(..total).ok_or(Ignored::Short)?;
    let (header, datagram) = packet.split_at_checked(header_length).ok_or(Ignored::Length)?;
    if checksum(&[header]) != 0 {
        return Err(Ignored::IpHeader);
    }
    // The last thirteen bits are the offset; 0x2000 says that more fragments follow.
    if protocol != UDP || fragment & 0x3fff != 0 {
        return Err(Ignored::OtherTraffic);
    }

    let mut reader = Reader(datagram);
    let _source_port = reader.u16()?;
    if reader.u16()? != CLIENT_PORT {
        return Err(Ignored::OtherTraffic);
    }
    let length = reader.u16()?;
    let sum = reader.u16()?;
    let datagram = datagram.get(..usize::from(length)).ok_or(Ignored::Length)?;
    let payload = datagram.get(UDP_HEADER..).ok_or(Ignored::Length)?;
    // Zero says that the sender made no checksum.
    if sum != 0 && checksum_done && checksum(&[&pseudo_header(source, target, length), datagram]) != 0 {
        return Err(Ignored::Checksum);
    }
    Ok(payload)
}

/// Wraps `payload` into a frame from the client's port to the server's.
///
/// The payload is a DHCP message of ours, far below the 64 KiB that IPv4 can say.
pub fn build(from: [u8; 6], to: [u8; 6], source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &IPV4.to_be_bytes(), &packet(source, destination, payload)].concat()
}

/// The IPv4 packet in such a frame.
pub fn packet(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX);
    let (source, destination) = (source.octets(), destination.octets());

    let mut datagram = Vec::with_capacity(usize::from(length));
    for field in [CLIENT_PORT, SERVER_PORT, length, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    let sum = match checksum(&[&pseudo_header(source, destination, length), &datagram]) {
        0 => u16::MAX,
        sum => sum,
    };
    splice(&mut datagram, 6, sum);

    let mut header = vec![0x45, 0x10];
    let total = length.saturating_add(20);
    for field in [total, 0, 0, u16::from_be_bytes([64, UDP]), 0] {
        header.extend(field.to_be_bytes());
    }
    header.extend(source);
    header.extend(destination);
    let sum = checksum(&[&header]);
    splice(&mut header, 10, sum);

    header.extend(datagram);
    header
}

fn splice(bytes: &mut [u8], at: usize, field: u16) {
    for (byte, value) in bytes.iter_mut().skip(at).zip(field.to_be_bytes()) {
        *byte = value;
    }
}

fn pseudo_header(source: [u8; 4], destination: [u8; 4], length: u16) -> [u8; 12] {
    let ([a, b, c, d], [e, f, g, h], [i, j]) = (source, destination, length.to_be_bytes());
    [a, b, c, d, e, f, g, h, 0, UDP, i, j]
}

/// The internet checksum (RFC 1071) of `parts`, each but the last of even length; 0 when they
/// contain a right one.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        let (words, rest) = part.as_chunks::<2>();
        for word in words {
            sum += u32::from(u16::from_be_bytes(*word));
        }
        if let [last] = rest {
            sum += u32::from(u16::from_be_bytes([*last, 0]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
