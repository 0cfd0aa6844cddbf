use std::collections::BTreeSet;

use super::getting::{MAX_OFFERS, REQUESTS};
use super::routers::MAX_ROUTERS;
use super::*;
use crate::ipv6::advert::tests::{advertisement, prefix};
use crate::ipv6::wire::{Association, status};

mod table;

const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfeac, 0x1001);
/// What the prefix fd00::/64 makes of it.
const MADE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0x5054, 0xff, 0xfeac, 0x1001);
const GIVEN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const DUID: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0xac, 0x10, 1];
const IAID: u32 = 7;

fn seconds(time: f64) -> Duration {
    Duration::from_secs_f64(time)
}

fn server(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number.into())
}

fn client(mode: Mode, seed: u64) -> Client {
    Client::new(Identity { duid: DUID.to_vec(), iaid: IAID, max_mtu: 1500, arch: Some(7), mode }, seed)
}

/// The messages among the actions.
fn sent(actions: &[Action]) -> Vec<&Message> {
    actions.iter().filter_map(|action| if let Action::Send(message) = action { Some(message) } else { None }).collect()
}

fn only(actions: &[Action]) -> Message {
    let sent = sent(actions);
    assert_eq!(sent.len(), 1, "{actions:?}");
    sent[0].clone()
}

/// What a router says: flags M (0x80) and O (0x40), and the prefix fd00::/64 for so many seconds.
fn advert(flags: u8, valid: u32) -> Advertisement {
    Advertisement::parse(&advertisement(flags, 1800, &[&prefix("fd00::", 64, 0xc0, valid)])).unwrap()
}

/// The association of a server's answer, with an address for so many seconds, or a status.
fn association(address: Ipv6Addr, valid: u32, code: u16) -> Vec<u8> {
    let mut bytes = Association::asked(IAID, (code == status::SUCCESS).then_some(address));
    if code == status::SUCCESS {
        bytes[32..36].copy_from_slice(&valid.to_be_bytes());
        bytes[36..40].copy_from_slice(&valid.to_be_bytes());
    } else {
        bytes.extend([0, 13, 0, 2]);
        bytes.extend(code.to_be_bytes());
    }
    bytes
}

/// A server's answer, with this association where there is one.
fn answer(kind: Kind, to: &Message, number: u8, association: Option<&[u8]>) -> Message {
    let message = Message::new(kind, to.xid).with(option::CLIENT_ID, &DUID).with(option::SERVER_ID, &[0, 3, number]);
    association.map_or(message.clone(), |bytes| message.with(option::ASSOCIATION, bytes))
}

fn given(kind: Kind, to: &Message, number: u8) -> Message {
    answer(kind, to, number, Some(&association(GIVEN, 600, status::SUCCESS)))
}

fn receive(client: &mut Client, message: &Message, number: u8, now: Duration) -> Vec<Action> {
    client.step(Event::Received(message, server(number)), now)
}

fn addresses(client: &mut Client, address: Ipv6Addr, standing: Standing, now: Duration) -> Vec<Action> {
    client.step(Event::Addresses(&[(OWN, Standing::Ours), (address, standing)]), now)
}

/// Lets time pass to the client's deadline.
fn tick(client: &mut Client) -> (Duration, Vec<Action>) {
    let at = client.deadline().unwrap();
    let early = at - Duration::from_millis(1);
    assert_eq!(client.step(Event::Tick, early), [], "nothing happens before the deadline");
    (at, client.step(Event::Tick, at))
}

/// A client with carrier and a link-local address, and its SOLICIT where servers are asked.
fn begun(mode: Mode, seed: u64) -> (Client, Vec<Action>) {
    let mut client = client(mode, seed);
    assert_eq!(client.step(Event::Carrier, seconds(1.0)), []);
    assert!(client.awaits_addresses() && client.deadline().is_none());
    assert_eq!(client.step(Event::Addresses(&[(OWN, Standing::Tentative)]), seconds(1.0)), []);
    assert_eq!(client.missing(), Some(Missing::LinkLocal));
    let actions = client.step(Event::Addresses(&[(OWN, Standing::Ours)]), seconds(2.0));
    assert_eq!((actions.first(), client.link_local()), (Some(&Action::AskRouters), Some(OWN)));
    (client, actions)
}

fn requesting() -> (Client, Message) {
    let (mut client, actions) = begun(Mode::Dhcp, 1);
    let solicit = only(&actions);
    assert_eq!(sent(&receive(&mut client, &given(Kind::Advertise, &solicit, 1), 1, seconds(2.1))).len(), 0);
    assert_eq!(client.deadline(), Some(seconds(2.4)), "for better servers");
    let request = only(&tick(&mut client).1);
    assert_eq!(request.kind, Kind::Request);
    (client, request)
}

// F2
#[test]
fn solicits_are_sent_again_by_the_rfc_with_jitter() {
    let mut jitters = BTreeSet::new();
    for seed in 0..50 {
        let (mut client, actions) = begun(Mode::Dhcp, seed);
        let first = only(&actions);
        let mut last = seconds(2.0);
        let router = advert(0x80, 600);
        client.step(Event::Advertised(&router, ROUTER), last);
        for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0] {
            let (at, actions) = tick(&mut client);
            let waited = (at - last).as_secs_f64() / expected;
            assert!((0.9..=1.1).contains(&waited), "{waited} of {expected} s");
            jitters.insert((waited * 1000.0) as i32);
            let again = only(&actions);
            assert_eq!((again.kind, again.xid), (Kind::Solicit, first.xid));
            let elapsed = (at - seconds(2.0)).as_millis() / 10;
            assert_eq!(again.options.fixed(option::ELAPSED).map(u16::from_be_bytes), u16::try_from(elapsed).ok());
            last = at;
        }
        assert_eq!((client.tally().solicits, client.missing()), (9, Some(Missing::Server)));
    }
    assert!(jitters.len() > 50, "{jitters:?}");
}

#[test]
fn routers_are_asked_again_until_one_is_heard() {
    let (mut client, _) = begun(Mode::Auto, 1);
    let mut last = seconds(2.0);
    for expected in [4.0, 8.0, 16.0, 32.0, 64.0, 64.0] {
        let (at, actions) = tick(&mut client);
        assert_eq!(actions[0], Action::AskRouters);
        assert!(((at - last).as_secs_f64() / expected - 1.0).abs() <= 0.1, "{:?} of {expected} s", at - last);
        last = at;
    }
    assert_eq!((client.tally().solicitations, client.missing()), (7, Some(Missing::Router)));
    let actions = client.step(Event::Advertised(&advert(0, 600), ROUTER), last);
    assert_eq!(actions[1], Action::Assign(MADE, 64));
    assert_eq!(client.missing(), None);
}

// F13
#[test]
fn a_server_s_lease_takes_four_messages() {
    let (mut client, request) = requesting();
    // F17
    assert_eq!(request.options.get(option::CLIENT_ID), Some(&DUID[..]));
    assert_eq!(request.options.get(option::SERVER_ID), Some(&[0, 3, 1][..]));
    assert_eq!(request.association(IAID).unwrap().addresses[0].address, GIVEN);
    assert_eq!(request.options.get(option::VENDOR_CLASS), Some(&b"\0\0\0\0\0\x0arootstream"[..]));
    assert_eq!(request.options.get(option::CLIENT_ARCH), Some(&[0, 7][..]));
    client.step(Event::Advertised(&advert(0x80, 600), ROUTER), seconds(2.5));
    let actions = receive(&mut client, &given(Kind::Reply, &request, 1), 1, seconds(3.0));
    let line = "lease fd00::5/64 from fe80::1:1 for 600 s";
    assert_eq!(actions, [Action::Assign(GIVEN, 64), Action::Say(Level::Info, line.to_owned())]);
    assert_eq!(addresses(&mut client, GIVEN, Standing::Tentative, seconds(3.5)), []);
    assert_eq!(client.lease(), None, "not before it is known that nobody has it");
    assert_eq!(addresses(&mut client, GIVEN, Standing::Ours, seconds(4.0)), [Action::Bound]);
    let lease = client.lease().unwrap();
    assert_eq!((lease.address, lease.prefix, lease.server), (GIVEN, 64, server(1)));
    assert_eq!(lease.routes, [(Ipv6Addr::UNSPECIFIED, 0, ROUTER)]);

    let release = only(&client.step(Event::Leave, seconds(9.0)));
    assert_eq!((release.kind, release.options.get(option::SERVER_ID)), (Kind::Release, Some(&[0, 3, 1][..])));
    assert_eq!(release.association(IAID).unwrap().addresses[0].address, GIVEN);
    assert_eq!(client.step(Event::Leave, seconds(9.0)), []);
    assert_eq!((client.lease(), client.deadline()), (None, None));
}

// F4
#[test]
fn the_better_server_is_asked() {
    let change = |code: u16, value: &[u8]| {
        let (mut client, actions) = begun(Mode::Dhcp, 1);
        let solicit = only(&actions);
        receive(&mut client, &given(Kind::Advertise, &solicit, 1), 1, seconds(2.1));
        let better = given(Kind::Advertise, &solicit, 2).with(code, value);
        let actions = receive(&mut client, &better, 2, seconds(2.2));
        let at_once = !sent(&actions).is_empty();
        let request = if at_once { only(&actions) } else { only(&tick(&mut client).1) };
        let late = given(Kind::Advertise, &solicit, 3);
        let line = Action::Say(Level::Info, "ADVERTISE from fe80::1:3 too, not taken".to_owned());
        if request.xid != solicit.xid {
            assert_eq!(receive(&mut client, &late, 3, seconds(3.0)), [Action::Ignore(Ignored::OtherClient)]);
        } else {
            assert_eq!(receive(&mut client, &late, 3, seconds(3.0))[0], line);
        }
        (request.options.get(option::SERVER_ID).unwrap()[2], at_once)
    };
    assert_eq!(change(99, b""), (1, false), "the first");
    assert_eq!(change(option::PREFERENCE, &[9]), (2, false));
    assert_eq!(change(option::PREFERENCE, &[255]), (2, true));
    assert_eq!(change(option::BOOT_FILE, b"http://m/i.json"), (2, true));
    assert_eq!(change(option::VENDOR_CLASS, b"\0\0\0\0\0\x0arootstream"), (2, true));
}

// F4
#[test]
fn floods_take_bounded_memory() {
    let (mut client, actions) = begun(Mode::Dhcp, 1);
    let solicit = only(&actions);
    let mut taken = 0;
    for number in (1..=60).chain(1..=60) {
        let actions = receive(&mut client, &given(Kind::Advertise, &solicit, number), number, seconds(2.1));
        taken += usize::from(actions != [Action::Ignore(Ignored::Unexpected)]);
        client.step(Event::Advertised(&advert(0, 600), server(number)), seconds(2.1));
    }
    assert_eq!((taken, client.tally().servers.len()), (MAX_OFFERS, MAX_SERVERS));
    assert_eq!((client.routers.len(), client.tally().routers.len()), (MAX_ROUTERS, MAX_ROUTERS));
}

// F5
#[test]
fn refusals_start_again_after_growing_delays_and_prefer_another_server() {
    let (mut client, mut request) = requesting();
    let mut now = seconds(3.0);
    client.step(Event::Advertised(&advert(0x80, 600), ROUTER), now);
    for base in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0] {
        let none = association(GIVEN, 0, status::NO_ADDRESSES);
        let actions = receive(&mut client, &answer(Kind::Reply, &request, 1, Some(&none)), 1, now);
        assert!(
            format!("{actions:?}").contains("REPLY from fe80::1:1 refused: no addresses available; starting again")
        );
        let (at, actions) = tick(&mut client);
        let delay = (at - now).as_secs_f64();
        assert!(delay <= base + 0.001 && delay > base / 2.0 - 0.001, "{delay} s of {base} s");
        let solicit = only(&actions);
        let boots = given(Kind::Advertise, &solicit, 1).with(option::PREFERENCE, &[255]);
        assert_eq!(sent(&receive(&mut client, &boots, 1, at)).len(), 0, "not at once this time");
        let (at, actions) = tick(&mut client);
        request = only(&actions);
        now = at;
    }
    let none = association(GIVEN, 0, status::NO_ADDRESSES);
    receive(&mut client, &answer(Kind::Reply, &request, 1, Some(&none)), 1, now);
    let (at, actions) = tick(&mut client);
    let solicit = only(&actions);
    receive(&mut client, &given(Kind::Advertise, &solicit, 1), 1, at);
    receive(&mut client, &given(Kind::Advertise, &solicit, 2), 2, at);
    assert_eq!(only(&tick(&mut client).1).options.get(option::SERVER_ID), Some(&[0, 3, 2][..]));
}

// F6
#[test]
fn an_unanswered_request_is_repeated_and_then_given_up() {
    let (mut client, request) = requesting();
    client.step(Event::Advertised(&advert(0x80, 600), ROUTER), seconds(2.5));
    for _ in 1..REQUESTS {
        assert_eq!(only(&tick(&mut client).1).xid, request.xid);
    }
    let (at, actions) = tick(&mut client);
    assert!(sent(&actions).is_empty());
    assert!(format!("{actions:?}").contains("no answer from fe80::1:1 to 4 REQUESTs; starting again in"));
    assert!((15.0..20.0).contains(&at.as_secs_f64()), "{at:?}");
    assert_eq!(only(&tick(&mut client).1).kind, Kind::Solicit);
}

// F3
#[test]
fn answers_to_others_and_out_of_turn_are_ignored() {
    let (mut client, request) = requesting();
    let good = given(Kind::Reply, &request, 1);
    let other = Message::new(Kind::Reply, request.xid).with(option::SERVER_ID, &[0, 3, 1]);
    for (message, why) in [
        (Message { xid: good.xid ^ 1, ..good.clone() }, Ignored::OtherClient),
        (other.clone(), Ignored::OtherClient),
        (other.with(option::CLIENT_ID, &[9, 9]), Ignored::OtherClient),
        (Message { kind: Kind::Request, ..good.clone() }, Ignored::NotDhcp),
        (given(Kind::Advertise, &request, 1), Ignored::Unexpected),
    ] {
        assert_eq!(receive(&mut client, &message, 1, seconds(2.5)), [Action::Ignore(why)], "{message:?}");
    }
    let unnamed = Message::new(Kind::Reply, request.xid).with(option::CLIENT_ID, &DUID);
    let line = "REPLY from fe80::1:1 refused: no server identifier".to_owned();
    assert_eq!(receive(&mut client, &unnamed, 1, seconds(2.5)), [Action::Say(Level::Warn, line)]);
    assert_eq!(receive(&mut client, &unnamed, 1, seconds(2.5)), [Action::Ignore(Ignored::Unexpected)]);
    let line = Action::Say(Level::Info, "REPLY from fe80::1:2 too, not taken".to_owned());
    assert_eq!(receive(&mut client, &given(Kind::Reply, &request, 2), 2, seconds(2.5))[0], line);
    assert!(matches!(receive(&mut client, &good, 1, seconds(2.5))[0], Action::Assign(..)));
}

#[test]
fn servers_may_want_to_be_asked_less_often() {
    let (mut client, actions) = begun(Mode::Dhcp, 1);
    let solicit = only(&actions);
    for (seconds_said, expected) in [(59_u32, 3600), (61, 61), (86_401, 61), (86_400, 86_400)] {
        let none = association(GIVEN, 0, status::NO_ADDRESSES);
        let message = answer(Kind::Advertise, &solicit, 1, Some(&none));
        let message = message.with(option::SOLICIT_MAX, &seconds_said.to_be_bytes());
        receive(&mut client, &message, 1, seconds(2.1));
        assert_eq!(client.solicit_max, Duration::from_secs(expected));
    }
}

#[test]
fn without_a_usable_prefix_the_reason_is_said() {
    let (mut client, _) = begun(Mode::Auto, 1);
    let bare = Advertisement::parse(&advertisement(0x80, 1800, &[])).unwrap();
    let actions = client.step(Event::Advertised(&bare, ROUTER), seconds(3.0));
    let lines = [
        Action::Say(Level::Info, "router fe80::1 advertises no prefix, servers have addresses".to_owned()),
        Action::Say(
            Level::Warn,
            "no prefix of 64 bits to make an address of from router fe80::1; servers have addresses: ip=dhcp6 or ip=either6"
                .to_owned(),
        ),
    ];
    assert_eq!(actions, lines);
    assert_eq!(client.step(Event::Advertised(&bare, ROUTER), seconds(4.0)), [Action::Ignore(Ignored::Unexpected)]);
}
