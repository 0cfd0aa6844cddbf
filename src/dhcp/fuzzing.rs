//! What must hold for the DHCP client whatever it is sent, and whenever: the target of a fuzzer (`make fuzz`) and of a
//! test in every run; it panics where a promise is broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::client::{Action, Client, Event, Identity};
use super::lease::Lease;
use super::wire::{Kind, Message, option};
use super::{Reader, frame};
use crate::mac::Hardware;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0xac, 0x10, 1];
/// More than this in a second would be a flood.
const MOST_A_SECOND: usize = 6;
/// What a byte of the input can mean as a pause.
const PAUSES: [u64; 8] = [0, 1, 299, 300, 999, 5_000, 60_000, 3_600_000];

/// A client and its time, watched.
struct Watched {
    client: Client,
    now: Duration,
    /// When the latest messages were sent.
    sent: VecDeque<Duration>,
    /// The latest message, which servers answer.
    last: Option<Message>,
}

/// A first byte says who the client is; the rest is what happens to it: a byte for the event, and what belongs to that.
pub fn dhcp(input: &[u8]) {
    bytes(input);
    let mut reader = Reader(input);
    let Ok(who) = reader.u8() else { return };
    let identity = Identity {
        mac: Hardware::Ethernet(MAC),
        client_id: (who & 1 != 0).then(|| vec![1, 2, 3]),
        max_mtu: 1500,
        arch: None,
        uuid: None,
        fixed: (who & 6 == 6).then_some((Ipv4Addr::new(10, 1, 0, 7), 24)),
    };
    let client = Client::new(identity, who.into());
    let mut watched = Watched { client, now: Duration::ZERO, sent: VecDeque::new(), last: None };
    while let Ok(event) = reader.u8() {
        match event {
            0..=15 => watched.step(Event::Carrier),
            16..=23 => watched.step(Event::CarrierLost),
            24..=27 => watched.step(Event::Leave),
            28..=59 => {
                let address = watched.client.lease().map_or(Ipv4Addr::new(10, 1, 0, 54), |lease| lease.address);
                watched.step(Event::Claimed(address, Hardware::Ethernet([2; 6])));
            }
            60..=99 => watched.pause(Duration::from_millis(PAUSES[usize::from(event % 8)])),
            100..=119 => watched.wait_for_deadline(),
            _ => {
                let Ok(length) = reader.u8() else { break };
                let length = usize::from(length).min(reader.0.len());
                let options = reader.slice(length).unwrap();
                if let Some(message) = watched.last.as_ref().and_then(|last| answer(event, last, options)) {
                    watched.step(Event::Received(&message));
                }
            }
        }
        // Frames wait while the client has something to do.
        watched.pause(Duration::ZERO);
    }
}

/// Any bytes: a frame or a message is read, or refused; what is read is written as it was read.
fn bytes(input: &[u8]) {
    for payload in
        [Some(input), frame::parse(input, MAC, false).ok().map(|datagram| datagram.payload)].into_iter().flatten()
    {
        if let Ok(message) = Message::parse(payload) {
            assert_eq!(Message::parse(&message.to_bytes()).as_ref(), Ok(&message));
            if let Ok((lease, _)) = Lease::from_message(&message, 1500) {
                check(&lease);
            }
        }
    }
}

/// A server's answer: the kind and how well it fits by `event`, the rest of the options out of the input.
fn answer(event: u8, last: &Message, options: &[u8]) -> Option<Message> {
    let kind = [Kind::Offer, Kind::Ack, Kind::Nak, Kind::Ack][usize::from(event % 4)];
    let mut bytes = Message::request(kind, last.xid, MAC).to_bytes();
    bytes[0] = 2;
    // Behind the message's type.
    bytes.splice(243..243, options.iter().copied());
    let mut message = Message::parse(&bytes).ok()?;
    message.yiaddr = Ipv4Addr::new(10, 1, 0, if event & 64 == 0 { 54 } else { 55 });
    let defaults = [
        (option::SERVER, [10, 1, 0, 254 - (event >> 2) % 3]),
        (option::SUBNET_MASK, [255, 255, 255, 0]),
        (option::LEASE_TIME, 600_u32.to_be_bytes()),
    ];
    for (code, value) in defaults {
        message.options.entry(code).or_insert_with(|| value.to_vec());
    }
    Some(message)
}

impl Watched {
    fn step(&mut self, event: Event<'_>) {
        for action in self.client.step(event, self.now) {
            match action {
                Action::Broadcast(message) | Action::Unicast(message, _) => {
                    assert!(message.to_bytes().len() <= 576, "a message that any network takes");
                    self.last = Some(message);
                    self.sent.push_back(self.now);
                    if self.sent.len() > MOST_A_SECOND {
                        let first = self.sent.pop_front().unwrap();
                        assert!(
                            self.now - first >= Duration::from_secs(1),
                            "more than {MOST_A_SECOND} messages in a second"
                        );
                    }
                }
                Action::Bound => check(self.client.lease().expect("a client that is bound has a lease")),
                Action::Lost => assert!(self.client.lease().is_none()),
                Action::Probe(address) | Action::Announce(address) => assert!(!address.is_unspecified()),
                Action::Say(_, line) => {
                    assert!(line.len() < 500 && !line.contains(|c: char| c.is_control()), "{line:?}")
                }
                Action::Ignore(_) => {}
            }
        }
    }

    /// Lets time pass, with all that comes due.
    fn pause(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        while let Some(at) = self.client.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Event::Tick);
            turns += 1;
            assert!(turns < 2000, "it keeps itself busy");
        }
        self.now = end;
    }

    fn wait_for_deadline(&mut self) {
        if let Some(at) = self.client.deadline() {
            self.pause(at.saturating_sub(self.now).min(Duration::from_secs(86_400)));
        }
    }
}

/// A lease that a port can be given.
fn check(lease: &Lease) {
    let [first, ..] = lease.address.octets();
    assert!(first != 0 && first != 127 && first < 224, "{}", lease.address);
    assert!((1..=32).contains(&lease.prefix));
    if let Some(time) = lease.time {
        let (renewal, rebinding) = (lease.renewal.unwrap(), lease.rebinding.unwrap());
        assert!(Duration::from_secs(2) <= renewal && renewal < rebinding && rebinding < time);
    }
    let names = lease.search.iter().chain(&lease.domain).chain(&lease.hostname);
    let is_name = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    assert!(names.into_iter().all(|name| !name.is_empty() && name.len() <= 253 && is_name(name)));
    assert!(lease.routes.iter().all(|(_, width, gateway)| *width <= 32 && *gateway != lease.address));
    assert!(lease.mtu.is_none_or(|mtu| (576..=1500).contains(&mtu)));
}

/// Inputs to begin with: whole lives of leases.
pub fn seeds() -> Vec<Vec<u8>> {
    const OFFER: [u8; 2] = [120, 0];
    const ACK: [u8; 2] = [121, 0];
    const NAK: [u8; 2] = [122, 0];
    const WAIT: [u8; 1] = [100];
    let bound = [&[1, 0][..], &OFFER, &WAIT, &ACK, &WAIT].concat();
    let with = |more: &[&[u8]]| [&bound[..], &more.concat()].concat();
    let short = [&[121, 6][..], &[51, 4, 0, 0, 0, 8]].concat();
    let routes = [&[121, 10][..], &[121, 8, 24, 10, 9, 8, 10, 1, 0, 1]].concat();
    let names = [&[121, 17][..], b"\x77\x0f\x03eng\x04test\x00\x01b\xc0\x04"].concat();
    vec![
        with(&[&WAIT, &ACK, &WAIT, &NAK, &WAIT]),
        with(&[&WAIT, &WAIT, &WAIT, &WAIT, &WAIT, &WAIT, &WAIT]),
        with(&[&[16], &[65], &[0], &ACK, &WAIT, &[24]]),
        with(&[&[16], &[0], &WAIT, &WAIT, &WAIT, &OFFER, &WAIT, &ACK]),
        [&[1, 0][..], &OFFER, &WAIT, &ACK, &[30], &WAIT, &OFFER, &WAIT, &short].concat(),
        [&[0, 0][..], &OFFER, &WAIT, &routes, &WAIT, &names].concat(),
        [&[0, 0][..], &OFFER, &WAIT, &names, &WAIT, &WAIT].concat(),
        [&[7, 0][..], &ACK, &WAIT, &[16, 0], &WAIT, &WAIT, &[24]].concat(),
        frame::build([2; 6], MAC, Ipv4Addr::new(10, 1, 0, 254), Ipv4Addr::BROADCAST, &seed_message().to_bytes()),
        seed_message().to_bytes(),
    ]
}

fn seed_message() -> Message {
    let mut message = Message::request(Kind::Ack, 7, MAC)
        .with(option::SERVER, [10, 1, 0, 254])
        .with(option::SUBNET_MASK, [255, 255, 255, 0])
        .with(option::ROUTER, [10, 1, 0, 254])
        .with(option::HOST_NAME, vec![b'x'; 300])
        .with(option::SEARCH, *b"\x03eng\x04test\x00\x01b\xc0\x04");
    message.yiaddr = Ipv4Addr::new(10, 1, 0, 54);
    message.file = b"pxelinux.0".to_vec();
    message
}
