//! The network of virtual nodes: their cards, cables and switches, with Debian's kernel for every machine. All boot into
//! an image that is no more than an init, which says what it finds.
//!
//! `make test-all` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod vm;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rootstream_lab::bound::Bound;
use rootstream_lab::faulty::{self, head};
use rootstream_lab::namespace::ip;
use rootstream_lab::network::tap_with;
use rootstream_lab::node::Node;
use rootstream_lab::switch::Mode;
use vm::switched::behind_a_switch;
use vm::{
    Boot, IMAGE, MAC, dhcp, generic_kernel, in_private_network, seconds, serve_small_image, serve_small_image_at,
    small_image,
};

/// A card that tells when it loses carrier, which QEMU's e1000e does not.
const CARRIER: &str = "virtio-net-pci";

/// What the image's init says when the node has the address of [`dhcp`] on `port` alone, and reaches the master.
fn assert_at_home(stage_2: &[String], port: &str) {
    let addresses: Vec<&String> = stage_2.iter().filter(|line| line.contains(" inet ")).collect();
    let [only] = addresses.as_slice() else { panic!("not one address: {stage_2:#?}") };
    assert!(only.contains(&format!(" {port} ")) && only.contains(" inet 172.16.0.1/24 "), "{only}");
    assert!(stage_2.iter().any(|line| line == "hello from the master"), "{stage_2:#?}");
}

fn a_card_boots(model: &str, driver: &str) {
    let (kernel, initramfs) = generic_kernel(None);
    in_private_network(move || {
        let _dhcp = dhcp();
        let _http = serve_small_image();
        let node = Node::new("n1").memory(512).card(model, "tap0", MAC);
        let (agent, stage_2) = Boot::start(node, (&kernel, &initramfs), IMAGE).finish();
        assert!(agent.iter().any(|line| *line == format!("net: eth0 ({MAC}, {driver}) is up")), "{agent:#?}");
        assert_at_home(&stage_2, "eth0");
    });
}

// F63
#[test]
fn an_e1000_boots() {
    a_card_boots("e1000", "e1000");
}

// F63
#[test]
fn an_e1000e_boots() {
    a_card_boots("e1000e", "e1000e");
}

// F63
#[test]
fn a_virtio_card_boots() {
    a_card_boots("virtio-net-pci", "virtio_net");
}

// F15
#[test]
fn of_four_ports_the_served_one_has_its_lease_within_three_seconds_of_carrier() {
    let (kernel, initramfs) = generic_kernel(None);
    in_private_network(move || {
        for (number, address) in [(1, "172.17.0.254/24"), (2, "172.18.0.254/24"), (3, "172.19.0.254/24")] {
            tap_with(&format!("tap{number}"), &[address]).unwrap();
        }
        let _dhcp = dhcp();
        let _http = serve_small_image();
        // The third one is the served one; its switch port is late.
        let node = Node::new("n1")
            .memory(512)
            .card("e1000e", "tap1", "52:54:00:ac:10:02")
            .card("virtio-net-pci", "tap2", "52:54:00:ac:10:03")
            .card("virtio-net-pci", "tap0", MAC)
            .card("e1000", "tap3", "52:54:00:ac:10:04");
        let mut boot = Boot::start(node, (&kernel, &initramfs), IMAGE);
        boot.machine.set_carrier(2, false).unwrap();
        boot.machine.wait_for("waiting for a lease on ").unwrap();
        boot.machine.set_carrier(2, true).unwrap();
        let (agent, stage_2) = boot.finish();
        let served = agent.iter().find(|line| line.contains(MAC) && line.contains(": carrier after ")).unwrap();
        let title = served.split_once(": carrier").unwrap().0;
        let carrier = seconds(&agent, title, ": carrier after ");
        let ready = seconds(&agent, title, " is ready after ");
        println!("{title}: carrier after {carrier} s, lease after {ready} s");
        assert!(ready - carrier <= 3.0, "{carrier} s, {ready} s: {agent:#?}");
        let up = agent.iter().filter(|line| line.ends_with(" is up")).count();
        let down = agent.iter().filter(|line| line.ends_with(" is taken down again")).count();
        assert_eq!((up, down), (4, 3), "{agent:#?}");
        let port = title.strip_prefix("net: ").unwrap().split(' ').next().unwrap();
        assert_at_home(&stage_2, port);
    });
}

// F15
#[test]
fn of_two_ports_the_served_one_boots_and_the_other_is_taken_down() {
    let (kernel, initramfs) = generic_kernel(None);
    in_private_network(move || {
        tap_with("tap1", &["172.17.0.254/24"]).unwrap();
        let _dhcp = dhcp();
        let _http = serve_small_image();
        // Both have carrier; nobody serves the first.
        let node = Node::new("n1").memory(512).card("e1000e", "tap1", "52:54:00:ac:10:02").card("e1000", "tap0", MAC);
        let (agent, stage_2) = Boot::start(node, (&kernel, &initramfs), IMAGE).finish();
        let ready = agent.iter().find(|line| line.contains(MAC) && line.contains(" is ready after ")).unwrap();
        let down: Vec<_> = agent.iter().filter(|line| line.ends_with(" is taken down again")).collect();
        assert!(down.len() == 1 && down[0].contains("52:54:00:ac:10:02"), "{agent:#?}");
        assert_at_home(&stage_2, ready.strip_prefix("net: ").unwrap().split(' ').next().unwrap());
    });
}

// F1
#[test]
fn a_switch_port_that_comes_up_40_s_late_is_waited_for() {
    let (kernel, initramfs) = generic_kernel(None);
    in_private_network(move || {
        let _dhcp = dhcp();
        let _http = serve_small_image();
        let node = Node::new("n1").memory(512).card("e1000e", "tap0", MAC);
        // The time for DHCP is shorter than the wait for carrier.
        let mut boot = Boot::start(node, (&kernel, &initramfs), &format!("{IMAGE} rootstream.dhcp=20s"));
        boot.machine.set_carrier(0, false).unwrap();
        boot.machine.wait_for(&format!("net: eth0 ({MAC}, e1000e) is up")).unwrap();
        thread::sleep(Duration::from_secs(40));
        boot.machine.set_carrier(0, true).unwrap();
        let (agent, stage_2) = boot.finish();
        let carrier = seconds(&agent, "net: eth0", ": carrier after ");
        assert!((39.0..60.0).contains(&carrier), "{carrier} s: {agent:#?}");
        let start = format!("net: waiting for carrier on eth0 ({MAC}): ");
        let waits: Vec<u32> = agent
            .iter()
            .filter_map(|line| line.strip_prefix(&start)?.strip_suffix(" s of 60 s")?.parse().ok())
            .collect();
        assert!(waits.len() >= 8 && waits.windows(2).all(|two| two[1] - two[0] <= 7), "{waits:?}");
        assert_at_home(&stage_2, "eth0");
    });
}

#[test]
fn an_address_of_the_command_line_boots_without_any_dhcp_server() {
    let (kernel, initramfs) = generic_kernel(None);
    in_private_network(move || {
        let _http = serve_small_image();
        let node = Node::new("n1").memory(512).card("e1000e", "tap0", MAC);
        let parameters = format!("{IMAGE} ip=172.16.0.1::172.16.0.254:24:n1:eth0:none");
        let (agent, stage_2) = Boot::start(node, (&kernel, &initramfs), &parameters).finish();
        assert!(!agent.iter().any(|line| line.starts_with("dhcp: ")), "{agent:#?}");
        assert_at_home(&stage_2, "eth0");
    });
}

#[test]
fn a_node_boots_by_dhcpv6_alone() {
    let (kernel, initramfs) = generic_kernel(None);
    in_private_network(move || {
        for words in ["address flush dev tap0", "address add fd00:ac10::1/64 dev tap0 nodad"] {
            ip(words).unwrap();
        }
        let words = "--keep-in-foreground --conf-file=/dev/null --user=root --port=0 --no-resolv --no-hosts \
            --log-facility=/dev/null --dhcp-leasefile=/dev/null --interface=tap0 --bind-interfaces --enable-ra \
            --dhcp-range=fd00:ac10::10,fd00:ac10::10,64,1h";
        let _dhcp = Bound::start("dnsmasq", |c| c.args(words.split_whitespace())).unwrap();
        let _http = serve_small_image_at("[fd00:ac10::1]:80".parse().unwrap());
        let node = Node::new("n1").memory(512).card("e1000e", "tap0", MAC);
        let parameters = "rootstream.image=http://[fd00:ac10::1]/i.tar rootstream.unsigned ip=dhcp6";
        let (agent, stage_2) = Boot::start(node, (&kernel, &initramfs), parameters).finish();
        assert!(!agent.iter().any(|line| line.contains("DISCOVER")), "{agent:#?}");
        let addresses: Vec<&String> = stage_2.iter().filter(|line| line.contains(" inet")).collect();
        assert!(
            addresses.iter().any(|line| line.contains(" eth0 ") && line.contains(" fd00:ac10::10/")),
            "{addresses:?}"
        );
        assert!(stage_2.iter().any(|line| line == "hello from the master"), "{stage_2:#?}");
    });
}

#[test]
fn a_vlan_on_a_trunk_boots() {
    behind_a_switch(Mode::Trunk(5), 1, |switched| {
        let _dhcp = dhcp();
        let _http = serve_small_image();
        let (agent, stage_2) = switched.boot("e1000", "vlan=vlan5:eth0").finish();
        assert!(agent.iter().any(|line| line == "net: vlan5 is VLAN 5 on eth0"), "{agent:#?}");
        assert_at_home(&stage_2, "vlan5");
    });
}

// F2
#[test]
fn without_the_vlan_a_trunk_s_dhcp_server_is_not_heard_and_the_failure_says_so() {
    behind_a_switch(Mode::Trunk(5), 1, |switched| {
        let _dhcp = dhcp();
        let mut boot = switched.boot("e1000", "vlan=vlan6:eth0 rootstream.dhcp=10s");
        let line = boot.machine.wait_for("boot failed: ").unwrap();
        assert!(line.contains(&format!("no DHCP server answered on vlan6 ({MAC})")), "{line}");
        let line = boot.machine.wait_for("  what to do: ").unwrap();
        assert!(line.contains("that the switch port is in the right VLAN"), "{line}");
    });
}

#[test]
fn an_active_backup_bond_boots_though_its_first_port_loses_carrier() {
    behind_a_switch(Mode::Access, 2, |switched| {
        let _dhcp = dhcp();
        let (asked, request) = mpsc::channel();
        let image = small_image();
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let _http = faulty::Server::start_at(SocketAddr::from(([172, 16, 0, 254], 80)), move |request, stream| {
            if request.path == "/hello" {
                return faulty::answer(stream, "200 OK", &[], b"hello from the master\n");
            }
            let (first, rest) = image.split_at(image.len() / 2);
            head(stream, "200 OK", &[], Some(image.len()))?;
            stream.write_all(first)?;
            asked.send(()).map_err(std::io::Error::other)?;
            // The other half comes by the other port.
            gone.lock().unwrap().recv().map_err(std::io::Error::other)?;
            stream.write_all(rest)
        })
        .unwrap();
        let mut boot = switched.boot(CARRIER, "bond=bond0:eth0,eth1:mode=active-backup,miimon=100,primary=eth0");
        request.recv_timeout(Duration::from_secs(400)).unwrap();
        boot.machine.set_carrier(0, false).unwrap();
        go.send(()).unwrap();
        let (agent, stage_2) = boot.finish();
        let has = |words: &str| agent.iter().any(|line| line == words);
        assert!(has("net: eth0 is a port of bond0") && has("net: eth1 is a port of bond0"), "{agent:#?}");
        let sees = |words: &str| stage_2.iter().any(|line| line == words);
        assert!(sees("Currently Active Slave: eth1"), "{stage_2:#?}");
        assert!(stage_2.iter().any(|line| line.starts_with("Bonding Mode: fault-tolerance")), "{stage_2:#?}");
        assert_at_home(&stage_2, "bond0");
    });
}

#[test]
fn an_802_3ad_bond_boots_with_both_ports_in_one_aggregator() {
    behind_a_switch(Mode::Lacp, 2, |switched| {
        let _dhcp = dhcp();
        let _http = serve_small_image();
        let (agent, stage_2) =
            switched.boot("e1000e", "bond=bond0:eth0,eth1:mode=802.3ad,miimon=100,lacp_rate=fast").finish();
        assert!(agent.iter().any(|line| line == "net: eth1 is a port of bond0"), "{agent:#?}");
        assert!(stage_2.iter().any(|line| line.starts_with("Bonding Mode: IEEE 802.3ad")), "{stage_2:#?}");
        // The switch's side of the bond has the MAC of its first port.
        let partner = "Partner Mac Address: 52:54:00:ac:10:f1";
        assert!(stage_2.iter().any(|line| line == partner), "{stage_2:#?}");
        assert!(stage_2.iter().any(|line| line == "Number of ports: 2"), "{stage_2:#?}");
        assert_at_home(&stage_2, "bond0");
    });
}

#[test]
fn a_vlan_on_an_802_3ad_bond_boots() {
    behind_a_switch(Mode::LacpTrunk(5), 2, |switched| {
        let _dhcp = dhcp();
        let _http = serve_small_image();
        let bond = "bond=bond0:eth0,eth1:mode=802.3ad,miimon=100,lacp_rate=fast vlan=bond0.5:bond0";
        let (agent, stage_2) = switched.boot("e1000e", bond).finish();
        assert!(agent.iter().any(|line| line == "net: bond0.5 is VLAN 5 on bond0"), "{agent:#?}");
        assert_at_home(&stage_2, "bond0.5");
    });
}
