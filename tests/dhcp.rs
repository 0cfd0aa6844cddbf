//! The agent's network against real and scripted DHCP servers, in private network namespaces.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod lab;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, lines, ports_and_routes, reply, settings};
use rootstream::dhcp::wire::{Kind, option};
use rootstream::failure::Failure;
use rootstream::mac::Hardware;
use rootstream::net::{ClientId, Settings, bring_up};
use rootstream_lab::packages::unpacked;

const MAC: &str = "52:54:00:ac:10:01";
const SECOND_MAC: &str = "52:54:00:ac:10:02";
const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[test]
fn dnsmasq_gives_the_address_of_the_mac_with_routes_dns_and_mtu() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let dnsmasq = lab.dnsmasq(
        "srv0",
        &[
            "--port=53",
            "--address=/images.cluster.test/172.16.0.254",
            "--domain=cluster.test",
            "--local=/cluster.test/",
            "--dhcp-range=172.16.0.0,static,255.255.255.0,1h",
            "--dhcp-host=52:54:00:ac:10:01,172.16.0.1,n1",
            "--dhcp-option=option:router,172.16.0.253",
            "--dhcp-option=option:dns-server,172.16.0.254",
            "--dhcp-option=option:mtu,1400",
            "--dhcp-option=option:classless-static-route,10.9.0.0/16,172.16.0.252,0.0.0.0/0,172.16.0.254",
        ],
    );
    lab.node(|| {
        // F14: dnsmasq unicasts to an address that nobody has yet.
        let network = bring_up(&settings()).unwrap();
        assert_eq!((network.port.as_str(), network.mac), ("eth0", Hardware::Ethernet([0x52, 0x54, 0, 0xac, 0x10, 1])));
        let lease = &network.lease;
        assert_eq!((lease.address, lease.prefix), (IpAddr::from([172, 16, 0, 1]), 24));
        assert_eq!(lease.server, Ipv4Addr::new(172, 16, 0, 254));
        assert_eq!(lease.hostname.as_deref(), Some("n1"));
        assert_eq!(lease.domain.as_deref(), Some("cluster.test"));
        assert_eq!(lease.time, Some(Duration::from_secs(3600)));

        let seen = ports_and_routes();
        let eth0 = seen.port("eth0");
        assert!(eth0.up);
        assert_eq!(eth0.mtu, 1400);
        assert_eq!(eth0.addresses, ["172.16.0.1/24"]);
        assert!(seen.port("lo").up);
        // F8: 121 is used, the router of option 3 is not.
        assert_eq!(seen.routes, ["10.9.0.0/16 via 172.16.0.252", "172.16.0.0/24 on link", "default via 172.16.0.254"]);

        let resolver = network.resolver();
        let server = SocketAddr::new(IpAddr::from([172, 16, 0, 254]), 8080);
        assert_eq!(resolver.resolve("images.cluster.test", 8080).unwrap(), [server]);
        assert_eq!(resolver.resolve("images", 8080).unwrap(), [server]);
        let missing = resolver.resolve("missing.cluster.test", 80).unwrap_err().to_string();
        assert!(missing.starts_with("missing.cluster.test does not exist"), "{missing}");

        network.leave().unwrap();
        let left = ports_and_routes();
        let eth0 = left.port("eth0");
        assert!(!eth0.up && eth0.addresses.is_empty() && left.routes.is_empty(), "{left:?}");
        assert_eq!(eth0.mtu, 1500);
        assert_eq!(
            lines("dhcp: "),
            [
                "dhcp: eth0: OFFER 172.16.0.1 from 172.16.0.254",
                "dhcp: eth0: REQUEST 1 for 172.16.0.1 sent to 172.16.0.254",
                "dhcp: eth0: lease 172.16.0.1/24 from 172.16.0.254 for 3600 s",
                "dhcp: eth0: RELEASE of 172.16.0.1 sent to 172.16.0.254",
            ]
        );
    });
    dnsmasq.wait_for_line("DHCPRELEASE(srv0) 172.16.0.1 52:54:00:ac:10:01");
}

#[test]
fn dhcpd_gives_a_fixed_address_and_one_of_the_range() {
    let program = unpacked("isc-dhcp-server").unwrap().join("usr/sbin/dhcpd");
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let dhcpd = lab.dhcpd(
        &program,
        "srv0",
        r#"
        authoritative;
        default-lease-time 3600; max-lease-time 7200;
        option rfc3442 code 121 = array of unsigned integer 8;
        subnet 172.16.0.0 netmask 255.255.255.0 {
          range 172.16.0.200 172.16.0.250;
          ping-check false;
          option routers 172.16.0.254;
          option domain-name-servers 172.16.0.253, 172.16.0.254;
          option ntp-servers 172.16.0.254;
          option interface-mtu 9000;
          filename "pxelinux.0";
        }
        host n1 {
          hardware ethernet 52:54:00:ac:10:01; fixed-address 172.16.0.1;
          option host-name "n1"; option interface-mtu 1300;
          option rfc3442 8,10, 172,16,0,254;
        }
        "#,
    );
    lab.node(|| {
        let network = bring_up(&settings()).unwrap();
        assert_eq!(network.lease.address, Ipv4Addr::new(172, 16, 0, 1));
        assert_eq!(network.lease.dns, [Ipv4Addr::new(172, 16, 0, 253), Ipv4Addr::new(172, 16, 0, 254)]);
        assert_eq!(network.lease.ntp, [Ipv4Addr::new(172, 16, 0, 254)]);
        let seen = ports_and_routes();
        assert_eq!(seen.port("eth0").mtu, 1300);
        assert_eq!(seen.routes, ["10.0.0.0/8 via 172.16.0.254", "172.16.0.0/24 on link"]);
        network.leave().unwrap();
        // Another machine, which the server knows nothing of.
        rootstream_lab::namespace::ip("link set eth0 address 52:54:00:ac:10:77").unwrap();
        let network = bring_up(&settings()).unwrap();
        let IpAddr::V4(address) = network.lease.address else { panic!("{:?}", network.lease) };
        assert!((200..=250).contains(&address.octets()[3]), "{address}");
        let seen = ports_and_routes();
        assert_eq!(seen.routes, ["172.16.0.0/24 on link", "default via 172.16.0.254"]);
        // F12: veth ports can do 9000.
        assert_eq!(seen.port("eth0").mtu, 9000);
        network.leave().unwrap();
        // F4: a server that names a boot file is not kept waiting.
        assert!(lines("dhcp: ")[0].ends_with("OFFER 172.16.0.1 from 172.16.0.254, which boots nodes"));
    });
    dhcpd.wait_for_line("DHCPRELEASE of 172.16.0.1 from 52:54:00:ac:10:01");
}

/// What PXE calls this machine: the servers of sites choose by it.
fn pxe_architecture() -> u16 {
    match (cfg!(target_arch = "x86_64"), std::path::Path::new("/sys/firmware/efi").exists()) {
        (true, false) => 0,
        (true, true) => 7,
        (false, _) => 11,
    }
}

// F4
#[test]
fn dnsmasq_gives_options_by_vendor_class_and_architecture() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let arch = format!("--dhcp-match=set:arch,option:client-arch,{}", pxe_architecture());
    let dnsmasq = lab.dnsmasq(
        "srv0",
        &[
            "--port=53",
            "--address=/images.b.cluster.test/172.16.0.254",
            "--local=/cluster.test/",
            "--dhcp-range=172.16.0.10,172.16.0.20,255.255.255.0,1h",
            "--dhcp-vendorclass=set:ours,rootstream",
            &arch,
            "--dhcp-option=tag:ours,option:root-path,http://172.16.0.254/images/compute/latest.json",
            "--dhcp-option=tag:arch,option:mtu,1400",
            "--dhcp-option=vendor:rootstream,1,172.16.0.9",
            "--dhcp-option=option:domain-search,a.cluster.test,b.cluster.test",
            "--dhcp-option=option:dns-server,172.16.0.254",
            "--dhcp-option=option:log-server,172.16.0.253",
            "--dhcp-option=option:ntp-server,172.16.0.252",
            "--dhcp-boot=pxelinux.0,master,172.16.0.251",
        ],
    );
    lab.node(|| {
        let network = bring_up(&settings()).unwrap();
        let lease = &network.lease;
        assert_eq!(lease.root_path.as_deref(), Some("http://172.16.0.254/images/compute/latest.json"));
        assert_eq!(lease.boot_file.as_deref(), Some("pxelinux.0"));
        assert_eq!(lease.mtu, Some(1400));
        // With an END of their own.
        assert_eq!(lease.vendor, [1, 4, 172, 16, 0, 9, 255]);
        assert_eq!(lease.search, ["a.cluster.test", "b.cluster.test"]);
        assert_eq!(lease.log_servers, [Ipv4Addr::new(172, 16, 0, 253)]);
        assert_eq!(lease.ntp, [Ipv4Addr::new(172, 16, 0, 252)]);
        let server = SocketAddr::new(IpAddr::from([172, 16, 0, 254]), 80);
        assert_eq!(network.resolver().resolve("images", 80).unwrap(), [server], "by the second domain of the list");
        let json = serde_json::to_value(lease).unwrap();
        assert_eq!((&json["vendor"], &json["renewal"]), (&"0104ac100009ff".into(), &1800.into()));
        network.leave().unwrap();
        assert!(lines("dhcp: ")[0].ends_with(", which boots nodes"));
    });
    assert!(dnsmasq.count("vendor class: rootstream") > 0);
}

// F7
#[test]
fn dhcpd_gives_options_by_class_and_long_ones_in_pieces() {
    let program = unpacked("isc-dhcp-server").unwrap().join("usr/sbin/dhcpd");
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let url = format!("http://172.16.0.254/{}/latest.json", "x".repeat(260));
    let [high, low] = pxe_architecture().to_be_bytes();
    let configuration = format!(
        r#"
        authoritative;
        default-lease-time 3600;
        option arch code 93 = unsigned integer 16;
        class "ours" {{
          match if option vendor-class-identifier = "rootstream";
          option vendor-encapsulated-options 01:02:ab:cd;
          next-server 172.16.0.251;
          filename "pxelinux.0";
        }}
        subnet 172.16.0.0 netmask 255.255.255.0 {{
          range 172.16.0.200 172.16.0.250;
          ping-check false;
          option domain-search "a.cluster.test", "b.cluster.test", "elsewhere.test";
          option log-servers 172.16.0.253;
          option root-path "{url}";
          option dhcp-renewal-time 100;
          option dhcp-rebinding-time 200;
          if option arch = {high:02x}:{low:02x} {{ option interface-mtu 1400; }}
        }}
        "#
    );
    let _dhcpd = lab.dhcpd(&program, "srv0", &configuration);
    lab.node(move || {
        let network = bring_up(&settings()).unwrap();
        let lease = &network.lease;
        assert_eq!(lease.root_path.as_deref(), Some(url.as_str()));
        assert_eq!((lease.boot_file.as_deref(), lease.mtu), (Some("pxelinux.0"), Some(1400)));
        assert_eq!(lease.vendor, [1, 2, 0xab, 0xcd]);
        // The server writes the names with pointers.
        assert_eq!(lease.search, ["a.cluster.test", "b.cluster.test", "elsewhere.test"]);
        assert_eq!(lease.log_servers, [Ipv4Addr::new(172, 16, 0, 253)]);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!((lease.renewal, lease.rebinding, lease.time), (seconds(100), seconds(200), seconds(3600)));
        network.leave().unwrap();
    });
}

// F17
#[test]
fn dnsmasq_sees_one_client_whatever_asks() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let _dnsmasq = lab.dnsmasq("srv0", &["--dhcp-range=172.16.0.10,172.16.0.250,255.255.255.0,1h"]);
    lab.node(|| {
        // The second boot comes without a RELEASE in between, as after a power cut.
        let first = bring_up(&settings()).unwrap().lease.address;
        rootstream_lab::namespace::ip("addr flush dev eth0").unwrap();
        let second = bring_up(&settings()).unwrap().lease.address;
        assert_eq!(first, second);
        rootstream_lab::namespace::ip("addr flush dev eth0").unwrap();
        let other = bring_up(&Settings { client_id: ClientId::Bytes(vec![0, 7]), ..settings() }).unwrap();
        assert_ne!(other.lease.address, first);
    });
}

// F2
#[test]
fn without_a_server_the_failure_names_port_and_mac() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.node(|| {
        let started = Instant::now();
        let error = bring_up(&Settings { dhcp: Duration::from_secs(6), ..settings() }).unwrap_err();
        assert!((6.0..8.0).contains(&started.elapsed().as_secs_f32()), "{:?}", started.elapsed());
        let failure = Failure::from_error(&error);
        assert_eq!(failure.what, "no DHCP server answered on eth0 (52:54:00:ac:10:01)");
        let (before, after) = failure.why.split_once("carrier after 0.").expect(&failure.why);
        assert_eq!(before, "eth0 (52:54:00:ac:10:01, veth): ");
        assert!(after.ends_with(" s, 2 DISCOVERs sent, 0 DHCP frames received, servers seen: none"), "{after}");
        assert!(failure.todo.contains("knows 52:54:00:ac:10:01"), "{}", failure.todo);
        assert!(!ports_and_routes().port("eth0").up);
        assert_eq!(lines("net: waiting").len(), 2, "a word after 1 s and 5 s");
    });
}

// F1
#[test]
fn without_carrier_the_failure_says_so() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    rootstream_lab::namespace::ip("link set srv0 down").unwrap();
    lab.node(|| {
        let error = bring_up(&Settings { carrier: Duration::from_secs(2), ..settings() }).unwrap_err();
        let failure = Failure::from_error(&error);
        assert_eq!(failure.what, "no carrier on eth0 (52:54:00:ac:10:01)");
        assert_eq!(failure.why, "eth0 (52:54:00:ac:10:01, veth): never had carrier");
        assert_eq!(lines("net: waiting"), ["net: waiting for carrier on eth0 (52:54:00:ac:10:01): 1 s of 2 s"]);
        assert!(!ports_and_routes().port("eth0").up);
    });
}

#[test]
fn a_port_that_is_not_there_is_named() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.node(|| {
        let wanted = Settings { ports: vec!["eth7".to_owned()], carrier: Duration::from_secs(1), ..settings() };
        let failure = Failure::from_error(&bring_up(&wanted).unwrap_err());
        assert_eq!(failure.what, "no network port matches eth7");
        assert!(failure.why.contains("eth0 (52:54:00:ac:10:01)"), "{}", failure.why);
    });
}

// F1, F14
#[test]
fn the_first_discover_follows_carrier_within_half_a_second() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    rootstream_lab::namespace::ip("link set srv0 down").unwrap();
    let (tell, discovered) = mpsc::channel();
    // Broadcast replies; the other tests' servers send unicast.
    lab.script("srv0", move |message| match message.kind {
        Kind::Discover => {
            let _ = tell.send(Instant::now());
            vec![reply(Kind::Offer, message, [172, 16, 0, 254], [172, 16, 0, 9])]
        }
        Kind::Request => vec![reply(Kind::Ack, message, [172, 16, 0, 254], [172, 16, 0, 9])],
        _ => Vec::new(),
    });
    let carrier = lab.later(Duration::from_millis(2500), "link set srv0 up");
    lab.node(|| {
        let wanted = Settings { dhcp: Duration::from_secs(2), ..settings() };
        assert_eq!(bring_up(&wanted).unwrap().lease.address, Ipv4Addr::new(172, 16, 0, 9));
        assert_eq!(lines("net: waiting"), ["net: waiting for carrier on eth0 (52:54:00:ac:10:01): 1 s of 15 s"]);
    });
    let took = discovered.recv().unwrap().duration_since(carrier.join().unwrap());
    assert!(took < Duration::from_millis(500), "{took:?}");
    println!("first DISCOVER {took:?} after carrier");
}

// F15
#[test]
fn of_two_ports_the_served_one_wins_and_the_other_is_taken_down() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.wire("eth1", SECOND_MAC, "srv1", "172.17.0.254/24");
    let _dnsmasq = lab.dnsmasq("srv1", &["--dhcp-range=172.17.0.10,172.17.0.250,255.255.255.0,1h"]);
    lab.node(|| {
        let network = bring_up(&settings()).unwrap();
        assert_eq!(network.port, "eth1");
        let seen = ports_and_routes();
        assert!(seen.port("eth1").up && !seen.port("eth0").up, "{seen:?}");
        network.leave().unwrap();
        assert!(!ports_and_routes().port("eth1").up);

        let error = bring_up(&Settings { ports: vec![MAC.to_owned()], dhcp: Duration::from_secs(1), ..settings() });
        let failure = Failure::from_error(&error.unwrap_err());
        assert_eq!(failure.what, "no DHCP server answered on eth0 (52:54:00:ac:10:01)");
    });
}

// F15
#[test]
fn the_port_that_the_firmware_booted_from_is_preferred() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.wire("eth1", SECOND_MAC, "srv1", "172.17.0.254/24");
    rootstream_lab::namespace::ip("link set srv1 down").unwrap();
    let other = lab.dnsmasq("srv0", &["--dhcp-range=172.16.0.10,172.16.0.250,255.255.255.0,1h"]);
    let _dnsmasq = lab.dnsmasq("srv1", &["--dhcp-range=172.17.0.10,172.17.0.250,255.255.255.0,1h"]);
    let _ = lab.later(Duration::from_millis(1000), "link set srv1 up");
    lab.node(|| {
        let network = bring_up(&Settings { bootif: Some([0x52, 0x54, 0, 0xac, 0x10, 2]), ..settings() }).unwrap();
        assert_eq!(network.port, "eth1");
        assert!(!ports_and_routes().port("eth0").up);
    });
    other.wait_for_line("DHCPRELEASE(srv0)");
}

// F8
#[test]
fn what_the_kernel_refuses_of_a_lease_is_left_out_and_said() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.script("srv0", move |message| {
        let kind = match message.kind {
            Kind::Discover => Kind::Offer,
            Kind::Request => Kind::Ack,
            _ => return Vec::new(),
        };
        // 172.16.0.255 is on the subnet, and no host.
        let routes = [24, 10, 7, 7, 172, 16, 0, 255, 24, 10, 8, 8, 172, 16, 0, 254];
        vec![reply(kind, message, [172, 16, 0, 254], [172, 16, 0, 9]).with(option::CLASSLESS_ROUTES, routes)]
    });
    lab.node(|| {
        let network = bring_up(&settings()).unwrap();
        assert_eq!(lines("net: eth0: no route to 10.7.7.0/24 through 172.16.0.255: ").len(), 1);
        assert_eq!(lines("net: eth0: route to 10.8.8.0/24 through 172.16.0.254").len(), 1);
        network.leave().unwrap();
    });
}

// F5
#[test]
fn a_nak_starts_again_after_a_growing_delay() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let mut requests = Vec::new();
    let (tell, naked) = mpsc::channel();
    lab.script("srv0", move |message| match message.kind {
        Kind::Discover => vec![reply(Kind::Offer, message, [172, 16, 0, 254], [172, 16, 0, 9])],
        Kind::Request => {
            requests.push(Instant::now());
            if requests.len() < 3 {
                return vec![reply(Kind::Nak, message, [172, 16, 0, 254], NOWHERE.octets())];
            }
            let _ = tell.send(requests.clone());
            vec![reply(Kind::Ack, message, [172, 16, 0, 254], [172, 16, 0, 9])]
        }
        _ => Vec::new(),
    });
    lab.node(|| {
        bring_up(&settings()).unwrap();
        let naks = lines("dhcp: eth0: NAK from 172.16.0.254; starting again in ");
        assert_eq!(naks.len(), 2);
    });
    let requests = naked.recv().unwrap();
    assert!(requests[1] - requests[0] >= Duration::from_millis(500));
    assert!(requests[2] - requests[1] >= Duration::from_millis(1000));
}

// F3, F4, F9
#[test]
fn a_rogue_server_that_is_first_does_not_win() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.script("srv0", |message| match message.kind {
        Kind::Discover => {
            let mut other = reply(Kind::Offer, message, [172, 16, 0, 251], [172, 16, 0, 51]);
            other.xid ^= 1;
            let broken = reply(Kind::Offer, message, [172, 16, 0, 252], [224, 0, 0, 1]);
            let rogue = reply(Kind::Offer, message, [172, 16, 0, 253], [172, 16, 0, 53]);
            let mut ours = reply(Kind::Offer, message, [172, 16, 0, 254], [172, 16, 0, 9]);
            ours.file = b"pxelinux.0".to_vec();
            vec![other, broken, rogue, ours]
        }
        Kind::Request if message.address(option::SERVER) == Some(Ipv4Addr::new(172, 16, 0, 254)) => {
            vec![reply(Kind::Ack, message, [172, 16, 0, 254], [172, 16, 0, 9])]
        }
        _ => Vec::new(),
    });
    lab.node(|| {
        assert_eq!(bring_up(&settings()).unwrap().lease.address, Ipv4Addr::new(172, 16, 0, 9));
        assert_eq!(
            lines("dhcp: ")[..3],
            [
                "dhcp: eth0: OFFER 224.0.0.1 from 172.16.0.252 refused: 224.0.0.1 is not a host's address",
                "dhcp: eth0: OFFER 172.16.0.53 from 172.16.0.253",
                "dhcp: eth0: OFFER 172.16.0.9 from 172.16.0.254, which boots nodes",
            ]
        );
    });
}

// F9
#[test]
fn a_server_with_nothing_usable_is_named_in_the_failure() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.script("srv0", |message| {
        vec![reply(Kind::Offer, message, [172, 16, 0, 254], [172, 16, 0, 9]).with(option::ROUTER, [10, 0, 0, 1])]
    });
    lab.node(|| {
        // Time for a second DISCOVER: the server's end of the wire may not send yet when the first one comes.
        let error = bring_up(&Settings { dhcp: Duration::from_secs(6), ..settings() }).unwrap_err();
        let failure = Failure::from_error(&error);
        assert_eq!(failure.what, "no usable lease on eth0 (52:54:00:ac:10:01)");
        let end = "servers seen: 172.16.0.254, last: OFFER 172.16.0.9 from 172.16.0.254 refused: \
                   router 10.0.0.1 is not on the subnet of 172.16.0.9/24";
        assert!(failure.why.ends_with(end), "{}", failure.why);
    });
}

// F6
#[test]
fn a_lost_ack_makes_another_request() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let mut requests = 0;
    lab.script("srv0", move |message| match message.kind {
        Kind::Discover => vec![reply(Kind::Offer, message, [172, 16, 0, 254], [172, 16, 0, 9])],
        Kind::Request => {
            requests += 1;
            let ack = reply(Kind::Ack, message, [172, 16, 0, 254], [172, 16, 0, 9]);
            (requests == 2).then_some(ack).into_iter().collect()
        }
        _ => Vec::new(),
    });
    lab.node(|| {
        bring_up(&settings()).unwrap();
        assert_eq!(lines("dhcp: eth0: REQUEST").len(), 2);
    });
}

/// As clouds do it: the router is outside of the subnet of one address, and on the link by a route.
#[test]
fn a_router_on_the_link_by_option_121_is_used() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.script("srv0", |message| {
        let kind = if message.kind == Kind::Discover { Kind::Offer } else { Kind::Ack };
        let routes = [32, 172, 16, 0, 254, 0, 0, 0, 0, 0, 172, 16, 0, 254];
        let answer = reply(kind, message, [172, 16, 0, 254], [10, 9, 8, 7]);
        vec![answer.with(option::SUBNET_MASK, [255; 4]).with(option::CLASSLESS_ROUTES, routes)]
    });
    lab.node(|| {
        let before = ports_and_routes();
        let network = bring_up(&settings()).unwrap();
        let seen = ports_and_routes();
        assert_eq!(seen.port("eth0").addresses, ["10.9.8.7/32"]);
        assert_eq!(seen.routes, ["172.16.0.254 on link", "default via 172.16.0.254"]);
        network.leave().unwrap();
        assert_eq!(ports_and_routes(), before);
    });
}

/// The address that a port has already stays when the network is left.
#[test]
fn what_was_there_before_stays() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let _dnsmasq = lab.dnsmasq(
        "srv0",
        &["--dhcp-range=172.16.0.0,static,255.255.255.0,1h", "--dhcp-host=52:54:00:ac:10:01,172.16.0.1"],
    );
    lab.node(|| {
        for words in ["link set eth0 up", "addr add 172.16.0.1/24 dev eth0", "route add 10.0.0.0/8 via 172.16.0.254"] {
            rootstream_lab::namespace::ip(words).unwrap();
        }
        thread::sleep(Duration::from_millis(10));
        let before = ports_and_routes();
        bring_up(&settings()).unwrap().leave().unwrap();
        assert_eq!(ports_and_routes(), before);
    });
}
