//! What must hold for the IPv6 client whatever it is sent, and whenever: the targets of fuzzers (`make fuzz`) and of a
//! test in every run; they panic where a promise is broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::advert::{Advertisement, network, solicitation};
use super::client::{Action, Client, Event, Identity, Mode, Standing};
use super::grant::Lease;
use super::wire::{Association, Kind, Message, option};
use crate::dhcp::Reader;
use crate::lease::is_name;

const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
const PEER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const DUID: [u8; 4] = [0, 3, 0, 1];
const IAID: u32 = 7;
const MODES: [Mode; 4] = [Mode::Auto, Mode::Dhcp, Mode::Either, Mode::LinkLocal];
/// More than this in a second would be a flood.
const MOST_A_SECOND: usize = 8;
/// What a byte of the input can mean as a pause.
const PAUSES: [u64; 8] = [0, 1, 299, 300, 999, 5_000, 60_000, 3_600_000];

/// Any bytes as a router's message: what is taken of it is something that a port can have.
pub fn advert(input: &[u8]) {
    let Ok(advert) = Advertisement::parse(input) else { return };
    for prefix in &advert.prefixes {
        assert!(prefix.length <= 128 && network(prefix.first, prefix.length) == prefix.first);
        assert!(!prefix.first.is_unicast_link_local() && prefix.valid != Some(Duration::ZERO));
    }
    assert!(advert.routes.iter().all(|(first, length)| network(*first, *length) == *first));
    let mut client = client(Mode::Auto);
    client.step(Event::Carrier, Duration::ZERO);
    client.step(Event::Addresses(&[(OWN, Standing::Ours)]), Duration::ZERO);
    for action in client.step(Event::Advertised(&advert, PEER), Duration::ZERO) {
        if let Action::Assign(address, _) = action {
            client.step(Event::Addresses(&[(address, Standing::Ours)]), Duration::from_secs(1));
        }
    }
    client.lease().into_iter().for_each(check);
}

/// A first byte says where addresses come from; the rest is what happens to the client: a byte for the event, and what
/// belongs to that.
pub fn dhcp6(input: &[u8]) {
    if let Ok(message) = Message::parse(input) {
        assert_eq!(message.to_bytes(), input, "written as it was read");
    }
    let mut reader = Reader(input);
    let Ok(who) = reader.u8() else { return };
    let client = client(MODES[usize::from(who % 4)]);
    let mut watched = Watched { client, now: Duration::ZERO, sent: VecDeque::new(), last: None, assigned: Vec::new() };
    while let Ok(event) = reader.u8() {
        match event {
            0..=15 => watched.step(Event::Carrier),
            16..=23 => watched.step(Event::CarrierLost),
            24..=27 => watched.step(Event::Leave),
            28..=59 => {
                let standing = [Standing::Ours, Standing::Ours, Standing::Tentative, Standing::Duplicate];
                let standing = standing[usize::from(event % 4)];
                let all: Vec<_> =
                    [OWN].into_iter().chain(watched.assigned.clone()).map(|own| (own, standing)).collect();
                watched.step(Event::Addresses(&all));
            }
            60..=89 => watched.pause(Duration::from_millis(PAUSES[usize::from(event % 8)])),
            90..=109 => watched.wait_for_deadline(),
            110..=139 => {
                let bytes = piece(&mut reader);
                if let Ok(advert) = Advertisement::parse(&router_message(event, bytes)) {
                    watched.step(Event::Advertised(&advert, PEER));
                }
            }
            _ => {
                let options = piece(&mut reader);
                if let Some(message) = watched.last.as_ref().and_then(|last| answer(event, last, options)) {
                    watched.step(Event::Received(&message, PEER));
                }
            }
        }
        // Messages wait while the client has something to do.
        watched.pause(Duration::ZERO);
    }
}

fn client(mode: Mode) -> Client {
    Client::new(Identity { duid: DUID.to_vec(), iaid: IAID, max_mtu: 1500, arch: None, mode }, 1)
}

fn piece<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    let length = usize::from(reader.u8().unwrap_or_default()).min(reader.0.len());
    reader.slice(length).unwrap()
}

/// Flags by `event`, then a prefix that all hosts can use, and further options.
fn router_message(event: u8, options: &[u8]) -> Vec<u8> {
    let flags = [0, 0x40, 0x80, 0xc0][usize::from(event % 4)];
    let mut bytes = vec![134, 0, 0, 0, 64, flags, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let times = if event & 4 == 0 { 600_u32 } else { 7 }.to_be_bytes();
    if event & 8 == 0 {
        let first = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0);
        bytes.extend([&[3, 4, 64, 0xc0][..], &times, &times, &[0; 4], &first.octets()].concat());
    }
    bytes.extend(options);
    bytes
}

/// A server's answer: the kind and how well it fits by `event`, further options out of the input in front of the others.
fn answer(event: u8, last: &Message, options: &[u8]) -> Option<Message> {
    let kind = if event & 1 == 0 { Kind::Advertise } else { Kind::Reply };
    let mut bytes = Message::new(kind, last.xid).to_bytes();
    bytes.extend(options);
    let number = (event >> 1) % 4;
    let valid = if event & 32 == 0 { 600_u32 } else { 9 }.to_be_bytes();
    let mut association = Association::asked(IAID, Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into())));
    association[32..36].copy_from_slice(&valid);
    association[36..40].copy_from_slice(&valid);
    let message = Message::parse(&bytes).ok()?;
    Some(
        message
            .with(option::CLIENT_ID, &DUID)
            .with(option::SERVER_ID, &[0, 3, (event >> 3) % 2])
            .with(option::ASSOCIATION, &association),
    )
}

/// A client and its time, watched.
struct Watched {
    client: Client,
    now: Duration,
    /// When the latest messages were sent.
    sent: VecDeque<Duration>,
    /// The latest message, which servers answer.
    last: Option<Message>,
    /// Addresses on the port.
    assigned: Vec<Ipv6Addr>,
}

impl Watched {
    fn step(&mut self, event: Event<'_>) {
        for action in self.client.step(event, self.now) {
            match action {
                Action::Send(message) => {
                    assert!(message.to_bytes().len() <= 1232, "a message that any network takes");
                    self.last = Some(message);
                    self.count();
                }
                Action::AskRouters => self.count(),
                Action::Assign(address, prefix) => {
                    assert!(prefix <= 128 && !self.assigned.contains(&address), "{address} twice");
                    self.assigned.push(address);
                }
                Action::Remove(address) => {
                    let there = self.assigned.iter().position(|assigned| *assigned == address).expect("on the port");
                    self.assigned.remove(there);
                }
                Action::Bound => check(self.client.lease().unwrap()),
                Action::Say(_, line) => assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}"),
                Action::Lost | Action::Ignore(_) => {}
            }
        }
        if let Some(lease) = self.client.lease() {
            assert!(lease.address == OWN || self.assigned.contains(&lease.address), "a lease that is on the port");
        }
    }

    fn count(&mut self) {
        self.sent.push_back(self.now);
        if self.sent.len() > MOST_A_SECOND {
            let first = self.sent.pop_front().unwrap();
            let flood = self.now - first < Duration::from_secs(1);
            assert!(!flood, "more than {MOST_A_SECOND} messages in a second");
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
            assert!(turns < 4000, "it keeps itself busy");
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
    assert!(!lease.address.is_multicast() && !lease.address.is_loopback() && !lease.address.is_unspecified());
    assert!((1..=128).contains(&lease.prefix));
    if let (Some(time), Some(renewal)) = (lease.time, lease.renewal) {
        let rebinding = lease.rebinding.unwrap();
        assert!(Duration::from_secs(2) <= renewal && renewal < rebinding && rebinding < time);
    }
    let names = lease.search.iter().chain(&lease.domain).chain(&lease.hostname);
    assert!(names.into_iter().all(|name| is_name(name)));
    assert!(lease.routes.iter().all(|(to, width, _)| network(*to, *width) == *to));
    assert!(lease.mtu.is_none_or(|mtu| (1280..=1500).contains(&mtu)));
}

/// Inputs to begin with: routers' messages.
pub fn advert_seeds() -> Vec<Vec<u8>> {
    let route = [24, 2, 48, 0, 0, 0, 2, 88, 0xfd, 1, 0, 2, 0, 3, 0, 0];
    let dns = [&[25, 3, 0, 0, 0, 0, 2, 88][..], &[0xfd; 16]].concat();
    let search = *b"\x1f\x03\0\0\0\0\x02\x58\x07cluster\x04test\0\0\0";
    let mtu = [5, 1, 0, 0, 0, 0, 5, 0xdc];
    let own = [1, 1, 2, 2, 2, 2, 2, 2];
    let all = [&route[..], &dns, &search, &mtu, &own].concat();
    vec![router_message(3, &all), router_message(0, &mtu), router_message(8, &search), solicitation([2; 6])]
}

/// Inputs to begin with: whole lives of leases.
pub fn dhcp6_seeds() -> Vec<Vec<u8>> {
    const UP: [u8; 2] = [0, 28];
    const OURS: [u8; 1] = [28];
    const TAKEN: [u8; 1] = [31];
    const RA: [u8; 2] = [112, 0];
    const PLAIN_RA: [u8; 2] = [128, 0];
    const ADVERTISE: [u8; 2] = [142, 0];
    const REPLY: [u8; 2] = [143, 0];
    const WAIT: [u8; 1] = [90];
    let life = |who: u8, happenings: &[&[u8]]| [&[who], &UP[..], &happenings.concat()].concat();
    let names = [&[143, 22][..], b"\0\x18\0\x12\x03eng\x04test\0\x04more\0\0\0"].concat();
    let waits = WAIT.repeat(12);
    vec![
        life(1, &[&RA, &ADVERTISE, &WAIT, &REPLY, &OURS, &WAIT, &REPLY, &waits]),
        life(1, &[&ADVERTISE, &WAIT, &REPLY, &OURS, &WAIT, &waits, &[24]]),
        life(
            1,
            &[&RA, &ADVERTISE, &WAIT, &REPLY, &TAKEN, &WAIT, &ADVERTISE, &WAIT, &REPLY, &OURS, &[16, 0, 28], &REPLY],
        ),
        life(0, &[&PLAIN_RA, &OURS, &waits, &PLAIN_RA, &OURS, &[16, 0, 28], &PLAIN_RA, &waits]),
        life(0, &[&RA, &WAIT, &WAIT, &OURS, &[24]]),
        life(0, &[&RA, &names, &OURS, &WAIT]),
        life(2, &[&RA, &ADVERTISE, &WAIT, &names, &OURS, &WAIT, &WAIT]),
        life(3, &[&WAIT, &[16, 0, 28], &RA, &[24]]),
        answer(143, &Message::new(Kind::Request, 7), b"").unwrap().to_bytes(),
    ]
}
