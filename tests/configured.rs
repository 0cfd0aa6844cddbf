//! The network as the kernel command line has it, in private network namespaces: addresses without DHCP, MTU, MAC,
//! routes and name servers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod lab;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lab::{Lab, image, lines, ports_and_routes, rehearse, settings_of};
use rootstream::failure::Failure;
use rootstream::mac::Hardware;
use rootstream::net::{Settings, bring_up};
use rootstream_lab::faulty::{self, Server};
use rootstream_lab::namespace::ip;

const MAC: &str = "52:54:00:ac:10:01";
const SECOND_MAC: &str = "52:54:00:ac:10:02";
const MASTER: [u8; 4] = [172, 16, 0, 254];

#[test]
fn an_address_of_the_command_line_fetches_an_image_by_name_without_any_dhcp() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let names = lab
        .dnsmasq("srv0", &["--port=53", "--address=/images.test/172.16.0.254", "--dhcp-range=172.16.0.9,172.16.0.9"]);
    let body = image();
    let _web = Server::start_at(SocketAddr::from((MASTER, 80)), move |_, stream| {
        faulty::answer(stream, "200 OK", &[("ETag", "\"1\"")], &body)
    })
    .unwrap();
    let (code, record) = rehearse(
        &lab,
        "rootstream.image=http://images.test/i.tar ip=172.16.0.1::172.16.0.253:255.255.255.0:n7:eth0:none \
         nameserver=172.16.0.254 rd.route=10.9.0.0/16:172.16.0.252",
    );
    assert_eq!(code, 0, "{record}");
    let lease = &record["lease"];
    assert_eq!((&lease["address"], &lease["prefix"]), (&"172.16.0.1".into(), &24.into()));
    assert_eq!((&lease["server"], &lease["time"]), (&"0.0.0.0".into(), &serde_json::Value::Null));
    assert_eq!((&lease["hostname"], &lease["dns"][0]), (&"n7".into(), &"172.16.0.254".into()));
    assert_eq!(names.count("DHCPDISCOVER") + names.count("DHCPINFORM"), 0, "nobody asked");
    lab.node(|| {
        let left = ports_and_routes();
        assert!(!left.port("eth0").up && left.port("eth0").addresses.is_empty() && left.routes.is_empty(), "{left:?}");
    });
}

#[test]
fn address_routes_mtu_and_mac_are_put_on_the_port_and_taken_back() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.wire("eth1", SECOND_MAC, "srv1", "172.17.0.254/24");
    lab.node(|| {
        let settings = settings_of(
            "ip=172.16.0.1::172.16.0.254:24:n1:52-54-00-ac-10-01:none:1400:02:00:00:00:00:07 \
             rd.route=10.8.0.0/16:172.16.0.253 rd.route=10.7.0.0/16:172.17.0.253:eth1",
        );
        let network = bring_up(&settings).unwrap();
        assert_eq!(
            (network.port.as_str(), network.mac, network.fixed),
            ("eth0", Hardware::Ethernet([2, 0, 0, 0, 0, 7]), true)
        );
        let seen = ports_and_routes();
        assert_eq!((seen.port("eth0").mtu, seen.port("eth0").mac.as_str()), (1400, "02:00:00:00:00:07"));
        assert!(!seen.port("eth1").up, "{seen:?}");
        assert_eq!(seen.port("eth0").addresses, ["172.16.0.1/24"]);
        assert_eq!(seen.routes, ["10.8.0.0/16 via 172.16.0.253", "172.16.0.0/24 on link", "default via 172.16.0.254"]);
        network.leave().unwrap();
        let left = ports_and_routes();
        assert!(!left.port("eth0").up && left.port("eth0").addresses.is_empty() && left.routes.is_empty(), "{left:?}");
        assert_eq!((left.port("eth0").mtu, left.port("eth0").mac.as_str()), (1500, MAC));
        assert!(lines("dhcp: ").is_empty());
    });
}

#[test]
fn of_several_lines_each_is_for_its_port_and_the_first_that_is_ready_wins() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.wire("eth1", SECOND_MAC, "srv1", "172.17.0.254/24");
    ip("link set srv0 down").unwrap();
    lab.node(|| {
        let both = "ip=172.16.0.1:::24::eth0:none ip=172.17.0.1:::24::eth1:none";
        let network = bring_up(&settings_of(both)).unwrap();
        assert_eq!((network.port.as_str(), network.lease.address), ("eth1", IpAddr::from([172, 17, 0, 1])));
        network.leave().unwrap();
        let any = bring_up(&settings_of("ip=172.17.0.1:172.17.0.254::255.255.255.0")).unwrap();
        assert_eq!(any.port, "eth1");
        any.leave().unwrap();
    });
}

// F1
#[test]
fn an_address_without_carrier_and_a_device_that_is_not_there_are_named() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    ip("link set srv0 down").unwrap();
    lab.node(|| {
        let second = Duration::from_secs(1);
        let wanted = |line| Settings { carrier: second, ..settings_of(line) };
        let failure = Failure::from_error(&bring_up(&wanted("ip=172.16.0.1:::24::eth0:none")).unwrap_err());
        assert_eq!(failure.what, "no carrier on eth0 (52:54:00:ac:10:01)");
        assert!(!ports_and_routes().port("eth0").up);
        let failure = Failure::from_error(&bring_up(&wanted("ip=172.16.0.1:::24::eno1:none")).unwrap_err());
        assert_eq!(failure.what, "no network port matches eno1");
        assert!(failure.why.contains("eth0 (52:54:00:ac:10:01)"), "{}", failure.why);
    });
}

#[test]
fn name_servers_of_the_command_line_come_first() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    let _dnsmasq = lab.dnsmasq(
        "srv0",
        &[
            "--port=53",
            "--address=/images.test/172.16.0.254",
            "--dhcp-range=172.16.0.9,172.16.0.9",
            "--dhcp-option=option:dns-server,172.16.0.253",
        ],
    );
    lab.node(|| {
        let network = bring_up(&settings_of("ip=::::mine:eth0:dhcp nameserver=172.16.0.254")).unwrap();
        assert_eq!(network.lease.dns, [Ipv4Addr::from(MASTER), Ipv4Addr::new(172, 16, 0, 253)]);
        assert_eq!((network.lease.hostname.as_deref(), network.fixed), (Some("mine"), false));
        let server = SocketAddr::new(IpAddr::from(MASTER), 80);
        assert_eq!(network.resolver().resolve("images.test", 80).unwrap(), [server]);
        network.leave().unwrap();
    });
}

// The kernel of the machine that tests may have no VLANs, and says so; those that have them are virtual.
#[test]
fn a_vlan_is_made_or_the_module_is_named_and_the_ports_are_left_as_found() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.node(|| {
        match bring_up(&settings_of("vlan=vlan0005:eth0 ip=172.16.0.1:::24::vlan0005:none")) {
            Ok(network) => {
                assert_eq!(network.port, "vlan0005");
                let seen = ports_and_routes();
                assert_eq!(seen.port("vlan0005").addresses, ["172.16.0.1/24"]);
                assert!(seen.port("eth0").up && seen.port("eth0").addresses.is_empty());
                network.leave().unwrap();
            }
            Err(error) => {
                let failure = Failure::from_error(&error);
                assert_eq!(failure.what, "making vlan0005, VLAN 5 on eth0");
                assert!(failure.todo.contains("the module 8021q"), "{}", failure.todo);
            }
        }
        let left = ports_and_routes();
        assert!(!left.port("eth0").up && !left.has("vlan0005"), "{left:?}");

        match bring_up(&settings_of("bond=bond1:eth0:mode=active-backup ip=172.16.0.1:::24::bond1:none")) {
            Ok(network) => {
                assert_eq!(network.port, "bond1");
                network.leave().unwrap();
            }
            Err(error) => {
                let failure = Failure::from_error(&error);
                assert_eq!(failure.what, "making the bond bond1");
                assert!(failure.todo.contains("the module bonding"), "{}", failure.todo);
            }
        }
        let left = ports_and_routes();
        assert!(!left.port("eth0").up && !left.has("bond1"), "{left:?}");

        let soon = Settings { carrier: Duration::from_secs(1), ..settings_of("vlan=vlan5:eno1 bond=bond0:eth0,eth1") };
        let alone = Settings { bonds: Vec::new(), ports: vec!["vlan5".to_owned()], ..soon };
        let failure = Failure::from_error(&bring_up(&alone).unwrap_err());
        assert_eq!(failure.what, "vlan5 cannot be made: no eno1");
        assert!(failure.why.contains("eth0 (52:54:00:ac:10:01)"), "{}", failure.why);
    });
}

// F13
#[test]
fn a_static_address_that_somebody_has_is_refused_with_the_others_mac() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    ip("link set srv0 address 02:00:00:00:00:99").unwrap();
    ip("addr add 172.16.0.7/24 dev srv0").unwrap();
    let settings = settings_of("ip=172.16.0.7::172.16.0.254:24::eth0:none rootstream.dhcp=3s");
    let refused = settings.clone();
    lab.node(move || {
        let failure = Failure::from_error(&bring_up(&refused).unwrap_err());
        assert_eq!(
            failure.what,
            "the address 172.16.0.7 of ip= for eth0 (52:54:00:ac:10:01) is in use by 02:00:00:00:00:99"
        );
        assert!(failure.todo.contains("correct ip="), "{failure}");
        assert!(ports_and_routes().port("eth0").addresses.is_empty());
    });
    // When that machine is gone the boot goes on.
    let patient = Settings { dhcp: Duration::from_secs(30), ..settings };
    let _ = lab.later(Duration::from_secs(2), "addr del 172.16.0.7/24 dev srv0");
    lab.node(move || {
        let network = bring_up(&patient).unwrap();
        assert_eq!(ports_and_routes().port("eth0").addresses, ["172.16.0.7/24"]);
        let said = lines("net: eth0 (52:54:00:ac:10:01): 172.16.0.7 of ip= is in use by 02:00:00:00:00:99");
        assert_eq!(said.len(), 2, "once in each try");
        network.leave().unwrap();
    });
}

#[test]
fn a_port_has_its_new_name_before_anything_else_names_it() {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    lab.wire("eth1", SECOND_MAC, "srv1", "172.17.0.254/24");
    let _dnsmasq = lab.dnsmasq("srv1", &["--dhcp-range=172.17.0.9,172.17.0.9"]);
    let settings = settings_of("ifname=boot:52:54:00:ac:10:02 ip=boot:dhcp");
    lab.node(move || {
        // As another step may have left it.
        ip("link set eth1 up").unwrap();
        let network = bring_up(&settings).unwrap();
        assert_eq!(network.port, "boot");
        let seen = ports_and_routes();
        assert_eq!(seen.port("boot").addresses, ["172.17.0.9/24"]);
        assert!(!seen.has("eth1"));
        network.leave().unwrap();
        let left = ports_and_routes();
        assert!(!left.has("boot") && left.port("eth1").up, "{left:?}");
    });
    let settings = settings_of("ifname=eth0:52:54:00:ac:10:02");
    lab.node(move || {
        let failure = Failure::from_error(&bring_up(&settings).unwrap_err());
        assert_eq!(failure.what, "ifname=eth0:52:54:00:ac:10:02: another port is called eth0 already");
    });
}
