//! IPv6 from routers and servers, real ones, in private network namespaces.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod lab;

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Lab, image, lines, ports_and_routes, rehearse, settings};
use rootstream::failure::Failure;
use rootstream::net::{Ip, Method, Settings, bring_up};
use rootstream_lab::faulty::{self, Server};
use rootstream_lab::namespace::ip;
use rootstream_lab::packages::unpacked;

const MAC: &str = "52:54:00:ac:10:01";
/// The address that a router's prefix fd00::/64 and that MAC make.
const OWN: &str = "fd00::5054:ff:feac:1001";
const MASTER: &str = "fd00::254";
/// The same on the link.
const ROUTER: &str = "fe80::254";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn by(method: Method) -> Settings {
    Settings { ip: vec![Ip::new(method)], ..settings() }
}

/// A wire to the node, with the master's IPv6 addresses on this end.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", "172.16.0.254/24");
    ip("link set srv0 addrgenmode none").unwrap();
    for own in [MASTER, ROUTER] {
        ip(&format!("addr add {own}/64 dev srv0 nodad")).unwrap();
    }
    lab
}

/// What `ip` shows of IPv6: addresses of eth0 without those of the link, and routes by the main table without the link's.
fn seen() -> (Vec<String>, Vec<String>) {
    let output = |words: &[&str]| {
        let output = Command::new("ip").args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let addresses = output(&["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"]);
    let word = |line: &str, number| line.split_whitespace().nth(number).unwrap().to_owned();
    let addresses = addresses.lines().map(|line| word(line, 3)).collect();
    let routes = output(&["-6", "route", "show", "dev", "eth0"]);
    let routes = routes.lines().filter(|line| !line.starts_with("fe80::/64")).map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let via = words.iter().position(|word| *word == "via").map(|at| format!(" via {}", words[at + 1]));
        format!("{}{}", words[0], via.unwrap_or_default())
    });
    let mut routes: Vec<String> = routes.collect();
    routes.sort();
    (addresses, routes)
}

fn sysctl(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/eth0/{name}")).unwrap().trim().to_owned()
}

#[test]
fn a_router_s_prefix_makes_an_address() {
    let lab = lab();
    let _dnsmasq = lab.dnsmasq(
        "srv0",
        &[
            "--enable-ra",
            "--dhcp-range=fd00::,ra-only,64,10m",
            "--ra-param=srv0,mtu:1400,0,1200",
            "--dhcp-option=option6:dns-server,[fd00::53]",
        ],
    );
    lab.node(move || {
        let started = Instant::now();
        let network = bring_up(&by(Method::Auto6)).unwrap();
        println!("ready after {:?}", started.elapsed());
        let lease = &network.lease;
        assert_eq!((lease.address, lease.prefix), (address(OWN), 64));
        assert_eq!((lease.server, lease.mtu), (address(ROUTER), Some(1400)));
        assert_eq!(lease.dns, [address("fd00::53")]);
        assert_eq!(lease.time, Some(Duration::from_secs(600)));
        assert_eq!(seen(), (vec![format!("{OWN}/64")], vec![format!("default via {ROUTER}"), "fd00::/64".to_owned()]));
        assert_eq!((sysctl("accept_ra"), sysctl("autoconf")), ("0".to_owned(), "0".to_owned()));
        network.leave().unwrap();
        assert_eq!(seen(), (Vec::new(), Vec::new()));
        assert_eq!((sysctl("accept_ra"), sysctl("autoconf")), ("1".to_owned(), "1".to_owned()));
        assert!(!ports_and_routes().port("eth0").up);
        let heard = format!("ipv6: eth0: router {ROUTER} advertises fd00::/64");
        assert_eq!(lines("ipv6: ")[1..], [heard, format!("ipv6: eth0: lease {OWN}/64 of router {ROUTER} for 600 s")]);
    });
}

#[test]
fn servers_add_what_routers_do_not_say() {
    let lab = lab();
    let dnsmasq = lab.dnsmasq(
        "srv0",
        &[
            "--enable-ra",
            "--dhcp-range=fd00::,ra-stateless,64,10m",
            "--domain=cluster.test",
            "--dhcp-option=option6:dns-server,[fd00::53]",
            "--dhcp-option=option6:domain-search,a.test,b.test",
            "--dhcp-option=option6:ntp-server,[fd00::7b]",
            "--dhcp-option=option6:sntp-server,[fd00::7c]",
            "--dhcp-option=option6:59,http://[fd00::254]/i.json",
        ],
    );
    lab.node(move || {
        for method in [Method::Auto6, Method::Either6] {
            let network = bring_up(&by(method)).unwrap();
            let lease = &network.lease;
            assert_eq!((lease.address, lease.prefix), (address(OWN), 64));
            assert_eq!(lease.dns, [address("fd00::53")]);
            assert_eq!(lease.search, ["a.test", "b.test"]);
            assert_eq!(lease.ntp, [address("fd00::7b")]);
            assert_eq!(lease.boot_file.as_deref(), Some("http://[fd00::254]/i.json"));
            network.leave().unwrap();
        }
        assert_eq!(lines("ipv6: eth0: options from "), vec![format!("ipv6: eth0: options from {ROUTER}"); 2]);
    });
    assert!(dnsmasq.count("DHCPINFORMATION-REQUEST(srv0)") >= 2);
}

// F17
#[test]
fn dnsmasq_gives_the_address_of_the_duid() {
    let lab = lab();
    let dnsmasq = lab.dnsmasq(
        "srv0",
        &[
            "--enable-ra",
            "--dhcp-range=fd00::100,fd00::1ff,64,1h",
            "--dhcp-host=id:00:03:00:01:52:54:00:ac:10:01,[fd00::1],n1",
            "--domain=cluster.test",
            "--dhcp-option=option6:dns-server,[fd00::53]",
        ],
    );
    lab.node(move || {
        for method in [Method::Dhcp6, Method::Either6] {
            let network = bring_up(&by(method)).unwrap();
            let lease = &network.lease;
            assert_eq!((lease.address, lease.prefix), (address("fd00::1"), 64));
            assert_eq!(lease.server, address(ROUTER));
            assert_eq!(lease.dns, [address("fd00::53")]);
            assert_eq!((lease.hostname.as_deref(), lease.domain.as_deref()), (Some("n1"), Some("cluster.test")));
            assert_eq!(lease.time, Some(Duration::from_secs(3600)));
            let routes = vec![format!("default via {ROUTER}"), "fd00::/64".to_owned()];
            assert_eq!(seen(), (vec!["fd00::1/64".to_owned()], routes));
            network.leave().unwrap();
            assert_eq!(seen(), (Vec::new(), Vec::new()));
        }
        assert_eq!(lines("ipv6: eth0: RELEASE").len(), 2);
    });
    dnsmasq.wait_for_line("DHCPRELEASE(srv0) 00:03:00:01:52:54:00:ac:10:01");
    assert!(dnsmasq.count("vendor class: 0") > 0, "servers can choose by it");
}

// F17
#[test]
fn dhcpd_gives_the_address_of_the_duid_and_one_of_the_range() {
    let program = unpacked("isc-dhcp-server").unwrap().join("usr/sbin/dhcpd");
    let lab = lab();
    let _router = lab.dnsmasq("srv0", &["--enable-ra", "--dhcp-range=fd00::,ra-only,64,10m"]);
    let dhcpd = lab.dhcpd6(
        &program,
        "srv0",
        r#"
        default-lease-time 3600; preferred-lifetime 1800;
        option dhcp6.bootfile-url code 59 = string;
        subnet6 fd00::/64 {
          range6 fd00::100 fd00::1ff;
          option dhcp6.name-servers fd00::53;
          option dhcp6.domain-search "a.cluster.test", "b.cluster.test";
          option dhcp6.sntp-servers fd00::7c;
          option dhcp6.bootfile-url "http://[fd00::254]/i.json";
        }
        host n1 { host-identifier option dhcp6.client-id 00:03:00:01:52:54:00:ac:10:01; fixed-address6 fd00::1; }
        "#,
    );
    lab.node(move || {
        let network = bring_up(&by(Method::Dhcp6)).unwrap();
        let lease = &network.lease;
        assert_eq!((lease.address, lease.prefix), (address("fd00::1"), 64));
        assert_eq!(lease.dns, [address("fd00::53")]);
        assert_eq!(lease.search, ["a.cluster.test", "b.cluster.test"]);
        assert_eq!(lease.ntp, [address("fd00::7c")]);
        assert_eq!(lease.boot_file.as_deref(), Some("http://[fd00::254]/i.json"));
        assert_eq!(seen().1, [format!("default via {ROUTER}"), "fd00::/64".to_owned()]);
        // F4: a server that names a boot file is not kept waiting.
        assert!(lines("ipv6: eth0: ADVERTISE fd00::1 from ")[0].ends_with(", which boots nodes"));
        network.leave().unwrap();
        // Another machine, which the server knows nothing of.
        ip("link set eth0 address 52:54:00:ac:10:77").unwrap();
        let network = bring_up(&by(Method::Dhcp6)).unwrap();
        let IpAddr::V6(got) = network.lease.address else { panic!("{:?}", network.lease) };
        assert!((0x100..=0x1ff).contains(&got.segments()[7]), "{got}");
        network.leave().unwrap();
    });
    dhcpd.wait_for_line("Release message from fe80::5054:ff:feac:1077");
}

// F10
#[test]
fn a_lease_shorter_than_the_download_is_renewed_and_the_connection_stays() {
    let program = unpacked("isc-dhcp-server").unwrap().join("usr/sbin/dhcpd");
    let lab = lab();
    let _router = lab.dnsmasq("srv0", &["--enable-ra", "--dhcp-range=fd00::,ra-only,64,10m"]);
    let dhcpd = lab.dhcpd6(
        &program,
        "srv0",
        "default-lease-time 8; preferred-lifetime 8; min-lease-time 8; max-lease-time 8;
         option dhcp-renewal-time 4; option dhcp-rebinding-time 6;
         subnet6 fd00::/64 { range6 fd00::100 fd00::1ff; }",
    );
    let body = image();
    let length = body.len();
    let at = SocketAddr::new(address(MASTER), 80);
    let web = Server::start_at(at, move |_, stream| {
        faulty::head(stream, "200 OK", &[("ETag", "\"1\"")], Some(body.len()))?;
        for piece in body.chunks(body.len() / 250) {
            stream.write_all(piece)?;
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    })
    .unwrap();
    let line = "ip=dhcp6 rootstream.image=http://[fd00::254]/i.tar rootstream.retry=1s";
    let (code, record) = rehearse(&lab, line);
    assert_eq!(code, 0, "{record}");
    assert_eq!((&record["bytes"], &record["retries"]), (&length.into(), &0.into()));
    assert_eq!(web.requests().len(), 1, "one connection from the first byte to the last");
    let address = record["lease"]["address"].as_str().unwrap();
    assert!(dhcpd.count("Renew message from") >= 4, "one about every four seconds");
    assert_eq!(dhcpd.count("Solicit message from"), 1);
    assert_eq!(record["lease"]["time"], 8);
    dhcpd.wait_for_line("Release message from");
    assert!(address.starts_with("fd00::1"), "{address}");
}

// F2
#[test]
fn without_a_router_or_a_server_the_failure_says_so() {
    let lab = lab();
    lab.node(|| {
        for (method, what) in [
            (Method::Auto6, "no router advertised on eth0 (52:54:00:ac:10:01)"),
            (Method::Dhcp6, "no DHCPv6 server answered on eth0 (52:54:00:ac:10:01)"),
        ] {
            let started = Instant::now();
            let error = bring_up(&Settings { dhcp: Duration::from_secs(6), ..by(method) }).unwrap_err();
            assert!((6.0..8.0).contains(&started.elapsed().as_secs_f32()), "{:?}", started.elapsed());
            let failure = Failure::from_error(&error);
            assert_eq!(failure.what, what);
            let told = "2 router solicitations and ";
            assert!(failure.why.contains(told) && failure.why.contains("routers seen: none"), "{}", failure.why);
            assert!(!ports_and_routes().port("eth0").up);
            assert_eq!(sysctl("accept_ra"), "1");
        }
    });
}

// F13
#[test]
fn an_address_that_somebody_has_is_declined() {
    let lab = lab();
    let dnsmasq = lab.dnsmasq("srv0", &["--enable-ra", "--dhcp-range=fd00::100,fd00::101,64,1h"]);
    // Somebody has both: whichever is given, the kernel finds out.
    ip("addr add fd00::100/64 dev srv0 nodad").unwrap();
    ip("addr add fd00::101/64 dev srv0 nodad").unwrap();
    lab.node(|| {
        let error = bring_up(&Settings { dhcp: Duration::from_secs(6), ..by(Method::Dhcp6) }).unwrap_err();
        let failure = Failure::from_error(&error);
        assert_eq!(failure.what, "no usable lease on eth0 (52:54:00:ac:10:01)");
        assert!(failure.why.contains(" is in use by another machine, DECLINE sent"), "{}", failure.why);
        assert_eq!(seen(), (Vec::new(), Vec::new()));
    });
    dnsmasq.wait_for_line("DHCPDECLINE(srv0)");
}

#[test]
fn link6_needs_nobody() {
    let lab = lab();
    lab.node(|| {
        let network = bring_up(&by(Method::Link6)).unwrap();
        let own: Ipv6Addr = "fe80::5054:ff:feac:1001".parse().unwrap();
        assert_eq!((network.lease.address, network.lease.prefix), (IpAddr::V6(own), 64));
        assert_eq!(seen(), (Vec::new(), Vec::new()));
        network.leave().unwrap();
    });
}
