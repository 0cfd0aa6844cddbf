use super::super::wire::{Kind, Op};
use super::*;

fn offer() -> Message {
    let mut message = Message::request(Kind::Offer, 7, [2, 0, 0, 0, 0, 1])
        .with(option::SERVER, [10, 1, 0, 254])
        .with(option::SUBNET_MASK, [255, 255, 255, 0])
        .with(option::LEASE_TIME, 3600_u32.to_be_bytes());
    message.op = Op::Reply;
    message.yiaddr = Ipv4Addr::new(10, 1, 0, 5);
    message
}

fn check(message: &Message) -> (Lease, Vec<String>) {
    Lease::from_message(message, 1500).unwrap()
}

#[test]
fn a_plain_offer_is_taken_as_it_is() {
    let message = offer()
        .with(option::ROUTER, [10, 1, 0, 254])
        .with(option::DNS, [10, 1, 0, 254, 10, 1, 0, 253])
        .with(option::HOST_NAME, *b"n1\0")
        .with(option::DOMAIN, *b"cluster.example")
        .with(option::MTU, [5, 120]);
    let (lease, notes) = check(&message);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 1, 0, 5), 24));
    assert_eq!(lease.routes, [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 1, 0, 254))]);
    assert_eq!(lease.dns.len(), 2);
    assert_eq!(lease.hostname.as_deref(), Some("n1"));
    assert_eq!(lease.domain.as_deref(), Some("cluster.example"));
    assert_eq!(lease.mtu, Some(1400));
    assert_eq!(lease.time, Some(Duration::from_secs(3600)));
    assert_eq!(serde_json::to_value(&lease).unwrap()["time"], 3600);
}

// F9
#[test]
fn unusable_addresses_masks_and_routers_are_refused() {
    for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1", "0.1.2.3", "240.0.0.1"] {
        let mut message = offer();
        message.yiaddr = address.parse().unwrap();
        assert_eq!(Lease::from_message(&message, 1500), Err(Refusal::Address(message.yiaddr)), "{address}");
    }
    for address in ["10.1.0.0", "10.1.0.255"] {
        let mut message = offer();
        message.yiaddr = address.parse().unwrap();
        assert_eq!(Lease::from_message(&message, 1500), Err(Refusal::SubnetAddress(message.yiaddr, 24)));
    }
    for mask in [[255, 0, 255, 0], [0, 0, 0, 0], [0, 255, 255, 255]] {
        let refusal = Lease::from_message(&offer().with(option::SUBNET_MASK, mask), 1500).unwrap_err();
        assert_eq!(refusal, Refusal::Mask(mask.into()));
    }
    let refusal = Lease::from_message(&offer().with(option::ROUTER, [10, 2, 0, 1]), 1500).unwrap_err();
    assert_eq!(refusal.to_string(), "router 10.2.0.1 is not on the subnet of 10.1.0.5/24");
    let mut message = offer();
    message.options.remove(&option::SERVER);
    assert_eq!(Lease::from_message(&message, 1500), Err(Refusal::NoServer));
}

// F9
#[test]
fn the_first_router_on_the_subnet_is_used() {
    let (lease, _) = check(&offer().with(option::ROUTER, [10, 2, 0, 1, 10, 1, 0, 1]));
    assert_eq!(lease.routes, [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 1, 0, 1))]);
}

// F8
#[test]
fn classless_routes_replace_the_router() {
    let routes = [
        24, 10, 9, 8, 10, 1, 0, 1, // fine
        33, 1, 2, 3, 4, 5, 10, 1, 0, 1, // a prefix of 33 bits
        8, 11, 10, 2, 0, 1, // off the link
        32, 169, 254, 1, 1, 0, 0, 0, 0, // on the link
        0, 169, 254, 1, 1, // through the one before
    ];
    let (lease, notes) = check(&offer().with(option::ROUTER, [10, 1, 0, 254]).with(121, routes));
    let gateway = Ipv4Addr::new(169, 254, 1, 1);
    assert_eq!(
        lease.routes,
        [
            (Ipv4Addr::new(10, 9, 8, 0), 24, Ipv4Addr::new(10, 1, 0, 1)),
            (gateway, 32, Ipv4Addr::UNSPECIFIED),
            (Ipv4Addr::UNSPECIFIED, 0, gateway),
        ]
    );
    assert_eq!(notes.len(), 2, "{notes:?}");
}

// F8
#[test]
fn classless_routes_cut_short_end_there() {
    for length in 1..8 {
        let routes = [24, 10, 9, 8, 10, 1, 0, 1];
        let (lease, notes) = check(&offer().with(121, &routes[..length]));
        assert!(lease.routes.is_empty());
        assert_eq!(notes, ["classless routes cut short"]);
    }
}

// F11
#[test]
fn lease_times_are_clamped() {
    let least = Some(Duration::from_secs(5));
    let hour = Some(Duration::from_secs(3600));
    for (seconds, time) in [(0, least), (1, least), (4, least), (3600, hour), (u32::MAX, None)] {
        let (lease, notes) = check(&offer().with(option::LEASE_TIME, seconds.to_be_bytes()));
        assert_eq!(lease.time, time, "{seconds}");
        assert_eq!(notes.len(), usize::from(seconds < 5), "{notes:?}");
    }
}

// F10, F11
#[test]
fn renewal_times_are_those_of_the_server_where_they_make_sense() {
    let times = |lease: u32, renewal: Option<u32>, rebinding: Option<u32>| {
        let mut message = offer().with(option::LEASE_TIME, lease.to_be_bytes());
        for (code, time) in [(option::RENEWAL_TIME, renewal), (option::REBINDING_TIME, rebinding)] {
            if let Some(time) = time {
                message = message.with(code, time.to_be_bytes());
            }
        }
        let (lease, notes) = check(&message);
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        (seconds(lease.renewal), seconds(lease.rebinding), notes.len())
    };
    assert_eq!(times(800, None, None), (Some(400.0), Some(700.0), 0));
    assert_eq!(times(800, Some(5), None), (Some(5.0), Some(700.0), 0));
    assert_eq!(times(800, Some(750), None), (Some(750.0), Some(775.0), 0));
    assert_eq!(times(800, None, Some(600)), (Some(300.0), Some(600.0), 0));
    assert_eq!(times(800, Some(100), Some(200)), (Some(100.0), Some(200.0), 0));
    for (renewal, rebinding) in [(0, 700), (1, 700), (700, 700), (700, 400), (400, 800), (800, 900), (u32::MAX, 1)] {
        let nonsense = times(800, Some(renewal), Some(rebinding));
        assert_eq!(nonsense, (Some(400.0), Some(700.0), 1), "{renewal} {rebinding}");
    }
    assert_eq!(times(0, None, None), (Some(2.5), Some(4.375), 1));
    assert_eq!(times(u32::MAX, Some(5), Some(9)), (None, None, 0));
}

#[test]
fn log_servers_search_list_and_vendor_options_are_kept() {
    let (lease, notes) = check(
        &offer()
            .with(option::LOG_SERVERS, [10, 1, 0, 9, 0, 0, 0, 0])
            .with(option::SEARCH, *b"\x01a\x04test\x00\x02$x\xc0\x02\x01b\xc0\x02\xc0")
            .with(option::DOMAIN, *b"cluster.test")
            .with(option::VENDOR, [1, 2, 0xab, 0xcd]),
    );
    assert_eq!(lease.log_servers, [Ipv4Addr::new(10, 1, 0, 9)]);
    assert_eq!(lease.search, ["a.test", "b.test"]);
    assert_eq!(lease.search_list(), ["a.test", "b.test"]);
    assert_eq!(
        notes,
        ["domain search list of 18 bytes is broken after 3 names", "search domain of 7 bytes dropped: \"$x.test\""]
    );
    let json = serde_json::to_value(&lease).unwrap();
    assert_eq!((&json["vendor"], &json["search"][1]), (&"0102abcd".into(), &"b.test".into()));
    let (lease, _) = check(&offer().with(option::DOMAIN, *b"cluster.test"));
    assert_eq!(lease.search_list(), ["cluster.test"]);
}

// F12
#[test]
fn mtus_are_ignored_or_clamped() {
    for (given, taken) in [(0_u16, None), (575, None), (576, Some(576)), (1500, Some(1500)), (9000, Some(1500))] {
        let (lease, notes) = check(&offer().with(option::MTU, given.to_be_bytes()));
        assert_eq!(lease.mtu, taken);
        assert_eq!(notes.is_empty(), taken == Some(given), "{notes:?}");
    }
}

#[test]
fn what_to_boot_is_kept_as_text() {
    let url = "http://m/images/c/latest.json";
    let mut message = offer().with(option::ROOT_PATH, [url.as_bytes(), b"\0"].concat());
    message.file = b"pxelinux.0".to_vec();
    let (lease, notes) = check(&message);
    assert_eq!((lease.root_path.as_deref(), lease.boot_file.as_deref()), (Some(url), Some("pxelinux.0")));
    assert!(notes.is_empty(), "{notes:?}");
    for odd in [&b"http://m/a b"[..], b"http://m/\n", b"http://m/\xff", b"a\0b"] {
        message.file = odd.to_vec();
        let (lease, notes) = check(&message.clone().with(option::ROOT_PATH, odd));
        assert_eq!((lease.root_path, lease.boot_file), (None, None));
        assert_eq!(notes.len(), 2);
    }
    assert_eq!(check(&offer().with(option::ROOT_PATH, [0])).0.root_path, None);
}

// F16
#[test]
fn names_that_could_do_harm_are_dropped() {
    let long = vec![b'a'; 256];
    for name in [&b"n1;reboot"[..], b"$(id)", b"a\0b", b"-rf", b"..", b"a b", b"n\xff", &long] {
        let (lease, notes) = check(&offer().with(option::HOST_NAME, name).with(option::DOMAIN, name));
        assert_eq!((lease.hostname, lease.domain), (None, None), "{name:?}");
        assert_eq!(notes.len(), 2);
        assert!(notes.iter().all(|note| note.len() < 300 && note.is_ascii()), "{notes:?}");
    }
}
