//! What becomes of a lease while a node boots: renewals, ends, conflicts, cables pulled; against real and scripted DHCP
//! servers in private network namespaces.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod lab;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, image, lines, ports_and_routes, rehearse, reply, settings, settings_of};
use rootstream::dhcp::wire::{Kind, option};
use rootstream::net::{Destination, Settings, bring_up};
use rootstream_lab::faulty::{self, Server};
use rootstream_lab::namespace::ip;
use rootstream_lab::packages::unpacked;

const MAC: &str = "52:54:00:ac:10:01";
const SECOND_MAC: &str = "52:54:00:ac:10:02";
const MASTER: [u8; 4] = [172, 16, 0, 254];

/// Waits until `ready`, at most 20 s.
fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// ISC dhcpd with leases of `seconds`.
fn dhcpd(lab: &Lab, seconds: u32, more: &str) -> lab::Server {
    let program = unpacked("isc-dhcp-server").unwrap().join("usr/sbin/dhcpd");
    let configuration = format!(
        "authoritative; default-lease-time {seconds}; max-lease-time {seconds}; min-lease-time {seconds};
         subnet 172.16.0.0 netmask 255.255.255.0 {{ range 172.16.0.9 172.16.0.10; ping-check false; {more} }}"
    );
    lab.dhcpd(&program, "srv0", &configuration)
}

// F10
#[test]
fn a_lease_shorter_than_the_download_is_renewed_and_the_connection_stays() {
    let _ = unpacked("isc-dhcp-server").unwrap();
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let dhcpd = dhcpd(&lab, 8, "");
    let body = image();
    let length = body.len();
    let web = Server::start_at(SocketAddr::from((MASTER, 80)), move |_, stream| {
        faulty::head(stream, "200 OK", &[("ETag", "\"1\"")], Some(body.len()))?;
        for piece in body.chunks(body.len() / 250) {
            stream.write_all(piece)?;
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    })
    .unwrap();
    let (code, record) = rehearse(&lab, "rootstream.image=http://172.16.0.254/i.tar rootstream.retry=1s");
    assert_eq!(code, 0, "{record}");
    assert_eq!((&record["bytes"], &record["retries"]), (&length.into(), &0.into()));
    assert_eq!(web.requests().len(), 1, "one connection from the first byte to the last");
    let image = record["steps"].as_array().unwrap().iter().find(|step| step["name"] == "image").unwrap();
    assert!(image["seconds"].as_f64().unwrap() > 16.0, "two leases long: {image}");
    let address = record["lease"]["address"].as_str().unwrap();
    // The one that granted it, and one about every four seconds.
    let acks = dhcpd.count(&format!("DHCPACK on {address} to {MAC}"));
    assert!(acks >= 5, "{acks} ACKs");
    assert_eq!(dhcpd.count("DHCPDISCOVER"), 1);
    assert_eq!(record["lease"]["time"], 8);
    // The record has the latest renewal, from the kernel's start as the steps have it.
    let (granted, began) = (record["lease"]["granted"].as_f64().unwrap(), image["at"].as_f64().unwrap());
    assert!(granted > began + 12.0, "granted at {granted} s, the download began at {began} s");
    dhcpd.wait_for_line(&format!("DHCPRELEASE of {address}"));
}

// F10
#[test]
fn dnsmasq_says_when_to_renew() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let dnsmasq =
        lab.dnsmasq("srv0", &["--dhcp-range=172.16.0.10,172.16.0.20,255.255.255.0,2m", "--dhcp-option=option:T1,5"]);
    let mut network = lab.node(|| bring_up(&settings()).unwrap());
    assert_eq!(network.lease.time, Some(Duration::from_secs(120)));
    assert_eq!(network.lease.renewal, Some(Duration::from_secs(5)));
    let first = network.lease.granted.unwrap();
    wait_until("two renewals", || dnsmasq.count("DHCPACK(srv0)") >= 3);
    lab.node(move || {
        wait_until("both are said", || lines("dhcp: eth0: lease ").len() >= 3);
        let address = network.lease.address;
        let said = format!("dhcp: eth0: lease {address}/24 renewed by 172.16.0.254 for 120 s");
        assert_eq!(lines("dhcp: eth0: lease ")[1..3], [said.clone(), said]);
        network.settle().unwrap();
        let between = network.lease.granted.unwrap() - first;
        assert!((8..15).contains(&between.as_secs()), "two renewals after {between:?}");
        assert_eq!(ports_and_routes().port("eth0").addresses, [format!("{address}/24")]);
        network.leave().unwrap();
        assert!(ports_and_routes().port("eth0").addresses.is_empty());
    });
    dnsmasq.wait_for_line("DHCPRELEASE(srv0)");
}

// F10
#[test]
fn a_lease_that_nobody_renews_is_taken_off_and_another_one_is_looked_for() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    // Another address for every try, however often its messages are repeated.
    let mut tries = Vec::new();
    lab.script("srv0", move |message| {
        if message.kind == Kind::Discover && !tries.contains(&message.xid) {
            tries.push(message.xid);
        }
        let answer = |kind| {
            let answer = reply(kind, message, MASTER, [172, 16, 0, 8 + tries.len() as u8]);
            vec![answer.with(option::LEASE_TIME, 6_u32.to_be_bytes()).with(option::ROUTER, MASTER)]
        };
        match message.kind {
            Kind::Discover => answer(Kind::Offer),
            Kind::Request if message.ciaddr == Ipv4Addr::UNSPECIFIED => answer(Kind::Ack),
            _ => Vec::new(),
        }
    });
    lab.node(|| {
        let mut network = bring_up(&settings()).unwrap();
        assert_eq!(network.lease.address, Ipv4Addr::new(172, 16, 0, 9));
        let before = ports_and_routes();
        wait_until("lost", || ports_and_routes().port("eth0").addresses.is_empty());
        wait_until("found", || ports_and_routes().port("eth0").addresses == ["172.16.0.10/24"]);
        assert_eq!(ports_and_routes().routes, before.routes);
        assert_eq!(
            lines("dhcp: eth0: the lease"),
            ["dhcp: eth0: the lease of 172.16.0.9 from 172.16.0.254 is lost: run out"]
        );
        assert_eq!(lines("net: eth0 (52:54:00:ac:10:01): address").len(), 2, "taken away, and the new one");
        network.settle().unwrap();
        assert_eq!(network.lease.address, Ipv4Addr::new(172, 16, 0, 10));
        network.leave().unwrap();
        let left = ports_and_routes();
        assert!(!left.port("eth0").up && left.port("eth0").addresses.is_empty(), "{left:?}");
    });
}

// F8, F10
#[test]
fn a_renewal_that_leaves_out_mask_and_router_changes_neither() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.script("srv0", move |message| {
        let whole = |kind| {
            let answer = reply(kind, message, MASTER, [172, 16, 0, 9]).with(option::ROUTER, MASTER);
            vec![answer.with(option::LEASE_TIME, 6_u32.to_be_bytes())]
        };
        match message.kind {
            Kind::Discover => whole(Kind::Offer),
            Kind::Request if message.ciaddr == Ipv4Addr::UNSPECIFIED => whole(Kind::Ack),
            // By its class the address has 16 bits of prefix. A route is new.
            Kind::Request => {
                let mut answer = reply(Kind::Ack, message, MASTER, [172, 16, 0, 9])
                    .with(option::LEASE_TIME, 6_u32.to_be_bytes())
                    .with(option::CLASSLESS_ROUTES, [24, 10, 7, 7, 172, 16, 0, 253]);
                answer.options.remove(&option::SUBNET_MASK);
                vec![answer]
            }
            _ => Vec::new(),
        }
    });
    lab.node(|| {
        let mut network = bring_up(&settings()).unwrap();
        let before = ports_and_routes();
        wait_until("renewed", || lines("dhcp: eth0: lease ").iter().any(|line| line.contains("renewed")));
        wait_until("routed", || lines("net: eth0: route to 10.7.7.0/24 through 172.16.0.253").len() == 1);
        let after = ports_and_routes();
        assert_eq!(after.port("eth0").addresses, ["172.16.0.9/24"]);
        assert!(before.routes.iter().all(|route| after.routes.contains(route)), "{before:?} {after:?}");
        assert_eq!(after.routes.len(), before.routes.len() + 1, "{after:?}");
        assert_eq!(lines("net: eth0 (52:54:00:ac:10:01): address").len(), 0, "never taken away");
        network.settle().unwrap();
        assert_eq!((network.lease.prefix, network.lease.routes.len()), (24, 2));
        network.leave().unwrap();
    });
}

// F10
#[test]
fn another_server_may_renew_when_the_first_one_is_gone() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let mut renewals = 0;
    lab.script("srv0", move |message| {
        let renewal = message.ciaddr != Ipv4Addr::UNSPECIFIED;
        renewals += u8::from(renewal && message.kind == Kind::Request);
        let answer = |kind, server| {
            let answer = reply(kind, message, server, [172, 16, 0, 9]);
            vec![answer.with(option::LEASE_TIME, 6_u32.to_be_bytes())]
        };
        match (message.kind, renewals) {
            (Kind::Discover, _) => answer(Kind::Offer, MASTER),
            (Kind::Request, 0) => answer(Kind::Ack, MASTER),
            // The first goes to its server, which is gone; the second, at T2, to any.
            (Kind::Request, 2) => answer(Kind::Ack, [172, 16, 0, 253]),
            _ => Vec::new(),
        }
    });
    lab.node(|| {
        let mut network = bring_up(&settings()).unwrap();
        let renewed = "dhcp: eth0: lease 172.16.0.9/24 renewed by 172.16.0.253 for 6 s";
        wait_until("renewed", || lines("dhcp: eth0: lease ").iter().any(|line| line == renewed));
        assert_eq!(lines("dhcp: eth0: REQUEST for more time for 172.16.0.9 sent to any server").len(), 1);
        assert_eq!(lines("dhcp: eth0: the lease").len(), 0);
        network.settle().unwrap();
        assert_eq!(network.lease.server, Ipv4Addr::new(172, 16, 0, 253));
        assert_eq!(ports_and_routes().port("eth0").addresses, ["172.16.0.9/24"]);
        network.leave().unwrap();
    });
}

#[test]
fn a_cable_that_is_pulled_and_put_back_keeps_the_address() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let dnsmasq = lab.dnsmasq("srv0", &["--dhcp-range=172.16.0.10,172.16.0.20,255.255.255.0,1h"]);
    let network = lab.node(|| bring_up(&settings()).unwrap());
    let addresses = vec![format!("{}/24", network.lease.address)];
    // On a busy machine even the first may need a second try.
    let (discovers, requests) = (dnsmasq.count("DHCPDISCOVER(srv0)"), lab.node(|| lines("dhcp: eth0: REQUEST").len()));
    ip("link set srv0 down").unwrap();
    let held = addresses.clone();
    lab.node(move || {
        wait_until("said", || lines("net: eth0 (52:54:00:ac:10:01): carrier lost").len() == 1);
        assert_eq!(ports_and_routes().port("eth0").addresses, held);
    });
    ip("link set srv0 up").unwrap();
    lab.node(move || {
        wait_until("asked", || lines("dhcp: eth0: lease ").iter().any(|line| line.contains("renewed")));
        assert_eq!(ports_and_routes().port("eth0").addresses, addresses);
        assert!(lines("dhcp: eth0: REQUEST").len() > requests);
        network.leave().unwrap();
    });
    assert_eq!(dnsmasq.count("DHCPDISCOVER(srv0)"), discovers, "it began anew");
}

// F13
#[test]
fn an_address_that_somebody_has_is_declined_and_another_one_taken() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let dhcpd = dhcpd(&lab, 600, "");
    // dhcpd begins at the beginning of a range.
    ip("addr add 172.16.0.9/24 dev srv0").unwrap();
    lab.node(|| {
        let network = bring_up(&Settings { dhcp: Duration::from_secs(30), ..settings() }).unwrap();
        assert_eq!(network.lease.address, Ipv4Addr::new(172, 16, 0, 10));
        let said = lines("dhcp: eth0: 172.16.0.9 from 172.16.0.254 is in use by ");
        assert!(said.len() == 1 && said[0].ends_with("DECLINE sent; starting again in 10.0 s"), "{said:?}");
    });
    assert_eq!(dhcpd.count("DHCPDECLINE of 172.16.0.9 from 52:54:00:ac:10:01"), 1);
}

// F13
#[test]
fn an_address_that_somebody_takes_later_is_defended() {
    for fixed in [false, true] {
        let lab = Lab::new();
        lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
        let _dnsmasq = lab.dnsmasq(
            "srv0",
            &["--dhcp-range=172.16.0.0,static,255.255.255.0,1h", "--dhcp-host=52:54:00:ac:10:01,172.16.0.1"],
        );
        let settings =
            if fixed { settings_of("ip=172.16.0.1::172.16.0.254:255.255.255.0::eth0:none") } else { settings() };
        let network = lab.node(move || bring_up(&settings).unwrap());
        ip("addr add 172.16.0.1/24 dev srv0").unwrap();
        // Whoever asks for another address says its own.
        for _ in 0..3 {
            UdpSocket::bind("172.16.0.1:0").unwrap().send_to(b"?", "172.16.0.77:9").unwrap();
        }
        lab.node(move || {
            let said = || -> Vec<String> {
                lines("net: eth0").into_iter().filter(|line| line.contains("172.16.0.1 is ours, but ")).collect()
            };
            wait_until("said", || !said().is_empty());
            assert!(said().len() == 1 && said()[0].ends_with(" uses it too; announced again"), "{:?}", said());
            assert_eq!(ports_and_routes().port("eth0").addresses, ["172.16.0.1/24"], "fixed: {fixed}");
            network.leave().unwrap();
        });
    }
}

// F13
#[test]
fn another_port_of_the_machine_is_nobody_else() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "169.254.0.1/32");
    lab.wire("eth1", SECOND_MAC, "srv1", "169.254.0.1/32");
    for words in ["link add br0 type bridge", "addr add 172.16.0.254/24 dev br0", "link set br0 up"] {
        ip(words).unwrap();
    }
    for end in ["srv0", "srv1"] {
        ip(&format!("link set {end} master br0")).unwrap();
    }
    let dnsmasq = lab.dnsmasq(
        "br0",
        &["--dhcp-range=172.16.0.0,static,255.255.255.0,1h", "--dhcp-host=52:54:00:ac:10:01,172.16.0.1"],
    );
    lab.node(|| {
        // As a try leaves it that was killed: eth1 answers for the address of eth0.
        for words in ["link set eth0 up", "link set eth1 up", "addr add 172.16.0.1/24 dev eth0"] {
            ip(words).unwrap();
        }
        assert_eq!(bring_up(&settings()).unwrap().lease.address, Ipv4Addr::new(172, 16, 0, 1));
    });
    assert_eq!(dnsmasq.count("DHCPDECLINE"), 0);
}

// F15
#[test]
fn of_two_served_ports_the_loser_gives_its_lease_back_at_once() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.wire("eth1", SECOND_MAC, "srv1", "172.17.0.254/24");
    let second = Arc::new(lab.dnsmasq("srv1", &["--dhcp-range=172.17.0.10,172.17.0.250,255.255.255.0,1h"]));
    // Whichever is first would end the race, perhaps before the other was granted anything. So the port that is preferred
    // is not answered before the other has its lease.
    let (loser, (released, releases)) = (Arc::clone(&second), mpsc::channel());
    lab.script("srv0", move |message| {
        let answer = |kind| vec![reply(kind, message, MASTER, [172, 16, 0, 9])];
        match message.kind {
            Kind::Discover => {
                loser.wait_for_line("DHCPACK(srv1)");
                answer(Kind::Offer)
            }
            Kind::Request => answer(Kind::Ack),
            kind => {
                released.send(kind).unwrap();
                Vec::new()
            }
        }
    });
    let preferring = settings_of("BOOTIF=01-52-54-00-ac-10-01");
    let network = lab.node(move || bring_up(&preferring).unwrap());
    assert_eq!(network.port, "eth0");
    second.wait_for_line("DHCPRELEASE(srv1)");
    assert!(releases.try_recv().is_err(), "the winner gives nothing back");
    lab.node(move || {
        assert!(!ports_and_routes().port("eth1").up);
        network.leave().unwrap();
    });
    assert_eq!(releases.recv_timeout(Duration::from_secs(10)), Ok(Kind::Release));
}

// F15
#[test]
fn the_port_whose_lease_leads_to_the_image_wins() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.wire("eth1", SECOND_MAC, "srv1", "172.17.0.254/24");
    ip("link set srv1 down").unwrap();
    // The first to answer is a network of its own, as one for management is.
    let management =
        lab.dnsmasq("srv0", &["--dhcp-range=172.16.0.10,172.16.0.250,255.255.255.0,1h", "--dhcp-option=option:router"]);
    let _dnsmasq = lab.dnsmasq("srv1", &["--dhcp-range=172.17.0.10,172.17.0.250,255.255.255.0,1h"]);
    let _ = lab.later(Duration::from_millis(1000), "link set srv1 up");
    let to = |host| Settings { destination: Destination::Hosts(vec![host]), ..settings() };
    let near = to(Ipv4Addr::new(172, 17, 0, 254).into());
    lab.node(move || {
        let network = bring_up(&near).unwrap();
        assert_eq!(network.port, "eth1");
        assert!(!ports_and_routes().port("eth0").up);
        network.leave().unwrap();
    });
    management.wait_for_line("DHCPRELEASE(srv0)");
    // The management network is better than none.
    ip("link set srv1 down").unwrap();
    let nowhere = to(Ipv4Addr::new(172, 18, 0, 1).into());
    lab.node(move || {
        assert_eq!(bring_up(&nowhere).unwrap().port, "eth0");
        assert_eq!(lines("net: eth0 (52:54:00:ac:10:01): this lease has no way to the image").len(), 1);
    });
}

// F15
#[test]
fn a_boot_that_fails_gives_its_lease_back() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let dnsmasq = lab.dnsmasq("srv0", &["--dhcp-range=172.16.0.10,172.16.0.20,255.255.255.0,1h"]);
    let (code, record) = rehearse(&lab, "rootstream.image=http://172.16.0.254/i.tar rootstream.retry=1s");
    assert_eq!(code, 1, "{record}");
    dnsmasq.wait_for_line("DHCPRELEASE(srv0)");
    lab.node(|| {
        let left = ports_and_routes();
        assert!(!left.port("eth0").up && left.port("eth0").addresses.is_empty(), "{left:?}");
    });
}

#[test]
fn a_fixed_address_gets_options_of_both_servers() {
    let fixed = settings_of("ip=172.16.0.7:::24::eth0:dhcp");
    let _ = unpacked("isc-dhcp-server").unwrap();
    for server in ["dnsmasq", "dhcpd"] {
        let fixed = fixed.clone();
        thread::spawn(move || {
            let lab = Lab::new();
            lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
            let _server = match server {
                "dnsmasq" => lab.dnsmasq(
                    "srv0",
                    &[
                        "--dhcp-range=172.16.0.10,172.16.0.20,255.255.255.0,1h",
                        "--dhcp-option=option:dns-server,172.16.0.253",
                        "--dhcp-option=option:domain-search,a.test,b.test",
                    ],
                ),
                _ => dhcpd(
                    &lab,
                    600,
                    r#"option domain-name-servers 172.16.0.253; option domain-search "a.test", "b.test";"#,
                ),
            };
            lab.node(move || {
                let network = bring_up(&fixed).unwrap();
                let lease = &network.lease;
                assert_eq!((lease.address, lease.prefix, lease.time), (Ipv4Addr::new(172, 16, 0, 7).into(), 24, None));
                assert_eq!(lease.dns, [Ipv4Addr::new(172, 16, 0, 253)]);
                assert_eq!(lease.search, ["a.test", "b.test"]);
                network.leave().unwrap();
                assert!(ports_and_routes().port("eth0").addresses.is_empty(), "as it was found");
            });
        })
        .join()
        .unwrap_or_else(|_| panic!("{server}"));
    }
}
