use std::net::Ipv4Addr;

use super::wire::{Kind, Message, Op, option};
use super::{Ignored, Lease, frame};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0xac, 0x10, 1];
/// Where the options begin, behind the magic cookie.
const OPTIONS: usize = 240;

/// A frame as a real server sent it.
fn golden(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn dhcpd_offer() -> Vec<u8> {
    golden(include_str!("../../tests/data/dhcp/dhcpd-offer.hex"))
}

fn dnsmasq_ack() -> Vec<u8> {
    golden(include_str!("../../tests/data/dhcp/dnsmasq-ack.hex"))
}

/// A reply whose options field, `file` and `sname` hold these bytes.
fn raw(options: &[u8], file: &[u8], sname: &[u8]) -> Vec<u8> {
    let mut bytes = Message::request(Kind::Offer, 7, MAC).to_bytes();
    bytes[0] = 2;
    bytes[44..44 + sname.len()].copy_from_slice(sname);
    bytes[108..108 + file.len()].copy_from_slice(file);
    bytes.truncate(OPTIONS);
    bytes.extend(options);
    bytes
}

#[test]
fn an_offer_of_dhcpd_is_read() {
    let bytes = dhcpd_offer();
    let datagram = frame::parse(&bytes, MAC, true).unwrap();
    assert_eq!(datagram.from, [0xf6, 0x3b, 0x80, 0x03, 0xea, 0xf3]);
    let message = Message::parse(datagram.payload).unwrap();
    assert_eq!((message.op, message.kind, message.xid), (Op::Reply, Kind::Offer, 0x33a1_2188));
    assert_eq!(message.file, b"pxelinux.0");
    assert_eq!(message.addresses(option::DNS), [Ipv4Addr::new(172, 16, 0, 253), Ipv4Addr::new(172, 16, 0, 254)]);
    let (lease, notes) = Lease::from_message(&message, 1500).unwrap();
    assert_eq!((lease.address, lease.prefix, lease.mtu), (Ipv4Addr::new(172, 16, 0, 1), 24, Some(1300)));
    assert_eq!(lease.routes, [(Ipv4Addr::new(10, 0, 0, 0), 8, Ipv4Addr::new(172, 16, 0, 254))]);
    assert!(notes.is_empty());
}

#[test]
fn an_ack_of_dnsmasq_is_read() {
    let bytes = dnsmasq_ack();
    // F3: what the wire would show is half a checksum.
    assert_eq!(frame::parse(&bytes, MAC, true), Err(Ignored::Checksum));
    let message = Message::parse(frame::parse(&bytes, MAC, false).unwrap().payload).unwrap();
    assert_eq!((message.kind, message.siaddr), (Kind::Ack, Ipv4Addr::new(172, 16, 0, 254)));
    assert_eq!(message.text(option::DOMAIN).as_deref(), Some("cluster.test"));
    assert_eq!(Lease::from_message(&message, 1500).unwrap().0.routes.len(), 2);
}

// F3
#[test]
fn every_flipped_bit_is_noticed() {
    let good = dhcpd_offer();
    let ip_length = 14 + usize::from(u16::from_be_bytes([good[16], good[17]]));
    for at in (0..ip_length).filter(|at| !(6..12).contains(at)) {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(frame::parse(&bytes, MAC, true).is_err(), "byte {at} bit {bit}");
        }
    }
}

// F3
#[test]
fn lying_headers_are_refused() {
    let cases: [(&str, usize, &[u8], Ignored); 8] = [
        ("another station's MAC", 0, &[2, 0, 0, 0, 0, 9], Ignored::OtherStation),
        ("not IPv4", 12, &[0x86, 0xdd], Ignored::OtherTraffic),
        ("IP version 6", 14, &[0x65], Ignored::IpHeader),
        ("IHL of 4", 14, &[0x44], Ignored::IpHeader),
        ("a packet longer than the frame", 16, &[0xff, 0xff], Ignored::Short),
        ("a packet shorter than its header", 16, &[0, 19], Ignored::Length),
        ("UDP longer than the packet", 38, &[0x01, 0x35], Ignored::Length),
        ("UDP shorter than its header", 38, &[0, 7], Ignored::Length),
    ];
    for (name, at, value, expected) in cases {
        let mut bytes = dhcpd_offer();
        bytes[at..at + value.len()].copy_from_slice(value);
        if expected != Ignored::IpHeader {
            mend_ip_checksum(&mut bytes);
        }
        assert_eq!(frame::parse(&bytes, MAC, false), Err(expected), "{name}");
    }
    for (name, at, value) in
        [("TCP", 23, &[6, 0][..1]), ("a first fragment", 20, &[0x20, 0]), ("port 69", 36, &[0, 69])]
    {
        let mut bytes = dhcpd_offer();
        bytes[at..at + value.len()].copy_from_slice(value);
        mend_ip_checksum(&mut bytes);
        assert_eq!(frame::parse(&bytes, MAC, false), Err(Ignored::OtherTraffic), "{name}");
    }
}

fn mend_ip_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let words = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn padding_behind_the_packet_and_a_missing_udp_checksum_are_fine() {
    let mut bytes = dhcpd_offer();
    bytes.extend([0x55; 9]);
    assert!(frame::parse(&bytes, MAC, true).is_ok());
    bytes[40..42].fill(0);
    assert!(frame::parse(&bytes, MAC, true).is_ok());
    // F14
    bytes[..6].fill(0xff);
    assert!(frame::parse(&bytes, MAC, true).is_ok());
}

#[test]
fn our_own_frames_have_right_checksums() {
    for length in [300, 301] {
        let payload = vec![0xa5; length];
        let mut bytes = frame::build(MAC, [2; 6], Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &payload);
        assert_eq!(bytes[34..38], [0, 68, 0, 67]);
        // The way back: only a client's port is listened to. The sum stays right, and source and
        // destination count alike in it.
        bytes[34..38].copy_from_slice(&[0, 67, 0, 68]);
        assert_eq!(frame::parse(&bytes, [2; 6], true).unwrap().payload, payload);
    }
}

// F7
#[test]
fn no_cut_and_no_flipped_byte_makes_it_panic() {
    for frame in [dhcpd_offer(), dnsmasq_ack()] {
        for end in 0..frame.len() {
            assert!(frame::parse(&frame[..end], MAC, false).is_err());
        }
        let payload = &frame[42..];
        for end in 0..OPTIONS {
            assert!(Message::parse(&payload[..end]).is_err());
        }
        for at in 0..payload.len() {
            let _ = Message::parse(&payload[..at]);
            for value in [0, 1, 52, 127, 255, payload[at].wrapping_add(1)] {
                let mut bytes = payload.to_vec();
                bytes[at] = value;
                if let Ok(message) = Message::parse(&bytes) {
                    let _ = Lease::from_message(&message, 1500);
                }
            }
        }
    }
}

#[test]
fn what_is_written_can_be_read() {
    let mut message = Message::request(Kind::Request, 0x0102_0304, MAC)
        .with(option::CLIENT_ID, [1, 2, 3])
        .with(option::HOST_NAME, vec![b'x'; 600])
        .with(option::ROOT_PATH, []);
    message.secs = 7;
    message.broadcast = true;
    message.ciaddr = Ipv4Addr::new(10, 0, 0, 1);
    message.file = b"pxelinux.0".to_vec();
    let bytes = message.to_bytes();
    assert_eq!(bytes[OPTIONS..OPTIONS + 3], [53, 1, 3], "the message type comes first");
    assert_eq!(Message::parse(&bytes), Ok(message));
    assert_eq!(Message::request(Kind::Discover, 1, MAC).to_bytes().len(), 300);
}

#[test]
fn over_infiniband_a_message_has_no_hardware_address() {
    let mut message = Message::request(Kind::Discover, 7, None).with(option::CLIENT_ID, [255, 1, 2, 3]);
    message.broadcast = true;
    let bytes = message.to_bytes();
    assert_eq!(bytes[..4], [1, 32, 0, 0]);
    assert_eq!(bytes[10..12], [0x80, 0]);
    assert_eq!(bytes[28..44], [0; 16]);
    assert_eq!(Message::parse(&bytes), Ok(message.clone()));
    // A server that puts something there.
    let mut filled = bytes.clone();
    filled[2] = 8;
    filled[28..36].fill(7);
    assert_eq!(Message::parse(&filled), Ok(message));
    // The packet is what stands in a frame behind Ethernet's header.
    let packet = frame::packet(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &bytes);
    let frame = frame::build(MAC, frame::BROADCAST, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &bytes);
    assert_eq!(frame[14..], packet);
    // Ours goes to the server's port.
    assert_eq!(frame::parse_packet(&packet, true), Err(Ignored::OtherTraffic));
}

// F7
#[test]
fn options_in_pieces_are_joined_over_options_file_and_sname() {
    let bytes = raw(&[53, 1, 2, 52, 1, 3, 15, 2, b'a', b'b', 0, 0, 255], &[15, 1, b'c', 255], &[15, 2, b'd', b'e']);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.text(option::DOMAIN).as_deref(), Some("abcde"));
    assert!(message.file.is_empty(), "the file field holds options");
    let file_only = Message::parse(&raw(&[53, 1, 2, 52, 1, 1], &[15, 1, b'c'], &[15, 1, b'd'])).unwrap();
    assert_eq!(file_only.text(option::DOMAIN).as_deref(), Some("c"));
    let sname_only = Message::parse(&raw(&[53, 1, 2, 52, 1, 2], b"boot", &[15, 1, b'd'])).unwrap();
    assert_eq!((sname_only.text(option::DOMAIN).as_deref(), &sname_only.file[..]), (Some("d"), &b"boot"[..]));
}

// F7
#[test]
fn odd_options_are_read_or_the_message_is_ignored() {
    // No END; pads; an option of no bytes; the boot file as an option, ended by a NUL.
    let message = Message::parse(&raw(&[0, 53, 1, 2, 0, 12, 0, 67, 3, b'x', b'y', 0], &[], &[])).unwrap();
    assert_eq!((message.text(option::HOST_NAME), &message.file[..]), (None, &b"xy"[..]));
    // Nothing behind END counts.
    let message = Message::parse(&raw(&[53, 1, 2, 255, 15, 200], &[], &[])).unwrap();
    assert!(message.options.is_empty());
    let cases: [(&str, &[u8], Ignored); 8] = [
        ("a length cut off", &[53, 1, 2, 15], Ignored::Options),
        ("a value cut off", &[53, 1, 2, 15, 4, b'a'], Ignored::Options),
        ("an overload that is not known", &[53, 1, 2, 52, 1, 4], Ignored::Options),
        ("an overload of two bytes", &[53, 1, 2, 52, 2, 1, 1], Ignored::Options),
        ("no message type", &[15, 1, b'a'], Ignored::NotDhcp),
        ("an empty message type", &[53, 0], Ignored::NotDhcp),
        ("two message types", &[53, 1, 2, 53, 1, 5], Ignored::NotDhcp),
        ("a message type that is not known", &[53, 1, 99], Ignored::NotDhcp),
    ];
    for (name, options, expected) in cases {
        assert_eq!(Message::parse(&raw(options, &[], &[])), Err(expected), "{name}");
    }
    assert_eq!(Message::parse(&raw(&[53, 1, 2, 52, 1, 1], &[15, 127], &[])), Err(Ignored::Options));
    // Options of another length than theirs count as missing.
    let message = Message::parse(&raw(&[53, 1, 2, 54, 3, 1, 2, 3, 6, 5, 1, 2, 3, 4, 5], &[], &[])).unwrap();
    assert_eq!(message.address(option::SERVER), None);
    assert_eq!(message.addresses(option::DNS), [Ipv4Addr::new(1, 2, 3, 4)]);
}

// F3
#[test]
fn other_protocols_in_bootp_are_refused() {
    for (name, at, value) in [("op", 0, 3), ("htype", 1, 6), ("hlen", 2, 16), ("magic", 236, 0)] {
        let mut bytes = raw(&[53, 1, 2], &[], &[]);
        bytes[at] = value;
        assert_eq!(Message::parse(&bytes), Err(Ignored::NotDhcp), "{name}");
    }
}
