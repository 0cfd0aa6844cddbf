//! What becomes of a lease.

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 54);

/// A client bound at 1 s to a lease of 600 s, from a REQUEST at 0.3 s.
fn bound() -> Client {
    let (mut client, request) = requesting(seconds(0.0));
    receive(&mut client, &reply(Kind::Ack, &request, OURS), seconds(0.7));
    let (at, actions) = tick(&mut client);
    assert_eq!((at, actions.last()), (seconds(1.0), Some(&Action::Bound)));
    client
}

fn asked_at() -> Duration {
    seconds(0.3)
}

// F10
#[test]
fn a_lease_is_renewed_at_half_of_its_time_give_or_take() {
    let mut starts = BTreeSet::new();
    for seed in 0..50 {
        let mut client = client(seed);
        let discover = only(&client.step(Event::Carrier, seconds(0.0)));
        receive(&mut client, &reply(Kind::Offer, &discover, OURS), seconds(0.0));
        let request = only(&tick(&mut client).1);
        receive(&mut client, &reply(Kind::Ack, &request, OURS), seconds(0.7));
        tick(&mut client);
        let (at, actions) = tick(&mut client);
        let after = (at - asked_at()).as_secs_f64();
        assert!((281.2..=300.0).contains(&after), "{after} s, within a sixteenth before 300 s");
        starts.insert(after as u32);
        let renewal = only(&actions);
        assert!(matches!(&actions[0], Action::Unicast(_, server) if server.octets() == OURS));
        // RFC 2131 section 4.3.2.
        assert_eq!((renewal.kind, renewal.ciaddr, renewal.secs), (Kind::Request, ADDRESS, 0));
        assert_eq!((renewal.address(option::SERVER), renewal.address(option::REQUESTED_ADDRESS)), (None, None));
        assert_ne!(renewal.xid, request.xid);
        let actions = receive(&mut client, &reply(Kind::Ack, &renewal, OURS), at + seconds(0.1));
        let line = "lease 10.1.0.54/24 renewed by 10.1.0.254 for 600 s".to_owned();
        assert_eq!(actions, [Action::Bound, Action::Say(Level::Info, line)]);
        let (next, _) = tick(&mut client);
        assert!(next > at + seconds(281.2) && next <= at + seconds(300.0), "counted from the REQUEST");
    }
    assert!(starts.len() > 8, "nodes that booted together renew apart: {starts:?}");
}

// F10
#[test]
fn unanswered_renewals_go_to_any_server_and_end_with_the_lease() {
    let mut client = bound();
    let mut times = Vec::new();
    let mut kinds = Vec::new();
    loop {
        let (at, actions) = tick(&mut client);
        times.push((at - asked_at()).as_secs());
        if actions[0] == Action::Lost {
            assert_eq!(only(&actions).kind, Kind::Discover);
            let line = "the lease of 10.1.0.54 from 10.1.0.254 is lost: run out".to_owned();
            assert_eq!(actions[1], Action::Say(Level::Error, line));
            break;
        }
        kinds.push(matches!(actions[0], Action::Unicast(..)));
        assert_eq!(only(&actions).ciaddr, ADDRESS);
        assert_eq!(client.lease().unwrap().address, ADDRESS, "ours until its end");
    }
    // Half of what is left until T2 at 525 s, at least 60 s; then of what is left until 600 s.
    assert!((281..=300).contains(&times[0]), "{times:?}");
    let first = times[0];
    assert!(times[1].abs_diff(first + (525 - first) / 2) <= 1, "{times:?}");
    assert_eq!(times[2] - times[1], 60, "{times:?}");
    assert_eq!(times[3..], [525, 585, 600]);
    assert_eq!(kinds, [true, true, true, false, false]);
    assert_eq!(client.lease(), None);
}

// F10
#[test]
fn a_short_lease_has_one_renewal_and_one_rebinding() {
    let (mut client, request) = requesting(seconds(0.0));
    let ack = reply(Kind::Ack, &request, OURS).with(option::LEASE_TIME, 8_u32.to_be_bytes());
    receive(&mut client, &ack, seconds(0.3));
    let times: Vec<f64> = (0..4).map(|_| tick(&mut client).0.as_secs_f64()).collect();
    assert_eq!(times[0], 0.6);
    assert!((4.05..=4.3).contains(&times[1]), "{times:?}");
    assert_eq!(times[2..], [7.3, 8.3]);
}

#[test]
fn renewal_times_of_the_server_count() {
    let (mut client, request) = requesting(seconds(0.0));
    let ack = reply(Kind::Ack, &request, OURS)
        .with(option::RENEWAL_TIME, 16_u32.to_be_bytes())
        .with(option::REBINDING_TIME, 40_u32.to_be_bytes());
    receive(&mut client, &ack, seconds(0.3));
    let times: Vec<f64> = (0..3).map(|_| tick(&mut client).0.as_secs_f64()).collect();
    assert!((15.3..=16.3).contains(&times[1]), "{times:?}");
    assert_eq!(times[2], 40.3);
}

#[test]
fn a_lease_for_ever_is_never_renewed() {
    let (mut client, request) = requesting(seconds(0.0));
    receive(&mut client, &reply(Kind::Ack, &request, OURS).with(option::LEASE_TIME, [0xff; 4]), seconds(0.3));
    tick(&mut client);
    assert!(client.lease().is_some());
    assert_eq!(client.deadline(), None);
}

// F5
#[test]
fn a_renewal_that_is_refused_ends_the_lease_at_once() {
    let mut client = bound();
    let (at, actions) = tick(&mut client);
    let renewal = only(&actions);
    // Only its own server may say so before T2.
    let foreign = receive(&mut client, &reply(Kind::Nak, &renewal, OTHER), at);
    assert_eq!(foreign.last(), Some(&Action::Ignore(Ignored::Unexpected)));
    let other = Message { yiaddr: Ipv4Addr::new(10, 1, 0, 99), ..reply(Kind::Ack, &renewal, OURS) };
    let line = "ACK 10.1.0.99 from 10.1.0.254 refused: 10.1.0.99 instead of 10.1.0.54, which was asked for";
    assert_eq!(receive(&mut client, &other, at), [Action::Say(Level::Warn, line.to_owned())]);
    assert!(client.lease().is_some());
    let actions = receive(&mut client, &reply(Kind::Nak, &renewal, OURS), at);
    assert_eq!(actions[0], Action::Lost);
    assert_eq!(client.lease(), None);
    assert_eq!(only(&tick(&mut client).1).kind, Kind::Discover);
}

// F13
#[test]
fn an_address_that_somebody_has_is_declined() {
    let (mut client, request) = requesting(seconds(0.0));
    receive(&mut client, &reply(Kind::Ack, &request, OURS), seconds(1.0));
    for (address, by) in [(Ipv4Addr::new(10, 1, 0, 55), [2; 6]), (ADDRESS, MAC)] {
        assert_eq!(
            client.step(Event::Claimed(address, Hardware::Ethernet(by)), seconds(1.1)),
            [],
            "another address, or ourselves"
        );
    }
    let actions = client.step(Event::Claimed(ADDRESS, Hardware::Ethernet([2, 0, 0, 0, 0, 0xab])), seconds(1.2));
    let decline = only(&actions);
    assert_eq!((decline.kind, decline.ciaddr, decline.xid), (Kind::Decline, Ipv4Addr::UNSPECIFIED, request.xid));
    assert_eq!(decline.address(option::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(decline.address(option::SERVER), Some(OURS.into()));
    let line = "10.1.0.54 from 10.1.0.254 is in use by 02:00:00:00:00:ab, DECLINE sent; starting again in 10.0 s";
    assert_eq!(actions[1], Action::Say(Level::Warn, line.to_owned()));
    assert_eq!(client.tally().refused.as_deref().map(|why| why.contains("in use by")), Some(true));
    let (at, actions) = tick(&mut client);
    assert_eq!((at, only(&actions).kind), (seconds(11.2), Kind::Discover));
    assert_eq!(client.step(Event::Claimed(ADDRESS, Hardware::Ethernet([2; 6])), at), [], "nothing is being checked");
}

#[test]
fn carrier_that_comes_back_asks_for_the_same_address() {
    let mut client = bound();
    client.step(Event::CarrierLost, seconds(20.0));
    assert!(client.lease().is_some(), "still ours");
    let actions = client.step(Event::Carrier, seconds(25.0));
    let request = only(&actions);
    assert!(matches!(actions[0], Action::Broadcast(_)));
    // RFC 2131 section 4.3.2: INIT-REBOOT.
    assert_eq!((request.kind, request.ciaddr), (Kind::Request, Ipv4Addr::UNSPECIFIED));
    assert_eq!((request.address(option::SERVER), request.address(option::REQUESTED_ADDRESS)), (None, Some(ADDRESS)));
    let mut ack = reply(Kind::Ack, &request, OTHER);
    ack.yiaddr = ADDRESS;
    assert_eq!(receive(&mut client, &ack, seconds(25.1))[0], Action::Bound);
    assert_eq!(client.lease().unwrap().server, Ipv4Addr::from(OTHER), "whichever server says so");
}

#[test]
fn without_an_answer_the_lease_is_kept_while_another_is_looked_for() {
    let mut client = bound();
    client.step(Event::CarrierLost, seconds(20.0));
    client.step(Event::Carrier, seconds(25.0));
    assert_eq!(only(&tick(&mut client).1).kind, Kind::Request);
    let (at, actions) = tick(&mut client);
    let discover = only(&actions);
    assert_eq!((discover.kind, discover.address(option::REQUESTED_ADDRESS)), (Kind::Discover, Some(ADDRESS)));
    assert_eq!(client.lease().unwrap().address, ADDRESS);
    // Another server has another address for it.
    receive(&mut client, &reply(Kind::Offer, &discover, OTHER), at);
    let (at, actions) = tick(&mut client);
    receive(&mut client, &reply(Kind::Ack, &only(&actions), OTHER), at);
    assert_eq!(tick(&mut client).1.last(), Some(&Action::Bound));
    assert_eq!(client.lease().unwrap().address, Ipv4Addr::new(10, 1, 0, 53));
}

#[test]
fn a_lease_that_was_taken_but_not_checked_is_given_back_too() {
    let (mut client, request) = requesting(seconds(0.0));
    let mut asking = client.clone();
    receive(&mut client, &reply(Kind::Ack, &request, OURS), seconds(1.0));
    for client in [&mut client, &mut asking] {
        let release = only(&client.step(Event::Leave, seconds(1.1)));
        assert_eq!((release.kind, release.ciaddr), (Kind::Release, ADDRESS));
    }
}

#[test]
fn a_fixed_address_asks_for_options_only() {
    let address = Ipv4Addr::new(10, 1, 0, 7);
    let mut client = Client::new(Identity { fixed: Some((address, 16)), ..identity() }, 1);
    let inform = only(&client.step(Event::Carrier, seconds(0.0)));
    assert_eq!((inform.kind, inform.ciaddr), (Kind::Inform, address));
    let mut ack = reply(Kind::Ack, &inform, OURS).with(option::DNS, [10, 1, 0, 254]);
    ack.yiaddr = Ipv4Addr::UNSPECIFIED;
    assert_eq!(receive(&mut client, &ack, seconds(0.1))[0], Action::Bound);
    let lease = client.lease().unwrap();
    assert_eq!((lease.address, lease.prefix, lease.time), (address, 16, None));
    assert_eq!(lease.dns, [Ipv4Addr::new(10, 1, 0, 254)]);
    assert_eq!(client.deadline(), None);
    assert_eq!(client.step(Event::Leave, seconds(9.0)), [], "nobody granted it");
}
