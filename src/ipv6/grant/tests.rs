use super::*;
use crate::ipv6::wire::Status;

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn prefix(first: &str, length: u8) -> Prefix {
    Prefix { first: ip(first), length, on_link: true, autonomous: true, valid: Some(seconds(600)) }
}

fn router(from: &str, prefixes: &[Prefix]) -> Router {
    let advert = Advertisement {
        managed: false,
        other: false,
        default_router: true,
        preference: Preference::Medium,
        mtu: None,
        prefixes: prefixes.to_vec(),
        routes: Vec::new(),
        dns: Vec::new(),
        search: Vec::new(),
    };
    Router { from: ip(from), advert }
}

fn association(t1: u32, t2: u32, granted: &[(&str, u32)]) -> Association {
    let addresses =
        granted.iter().map(|(address, valid)| Granted { address: ip(address), preferred: *valid, valid: *valid });
    let status = Status { code: 0, text: String::new() };
    Association { iaid: 1, t1, t2, addresses: addresses.collect(), status }
}

fn granted(association: &Association) -> (Result<Grant, String>, Vec<String>) {
    let mut notes = Vec::new();
    let grant = Grant::of_server(association, (&[7], ip("fe80::2")), None, seconds(3), &mut notes);
    (grant, notes)
}

#[test]
fn the_preferred_router_s_prefix_makes_the_address() {
    let own = ip("fe80::5054:ff:feac:1001");
    let mut better = router("fe80::2", &[prefix("fd02::", 64)]);
    better.advert.preference = Preference::High;
    let routers = [router("fe80::1", &[prefix("fd01::", 64)]), better];
    let grant = Grant::of_router(&routers, own, seconds(3)).unwrap();
    assert_eq!((grant.address, grant.prefix), (ip("fd02::5054:ff:feac:1001"), 64));
    assert_eq!((grant.giver, grant.time), (Giver::Router(ip("fe80::2")), Some(seconds(600))));
    let not_ours = Prefix { autonomous: false, ..prefix("fd03::", 64) };
    assert_eq!(Grant::of_router(&[router("fe80::1", &[not_ours, prefix("fd04::", 56)])], own, seconds(3)), None);
    let off_link = Prefix { on_link: false, ..prefix("fd03::", 64) };
    assert_eq!(Grant::of_router(&[router("fe80::1", &[off_link])], own, seconds(3)).unwrap().prefix, 128);
}

#[test]
fn one_advertisement_does_not_end_an_address_soon() {
    let own = ip("fe80::1234");
    let valid = |time| Prefix { valid: time, ..prefix("fd00::", 64) };
    let after = |first: Option<u64>, now: u64, second: Option<u64>| {
        let first = router("fe80::1", &[valid(first.map(seconds))]);
        let mut grant = Grant::of_router(&[first], own, seconds(0)).unwrap();
        assert!(grant.refresh(&router("fe80::1", &[valid(second.map(seconds))]), seconds(now)));
        assert_eq!(grant.since, seconds(now));
        grant.time.map(|time| time.as_secs())
    };
    assert_eq!(after(Some(600), 100, Some(600)), Some(600), "as usual");
    assert_eq!(after(Some(600), 100, Some(60)), Some(500), "not sooner than before");
    assert_eq!(after(Some(20_000), 100, Some(60)), Some(7200));
    assert_eq!(after(Some(20_000), 100, Some(10_000)), Some(10_000));
    assert_eq!(after(None, 100, Some(60)), Some(7200));
    assert_eq!(after(Some(600), 100, None), None);
    let mut grant = Grant::of_router(&[router("fe80::1", &[valid(None)])], own, seconds(0)).unwrap();
    assert!(!grant.refresh(&router("fe80::1", &[prefix("fd09::", 64)]), seconds(1)), "another prefix");
}

// F9
#[test]
fn what_no_host_can_have_is_refused() {
    for (text, why) in [
        ("::", ":: is not a host's address"),
        ("::1", "::1 is not a host's address"),
        ("ff02::5", "ff02::5 is not a host's address"),
        ("fe80::5", "fe80::5 is not a host's address"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1 is not a host's address"),
    ] {
        assert_eq!(granted(&association(0, 0, &[(text, 600)])).0, Err(why.to_owned()));
    }
    assert_eq!(granted(&association(0, 0, &[("fd00::5", 0)])).0, Err("fd00::5 for no time at all".to_owned()));
    assert_eq!(granted(&association(0, 0, &[])).0, Err("no address".to_owned()));
    let second = granted(&association(0, 0, &[("fe80::5", 600), ("fd00::6", 600)])).0.unwrap();
    assert_eq!(second.address, ip("fd00::6"));
    let mut notes = Vec::new();
    let both = association(0, 0, &[("fd00::5", 600), ("fd00::6", 600)]);
    let grant = Grant::of_server(&both, (&[7], ip("fe80::2")), Some(ip("fd00::6")), seconds(0), &mut notes).unwrap();
    assert_eq!(grant.address, ip("fd00::6"), "the one that we have");
}

// F11
#[test]
fn times_are_clamped() {
    let times = |t1, t2, valid| {
        let (grant, notes) = granted(&association(t1, t2, &[("fd00::5", valid)]));
        let grant = grant.unwrap();
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f32());
        (seconds(grant.renewal), seconds(grant.rebinding), seconds(grant.time), notes.len())
    };
    assert_eq!(times(0, 0, 600), (Some(300.0), Some(480.0), Some(600.0), 0));
    assert_eq!(times(100, 200, 600), (Some(100.0), Some(200.0), Some(600.0), 0));
    assert_eq!(times(100, 0, 600), (Some(100.0), Some(480.0), Some(600.0), 0));
    assert_eq!(times(0, 0, 1), (Some(2.5), Some(4.0), Some(5.0), 1));
    for (t1, t2) in [(200, 100), (100, 600), (1, 2), (u32::MAX, u32::MAX)] {
        assert_eq!(times(t1, t2, 600), (Some(300.0), Some(480.0), Some(600.0), 1), "{t1} {t2}");
    }
    assert_eq!(times(100, 200, u32::MAX), (None, None, None, 0));
}

#[test]
fn a_lease_has_what_routers_and_servers_say() {
    let mut first = router("fe80::1", &[prefix("fd00::", 64), prefix("fd01::", 64)]);
    first.advert.routes = vec![(ip("fd05::"), 48)];
    first.advert.dns = vec![ip("fd00::53"), ip("fd00::54"), ip("ff02::1")];
    first.advert.search = vec!["cluster.test".to_owned(), "no good".to_owned()];
    first.advert.mtu = Some(1400);
    let mut second = router("fe80::2", &[]);
    second.advert.preference = Preference::High;
    let mut third = router("fe80::3", &[]);
    third.advert.default_router = false;
    let routers = [first, second, third];
    let mut options = Options::default();
    options.push(option::DNS, ip("fd00::53").octets().to_vec());
    options.push(option::SEARCH, b"\x01a\x04test\x00".to_vec());
    options.push(option::SNTP, ip("fd00::7b").octets().to_vec());
    options.push(option::NAME, b"\x00\x02n1\x01a\x04test\x00".to_vec());
    options.push(option::BOOT_FILE, b"http://[fd00::254]/i.json".to_vec());
    let grant = granted(&association(0, 0, &[("fd00::5", 600)])).0.unwrap().on_link(&routers);
    let (lease, notes) = grant.lease(&routers, Some(&options), 1500);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!((lease.address, lease.prefix, lease.server), (ip("fd00::5"), 64, ip("fe80::2")));
    assert_eq!(lease.dns, [ip("fd00::53"), ip("fd00::54")]);
    assert_eq!(lease.search, ["a.test", "cluster.test"]);
    assert_eq!(lease.ntp, [ip("fd00::7b")]);
    assert_eq!((lease.hostname.as_deref(), lease.domain.as_deref()), (Some("n1"), Some("a.test")));
    assert_eq!(lease.boot_file.as_deref(), Some("http://[fd00::254]/i.json"));
    assert_eq!(lease.mtu, Some(1400));
    let routes: Vec<String> = lease.routes.iter().map(|(to, width, by)| format!("{to}/{width} {by}")).collect();
    assert_eq!(routes, ["fd01::/64 ::", "fd05::/48 fe80::1", "::/0 fe80::2"]);

    // Without a router, nothing is on the link but the address.
    let alone = granted(&association(0, 0, &[("fd00::5", 600)])).0.unwrap().on_link(&[]).lease(&[], None, 1500).0;
    assert_eq!((alone.prefix, alone.routes), (128, Vec::new()));
}

// F12, F16
#[test]
fn what_could_do_harm_is_left_out_and_said() {
    let mut routers = [router("fe80::1", &[prefix("fd00::", 64)])];
    let mut options = Options::default();
    options.push(option::SEARCH, b"\x03a b\x00\x05c".to_vec());
    options.push(option::NAME, b"\x00\x04n1;x\x00".to_vec());
    options.push(option::BOOT_FILE, b"a b".to_vec());
    let grant = Grant::of_router(&routers, ip("fe80::5"), seconds(0)).unwrap();
    routers[0].advert.mtu = Some(1279);
    let (lease, notes) = grant.lease(&routers, Some(&options), 1500);
    assert_eq!((lease.search.len(), &lease.hostname, &lease.boot_file, lease.mtu), (0, &None, &None, None));
    let expected = [
        "domain search list of 7 bytes is broken after 1 names",
        "search domain of 3 bytes dropped: \"a b\"",
        "boot file of 3 bytes dropped: \"a b\"",
        "host name of 4 bytes dropped: \"n1;x\"",
        "MTU 1279 ignored: below 1280",
    ];
    assert_eq!(notes, expected);
    routers[0].advert.mtu = Some(9000);
    let (lease, notes) = grant.lease(&routers, None, 1500);
    assert_eq!((lease.mtu, notes.len()), (Some(1500), 1));
    routers[0].advert.mtu = Some(1 << 20);
    assert_eq!(grant.lease(&routers, None, 1500).0.mtu, None);
}

#[test]
fn time_servers_come_in_two_ways() {
    let mut options = Options::default();
    let one = [&[0, 1, 0, 16][..], &ip("fd00::7b").octets()].concat();
    let many = [&[0, 2, 0, 16][..], &ip("ff02::101").octets()].concat();
    let named = b"\x00\x03\x00\x04\x02n1\x00";
    options.push(option::NTP, [&many[..], &one, named].concat());
    options.push(option::SNTP, ip("fd00::7c").octets().to_vec());
    assert_eq!(time_servers(&options), [ip("fd00::7b")]);
}
