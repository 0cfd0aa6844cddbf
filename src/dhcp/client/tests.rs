use super::getting::{MAX_OFFERS, REQUESTS};
use super::*;

mod life;
mod table;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0xac, 0x10, 1];
const OURS: [u8; 4] = [10, 1, 0, 254];
const OTHER: [u8; 4] = [10, 1, 0, 253];

fn seconds(time: f64) -> Duration {
    Duration::from_secs_f64(time)
}

fn client(seed: u64) -> Client {
    Client::new(identity(), seed)
}

fn identity() -> Identity {
    Identity {
        mac: Hardware::Ethernet(MAC),
        client_id: Some(vec![1, 2, 3]),
        max_mtu: 1500,
        arch: Some(7),
        uuid: Some([9; 16]),
        fixed: None,
    }
}

/// The messages among the actions.
fn sent(actions: &[Action]) -> Vec<&Message> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Broadcast(message) | Action::Unicast(message, _) => Some(message),
            _ => None,
        })
        .collect()
}

fn only(actions: &[Action]) -> Message {
    let sent = sent(actions);
    assert_eq!(sent.len(), 1, "{actions:?}");
    sent[0].clone()
}

fn reply(kind: Kind, to: &Message, server: [u8; 4]) -> Message {
    let mut message = Message::request(kind, to.xid, to.chaddr)
        .with(option::SERVER, server)
        .with(option::SUBNET_MASK, [255, 255, 255, 0])
        .with(option::LEASE_TIME, 600_u32.to_be_bytes());
    message.op = Op::Reply;
    message.yiaddr = Ipv4Addr::new(10, 1, 0, server[3] - 200);
    message
}

fn receive(client: &mut Client, message: &Message, now: Duration) -> Vec<Action> {
    client.step(Event::Received(message), now)
}

/// Lets time pass to the client's deadline.
fn tick(client: &mut Client) -> (Duration, Vec<Action>) {
    let at = client.deadline().unwrap();
    let early = at - Duration::from_millis(1);
    assert_eq!(client.step(Event::Tick, early), [], "nothing happens before the deadline");
    (at, client.step(Event::Tick, at))
}

/// A client that has requested the address of `OURS`, and that REQUEST.
fn requesting(now: Duration) -> (Client, Message) {
    let mut client = client(1);
    let discover = only(&client.step(Event::Carrier, now));
    assert_eq!(sent(&receive(&mut client, &reply(Kind::Offer, &discover, OURS), now)), Vec::<&Message>::new());
    let (_, actions) = tick(&mut client);
    let request = only(&actions);
    assert_eq!(request.kind, Kind::Request);
    (client, request)
}

// F2
#[test]
fn discovers_are_sent_again_by_the_rfc_with_jitter() {
    let mut jitters = BTreeSet::new();
    for seed in 0..50 {
        let mut client = client(seed);
        let mut last = seconds(3.0);
        let first = only(&client.step(Event::Carrier, last));
        assert_eq!((first.kind, first.secs, first.broadcast), (Kind::Discover, 0, false));
        for expected in [4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0] {
            let (at, actions) = tick(&mut client);
            let waited = (at - last).as_secs_f64();
            assert!((waited - expected).abs() <= 1.0, "{waited} s instead of about {expected} s");
            jitters.insert(((waited - expected) * 10.0).round() as i32);
            let again = only(&actions);
            assert_eq!((again.kind, again.xid), (Kind::Discover, first.xid));
            assert_eq!(u64::from(again.secs), (at - seconds(3.0)).as_secs());
            last = at;
        }
        assert_eq!(client.tally().discovers, 8);
    }
    assert!(jitters.len() > 15, "spread over two seconds: {jitters:?}");
}

#[test]
fn a_lease_takes_four_messages() {
    let (mut client, request) = requesting(seconds(1.0));
    assert_eq!(request.address(option::SERVER), Some(OURS.into()));
    assert_eq!(request.address(option::REQUESTED_ADDRESS), Some(Ipv4Addr::new(10, 1, 0, 54)));
    assert_eq!(request.ciaddr, Ipv4Addr::UNSPECIFIED);
    // F17
    assert_eq!(request.options[&option::CLIENT_ID], [1, 2, 3]);
    assert_eq!(request.options[&option::VENDOR_CLASS], b"rootstream");
    assert_eq!(request.options[&option::CLIENT_ARCH], [0, 7]);
    assert_eq!(request.options[&option::CLIENT_UUID], [0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    let address = Ipv4Addr::new(10, 1, 0, 54);
    let actions = receive(&mut client, &reply(Kind::Ack, &request, OURS), seconds(2.0));
    let line = Action::Say(Level::Info, "lease 10.1.0.54/24 from 10.1.0.254 for 600 s".to_owned());
    assert_eq!(actions, [Action::Probe(address), line]);
    assert_eq!(client.lease(), None, "not before it is known that nobody has it");
    let (at, actions) = tick(&mut client);
    assert_eq!(at, seconds(2.3));
    assert_eq!(actions, [Action::Announce(address), Action::Bound]);
    assert_eq!(client.lease().unwrap().address, address);

    let actions = client.step(Event::Leave, seconds(9.0));
    let release = only(&actions);
    assert_eq!((release.kind, release.ciaddr), (Kind::Release, address));
    assert_eq!(release.address(option::SERVER), Some(OURS.into()));
    assert_eq!(release.options[&option::CLIENT_ID], [1, 2, 3]);
    assert!(matches!(&actions[0], Action::Unicast(_, server) if server.octets() == OURS));
    assert_eq!(client.step(Event::Leave, seconds(9.0)), []);
    assert_eq!((client.lease(), client.deadline()), (None, None));
}

// F4
#[test]
fn a_plain_offer_waits_a_moment_for_one_that_boots_nodes() {
    for (code, value) in [(option::ROOT_PATH, &b"nfs:/x"[..]), (option::VENDOR_CLASS, b"rootstream"), (0, b"")] {
        let mut client = client(1);
        let discover = only(&client.step(Event::Carrier, seconds(0.0)));
        let actions = receive(&mut client, &reply(Kind::Offer, &discover, OTHER), seconds(0.1));
        assert_eq!(actions, [Action::Say(Level::Info, "OFFER 10.1.0.53 from 10.1.0.253".to_owned())]);
        assert_eq!(client.deadline(), Some(seconds(0.4)));

        let mut better = reply(Kind::Offer, &discover, OURS);
        match code {
            0 => better.file = b"pxelinux.0".to_vec(),
            code => better = better.with(code, value),
        }
        let request = only(&receive(&mut client, &better, seconds(0.2)));
        assert_eq!(request.address(option::SERVER), Some(OURS.into()));
        assert_eq!(client.tally().servers.len(), 2);
        let late = reply(Kind::Offer, &discover, [10, 1, 0, 252]);
        let line = Action::Say(Level::Info, "OFFER from 10.1.0.252 too, not taken".to_owned());
        let ignored = Action::Ignore(Ignored::Unexpected);
        assert_eq!(receive(&mut client, &late, seconds(0.3)), [line, ignored.clone()]);
        assert_eq!(receive(&mut client, &late, seconds(0.3)), [ignored]);
        assert_eq!(client.tally().servers.len(), 3);
    }
}

// F4
#[test]
fn without_a_better_offer_the_first_is_taken() {
    let mut client = client(1);
    let discover = only(&client.step(Event::Carrier, seconds(0.0)));
    receive(&mut client, &reply(Kind::Offer, &discover, OTHER), seconds(0.1));
    receive(&mut client, &reply(Kind::Offer, &discover, OURS), seconds(0.2));
    assert_eq!(only(&tick(&mut client).1).address(option::SERVER), Some(OTHER.into()));
}

// F4
#[test]
fn a_flood_of_offers_takes_bounded_memory() {
    let mut client = client(1);
    let discover = only(&client.step(Event::Carrier, seconds(0.0)));
    let mut taken = 0;
    for server in (201..=250).chain(201..=250) {
        let actions = receive(&mut client, &reply(Kind::Offer, &discover, [10, 1, 0, server]), seconds(0.1));
        taken += usize::from(actions != [Action::Ignore(Ignored::Unexpected)]);
    }
    assert_eq!(taken, MAX_OFFERS);
    assert_eq!(client.tally().servers.len(), MAX_SERVERS);
}

// F5
#[test]
fn naks_start_again_after_growing_delays() {
    let (mut client, mut request) = requesting(seconds(0.0));
    let mut now = seconds(1.0);
    for base in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0] {
        let nak = reply(Kind::Nak, &request, OURS).with(option::TEXT, *b"wrong\x1bnet");
        let actions = receive(&mut client, &nak, now);
        let said = format!("{actions:?}");
        assert!(said.contains("NAK from 10.1.0.254 (wrong\\\\u{1b}net); starting again in "), "{said}");
        let (at, actions) = tick(&mut client);
        let delay = (at - now).as_secs_f64();
        assert!(delay <= base && delay > base / 2.0 - 0.001, "{delay} s of {base} s");
        let discover = only(&actions);
        assert_ne!(discover.xid, request.xid, "a new transaction");
        receive(&mut client, &reply(Kind::Offer, &discover, OURS), at);
        let (at, actions) = tick(&mut client);
        request = only(&actions);
        now = at;
    }
}

// F5
#[test]
fn after_a_failure_another_server_is_preferred() {
    let (mut client, request) = requesting(seconds(0.0));
    receive(&mut client, &reply(Kind::Nak, &request, OURS), seconds(1.0));
    let (at, actions) = tick(&mut client);
    let discover = only(&actions);
    let mut boots = reply(Kind::Offer, &discover, OURS);
    boots.file = b"pxelinux.0".to_vec();
    assert_eq!(sent(&receive(&mut client, &boots, at)), Vec::<&Message>::new());
    receive(&mut client, &reply(Kind::Offer, &discover, OTHER), at);
    assert_eq!(only(&tick(&mut client).1).address(option::SERVER), Some(OTHER.into()));
}

// F6
#[test]
fn an_unanswered_request_is_repeated_and_then_given_up() {
    let (mut client, request) = requesting(seconds(0.0));
    for _ in 1..REQUESTS {
        assert_eq!(only(&tick(&mut client).1), request);
    }
    let (at, actions) = tick(&mut client);
    assert!(sent(&actions).is_empty());
    assert!(format!("{actions:?}").contains("no answer from 10.1.0.254 to 3 REQUESTs; starting again in"));
    assert!((24.0..33.0).contains(&at.as_secs_f64()), "{at:?}");
    assert_eq!(only(&tick(&mut client).1).kind, Kind::Discover);
}

// F3
#[test]
fn answers_to_others_and_out_of_turn_are_ignored_and_counted() {
    let (mut client, request) = requesting(seconds(0.0));
    let line = Action::Say(Level::Info, "NAK from 10.1.0.253 too, not taken".to_owned());
    let nak = reply(Kind::Nak, &request, OTHER);
    assert_eq!(receive(&mut client, &nak, seconds(0.5)), [line, Action::Ignore(Ignored::Unexpected)]);
    let ack = reply(Kind::Ack, &request, OURS);
    let wrong_xid = Message { xid: ack.xid ^ 1, ..ack.clone() };
    let wrong_mac = Message { chaddr: Some([2; 6]), ..ack.clone() };
    let request_again = Message { op: Op::Request, ..ack.clone() };
    for (message, why) in [
        (wrong_xid, Ignored::OtherClient),
        (wrong_mac, Ignored::OtherClient),
        (request_again, Ignored::NotDhcp),
        (reply(Kind::Ack, &request, OTHER), Ignored::Unexpected),
        (reply(Kind::Nak, &request, OTHER), Ignored::Unexpected),
        (reply(Kind::Discover, &request, OURS), Ignored::Unexpected),
    ] {
        assert_eq!(receive(&mut client, &message, seconds(1.0)), [Action::Ignore(why)], "{message:?}");
    }
    let other_id = ack.clone().with(option::CLIENT_ID, [1, 2, 4]);
    assert_eq!(receive(&mut client, &other_id, seconds(1.0)), [Action::Ignore(Ignored::OtherClient)], "RFC 6842");
    let ack = ack.with(option::CLIENT_ID, [1, 2, 3]);
    assert!(matches!(receive(&mut client, &ack, seconds(1.0))[0], Action::Probe(_)));
    assert_eq!(receive(&mut client, &ack, seconds(1.0)), [Action::Ignore(Ignored::Unexpected)]);
}

// F9
#[test]
fn an_unusable_offer_is_said_once() {
    let mut client = client(1);
    let discover = only(&client.step(Event::Carrier, seconds(0.0)));
    let offer = reply(Kind::Offer, &discover, OURS).with(option::ROUTER, [10, 9, 0, 1]);
    let line = "OFFER 10.1.0.54 from 10.1.0.254 refused: router 10.9.0.1 is not on the subnet of 10.1.0.54/24";
    assert_eq!(receive(&mut client, &offer, seconds(0.1)), [Action::Say(Level::Warn, line.to_owned())]);
    assert_eq!(receive(&mut client, &offer, seconds(0.2)), [Action::Ignore(Ignored::Unexpected)]);
    assert_eq!(client.tally().refused.as_deref(), Some(line));
    assert!(client.deadline().unwrap() > seconds(2.0), "nothing to choose from");
}

// F9
#[test]
fn an_unusable_ack_starts_again() {
    let (mut client, request) = requesting(seconds(0.0));
    let ack = reply(Kind::Ack, &request, OURS).with(option::SUBNET_MASK, [255, 0, 255, 0]);
    let actions = receive(&mut client, &ack, seconds(1.0));
    let line = "ACK 10.1.0.54 from 10.1.0.254 refused: subnet mask 255.0.255.0 is not contiguous";
    assert_eq!(actions[0], Action::Say(Level::Warn, line.to_owned()));
    assert_eq!(only(&tick(&mut client).1).kind, Kind::Discover);
}

#[test]
fn carrier_that_comes_and_goes_starts_again_but_not_faster_than_once_a_second() {
    let (mut client, _) = requesting(seconds(0.0));
    assert_eq!(client.step(Event::CarrierLost, seconds(0.5)), []);
    assert_eq!(client.deadline(), None);
    assert_eq!(client.step(Event::Carrier, seconds(0.6)), []);
    let (at, actions) = tick(&mut client);
    assert_eq!((at, only(&actions).kind), (seconds(1.0), Kind::Discover));
    assert_eq!(client.step(Event::Carrier, seconds(1.5)), [], "it has carrier already");
    client.step(Event::CarrierLost, seconds(2.5));
    assert_eq!(only(&client.step(Event::Carrier, seconds(2.6))).kind, Kind::Discover);
}

#[test]
fn over_infiniband_answers_are_known_by_the_client_id() {
    let identity = Identity { mac: Hardware::InfiniBand([7; 20]), ..identity() };
    let mut client = Client::new(identity, 1);
    let discover = only(&client.step(Event::Carrier, seconds(0.0)));
    assert_eq!((discover.chaddr, discover.broadcast), (None, true));
    assert_eq!(discover.options.get(&option::CLIENT_ID), Some(&vec![1, 2, 3]));
    let offer = reply(Kind::Offer, &discover, OURS).with(option::VENDOR_CLASS, *b"rootstream");
    let another = offer.clone().with(option::CLIENT_ID, [1, 2, 4]);
    assert_eq!(receive(&mut client, &another, seconds(0.1)), [Action::Ignore(Ignored::OtherClient)]);
    let ethernet = Message { chaddr: Some([0; 6]), ..offer.clone() };
    assert_eq!(receive(&mut client, &ethernet, seconds(0.1)), [Action::Ignore(Ignored::OtherClient)]);
    let request = only(&receive(&mut client, &offer.with(option::CLIENT_ID, [1, 2, 3]), seconds(0.1)));
    assert_eq!((request.kind, request.chaddr, request.broadcast), (Kind::Request, None, true));
    receive(&mut client, &reply(Kind::Ack, &request, OURS), seconds(0.2));
    tick(&mut client);
    // Who has an address can be sent to.
    let (_, renewal) = tick(&mut client);
    assert_eq!((only(&renewal).kind, only(&renewal).broadcast), (Kind::Request, false));
}
