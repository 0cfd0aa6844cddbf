//! IPv6 addresses of the kernel command line, in private network namespaces: nobody is asked, and an image comes over
//! IPv6.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::expect_used)]

mod lab;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Lab, image, lines, ports_and_routes, rehearse, settings_of};
use rootstream::failure::Failure;
use rootstream::net::bring_up;
use rootstream_lab::faulty::{self, Server};
use rootstream_lab::namespace::ip;

const MAC: &str = "52:54:00:ac:10:01";
const SERVER_MAC: &str = "02:00:00:00:00:fe";
/// What `ip -6 addr add` takes: a server's end is not to wait for its own check.
const MASTER: &str = "fd00::1/64 nodad";

/// A wire to a server at fd00::1, whose own address on the link is fe80::fe.
fn wired() -> Lab {
    let lab = Lab::new();
    lab.wire("eth0", MAC, "srv0", MASTER);
    ip(&format!("link set srv0 address {SERVER_MAC}")).unwrap();
    ip("addr add fe80::fe/64 dev srv0 nodad").unwrap();
    lab
}

/// Serves the image at fd00::1.
fn web(port: u16) -> Server {
    let body = image();
    let at = SocketAddr::new("fd00::1".parse().unwrap(), port);
    Server::start_at(at, move |_, stream| faulty::answer(stream, "200 OK", &[("ETag", "\"1\"")], &body)).unwrap()
}

/// Addresses but link-local ones, and routes of IPv6 that were not there by themselves.
fn seen_6() -> Vec<String> {
    let show = |words: &str| {
        let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "ip {words}");
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let addresses = show("-6 -o addr show dev eth0 scope global");
    let addresses = addresses.iter().map(|line| line.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" "));
    let routes = show("-6 route show dev eth0");
    let routes = routes.iter().filter(|route| !route.starts_with("fe80::/64") && !route.starts_with("ff00::/8"));
    let routes = routes.map(|route| route.split(" metric").next().unwrap().replace(" proto dhcp", ""));
    addresses.chain(routes.map(|route| route.replace(" proto kernel", ""))).collect()
}

#[test]
fn an_image_comes_over_ipv6_by_name_and_by_address_and_nobody_is_asked() {
    let lab = wired();
    // AAAA only.
    let names =
        lab.dnsmasq("srv0", &["--port=53", "--address=/images.test/fd00::1", "--dhcp-range=172.16.0.9,172.16.0.9"]);
    let (web, other) = (web(80), web(8080));
    let line = "ip=[fd00::9]::[fe80::fe]:64:n9:eth0:none nameserver=[fd00::1] rd.route=[fd09::]/48:[fd00::7]";
    let (code, record) = rehearse(&lab, &format!("rootstream.image=http://images.test/i.tar {line}"));
    assert_eq!(code, 0, "{record}");
    let lease = &record["lease"];
    assert_eq!((&lease["address"], &lease["prefix"]), (&"fd00::9".into(), &64.into()));
    assert_eq!((&lease["server"], &lease["dns"][0]), (&"::".into(), &"fd00::1".into()));
    assert_eq!(lease["routes"], serde_json::json!([["::", 0, "fe80::fe"], ["fd09::", 48, "fd00::7"]]));
    assert_eq!(web.requests()[0].headers["host"], "images.test");

    let literal = "rootstream.image=http://[fd00::1]:8080/i.tar rootstream.overlay=?http://[fd00::1]:8080/o/${ip}.tar";
    let (code, record) = rehearse(&lab, &format!("{literal} {line}"));
    assert_eq!(code, 0, "{record}");
    let asked = other.requests();
    assert!(asked.iter().all(|request| request.headers["host"] == "[fd00::1]:8080"), "{asked:?}");
    assert_eq!(asked.last().unwrap().path, "/o/fd00%3A%3A9.tar");
    assert_eq!(names.count("DHCPDISCOVER") + names.count("DHCPINFORM"), 0, "nobody asked");
    lab.node(|| {
        assert!(!ports_and_routes().port("eth0").up);
        assert_eq!(seen_6(), Vec::<String>::new());
    });
}

#[test]
fn address_and_routes_are_put_on_the_port_and_taken_back() {
    let lab = wired();
    lab.node(|| {
        let off = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        fs::write(off, "1").unwrap();
        let line = "ip=[fd00::9]:[fd05::1]/64:[fd00::1]:64::eth0:none:1400 rd.route=[fd09::]/48:[fe80::fe]";
        let network = bring_up(&settings_of(line)).unwrap();
        assert_eq!((network.port.as_str(), network.fixed, network.lease.prefix), ("eth0", true, 64));
        assert_eq!(ports_and_routes().port("eth0").mtu, 1400);
        let mut seen = seen_6();
        seen.sort();
        let expected = ["default via fd00::1", "fd00::/64", "fd05::/64", "fd09::/48 via fe80::fe", "inet6 fd00::9/64"];
        assert_eq!(seen, expected);
        network.leave().unwrap();
        assert_eq!((seen_6(), fs::read_to_string(off).unwrap().trim()), (Vec::new(), "1"));
        assert!(lines("dhcp: ").is_empty());
    });
}

// F13
#[test]
fn an_address_that_another_machine_has_is_refused_and_the_machine_named() {
    let lab = wired();
    ip("addr add fd00::9/64 dev srv0 nodad").unwrap();
    lab.node(|| {
        let started = Instant::now();
        let failure = Failure::from_error(&bring_up(&settings_of("ip=[fd00::9]:::64::eth0:none")).unwrap_err());
        assert!(started.elapsed() < Duration::from_secs(9), "not waited for without need");
        assert_eq!(failure.what, format!("configuring eth0 ({MAC})"));
        assert_eq!(failure.why, format!("fd00::9 is in use by the machine {SERVER_MAC} on the link of eth0"));
        assert!(failure.todo.starts_with("give this node another address"), "{}", failure.todo);
        assert!(!ports_and_routes().port("eth0").up);
        assert_eq!(seen_6(), Vec::<String>::new());
    });
}

#[test]
fn an_image_of_the_other_family_is_refused_before_anybody_is_asked() {
    let lab = wired();
    let (code, record) = rehearse(&lab, "rootstream.image=http://[fd00::1]/i.tar");
    assert_eq!(code, 1, "{record}");
    assert_eq!(record["error"]["what"], "the image is at fd00::1, and no ip= brings up IPv6");
    assert!(record["error"]["todo"].as_str().unwrap().contains("ip=either6"), "{record}");
}
