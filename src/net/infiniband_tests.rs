//! A port of IP over InfiniBand and its sockets, on a real kernel's TUN device that says it is of that kind. The kernel
//! gives such a device no address, so what netlink would say of it is made up here; what is sent and received is not.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use rootstream_lab::namespace::{enter_private_network, ip};
use rootstream_lab::tun;

use super::ClientId;
use super::firmware::Firmware;
use super::link::{Link, Links};
use super::port::Port;
use super::statics::Said;
use crate::dhcp::frame;
use crate::dhcp::wire::{Kind, Message, Op, option};
use crate::lease::Lease;
use crate::mac::Hardware;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const MASTER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 254);
const GUID: [u8; 8] = [0xe4, 0x1d, 0x2d, 3, 0, 0x12, 0x34, 0x56];
const CLIENT_ID: [u8; 20] = [255, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0xc9, 0, 0xe4, 0x1d, 0x2d, 3, 0, 0x12, 0x34, 0x56];

/// A node's InfiniBand port, in a namespace of its own.
struct Node {
    links: Links,
    port: Port,
    started: Instant,
}

impl Node {
    /// The node, and the other end of its port.
    fn new() -> (Self, File) {
        enter_private_network().unwrap();
        let file = tun::infiniband("ib0").unwrap();
        let links = Links::open().unwrap();
        let index = links.list().unwrap().into_iter().find(|link| link.name == "ib0").unwrap().index;
        let mut own = [0; 20];
        own[..4].copy_from_slice(&[0x80, 0, 2, 8]);
        own[12..].copy_from_slice(&GUID);
        let mac = Hardware::InfiniBand(own);
        let link = Link { mac: Some(mac), broadcast: Some([0xff; 20]), ..Link::ethernet(index, "ib0", [0; 6]) };
        let config = crate::cmdline::parse("rootstream.image=http://m/i.tar").check().unwrap();
        let said = Said::about(&config.net, &link, None, false).unwrap();
        let port = Port::open(&links, link, None, mac, said, Vec::new(), (&ClientId::Mac, Firmware::default()));
        (Self { links, port, started: Instant::now() }, file)
    }

    /// Lets the port do its work until it has what is asked for.
    fn until(&mut self, what: &str, ready: impl Fn(&Port) -> bool) {
        let started = Instant::now();
        while !ready(&self.port) {
            assert!(started.elapsed() < Duration::from_secs(25), "never: {what}; {}", self.port.story());
            let now = self.started.elapsed();
            self.port.carrier(&self.links, true, now);
            self.port.tick(&self.links, now);
            self.port.receive(&self.links, now, &[]);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The lease, once it is ours, with its address on the port.
    fn lease(&mut self) -> Lease {
        self.until("a lease", |port| port.lease().is_some());
        let lease = self.port.lease().unwrap();
        self.links.add_address(self.port.index(), lease.address, lease.prefix).unwrap();
        lease
    }
}

/// The next packet that the node sends, and its protocol.
fn next(port: &mut File) -> (u16, Vec<u8>) {
    let mut buffer = [0; 2048];
    let length = port.read(&mut buffer).unwrap();
    (u16::from_be_bytes([buffer[2], buffer[3]]), buffer[4..length].to_vec())
}

fn give(port: &mut File, protocol: u16, packet: &[u8]) {
    port.write_all(&[&[0, 0], &protocol.to_be_bytes()[..], packet].concat()).unwrap();
}

/// The DHCP message in a packet to a server, and where it goes.
fn message(packet: &[u8]) -> Option<(Message, Ipv4Addr)> {
    let for_server = packet.get(9) == Some(&17) && packet[22..24] == [0, 67];
    let to = for_server.then(|| Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]))?;
    let message = Message::parse(&packet[28..]).unwrap();
    assert_eq!((message.chaddr, message.options.get(&option::CLIENT_ID)), (None, Some(&CLIENT_ID.to_vec())));
    Some((message, to))
}

/// The packet in which a server's answer comes.
fn answer(payload: &[u8], to: Ipv4Addr) -> Vec<u8> {
    let mut packet = frame::packet(MASTER, to, payload);
    // From the server's port to the client's; the sum stays.
    packet[20..24].rotate_left(2);
    packet
}

/// A running server, ended when dropped.
struct Dnsmasq(Child);

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// F17
#[test]
fn dnsmasq_gives_a_lease_over_infiniband() {
    let (mut node, mut from_node) = Node::new();
    // What goes through the port goes on through a wire to the server, and back.
    for words in ["link add srv0 type veth peer name wire", "link set srv0 up", "link set wire up"] {
        ip(words).unwrap();
    }
    for end in ["srv0", "wire"] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{end}/accept_local"), "1").unwrap();
    }
    ip("addr add 172.16.0.254/24 dev srv0").unwrap();
    ip("addr add 169.254.0.2/16 dev wire").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args([
        "--conf-file=/dev/null",
        "--keep-in-foreground",
        "--user=root",
        "--no-ping",
        "--port=0",
        "--pid-file=",
    ]);
    dnsmasq.args([
        "--bind-interfaces",
        "--interface=srv0",
        "--except-interface=lo",
        "--dhcp-range=172.16.0.0,static,1h",
    ]);
    let id: Vec<String> = CLIENT_ID.iter().map(|byte| format!("{byte:02x}")).collect();
    dnsmasq.arg(format!("--dhcp-host=id:{},172.16.0.7", id.join(":"))).arg(format!("--log-facility={}", log.display()));
    dnsmasq.arg(format!("--dhcp-leasefile={}", folder.path().join("leases").display()));
    let _dnsmasq = Dnsmasq(dnsmasq.stdin(Stdio::null()).spawn().unwrap());
    let said = |words: &str| fs::read_to_string(&log).unwrap_or_default().contains(words);
    let wait_for = |words: &str| {
        let started = Instant::now();
        while !said(words) {
            assert!(started.elapsed() < Duration::from_secs(15), "never {words}: {:?}", fs::read_to_string(&log));
            thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for("sockets bound exclusively");
    let wire = UdpSocket::bind("0.0.0.0:68").unwrap();
    setsockopt(&wire, sockopt::BindToDevice, &"wire".into()).unwrap();
    wire.set_broadcast(true).unwrap();
    let (mut to_node, from_wire) = (from_node.try_clone().unwrap(), wire.try_clone().unwrap());
    thread::spawn(move || {
        loop {
            let (protocol, packet) = next(&mut from_node);
            if protocol == IPV4 && message(&packet).is_some() {
                wire.send_to(&packet[28..], "255.255.255.255:67").unwrap();
            }
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok(length) = from_wire.recv(&mut buffer) {
            give(&mut to_node, IPV4, &answer(&buffer[..length], Ipv4Addr::BROADCAST));
        }
    });
    let lease = node.lease();
    assert_eq!(lease.address, Ipv4Addr::new(172, 16, 0, 7));
    assert_eq!((lease.prefix, lease.server), (24, MASTER.into()));
    assert_eq!(node.port.title(), "ib0 (e4:1d:2d:03:00:12:34:56)");
    assert!(node.port.release(&node.links));
    wait_for("DHCPRELEASE(srv0) 172.16.0.7");
}

// F10, F13
#[test]
fn over_infiniband_conflicts_are_seen_and_leases_renewed() {
    let (mut node, mut port) = Node::new();
    let seen: Arc<Mutex<Vec<(Kind, bool, Ipv4Addr)>>> = Arc::default();
    let heard = Arc::clone(&seen);
    thread::spawn(move || {
        let mut offered = 8;
        loop {
            let (protocol, packet) = next(&mut port);
            let asked = [172, 16, 0, 9];
            if protocol == ARP && packet.ends_with(&asked) && packet[28..32] == [0; 4] {
                assert_eq!(packet[..8], [0, 32, 8, 0, 20, 4, 0, 1]);
                assert_eq!(packet[20..28], GUID);
                let reply = [&[0, 32, 8, 0, 20, 4, 0, 2][..], &[9; 20], &asked, &[0; 20], &[0; 4]].concat();
                give(&mut port, ARP, &reply);
            }
            let Some((message, to)) = Some(&packet).filter(|_| protocol == IPV4).and_then(|packet| message(packet))
            else {
                continue;
            };
            heard.lock().unwrap().push((message.kind, message.broadcast, to));
            let kind = match message.kind {
                Kind::Discover => Kind::Offer,
                Kind::Request => Kind::Ack,
                _ => continue,
            };
            offered += u8::from(kind == Kind::Offer);
            let mut reply = Message::request(kind, message.xid, None)
                .with(option::SERVER, MASTER.octets())
                .with(option::SUBNET_MASK, [255, 255, 255, 0])
                .with(option::LEASE_TIME, 8_u32.to_be_bytes());
            reply.op = Op::Reply;
            reply.yiaddr = Ipv4Addr::new(172, 16, 0, offered);
            let to = if message.broadcast { Ipv4Addr::BROADCAST } else { message.ciaddr };
            give(&mut port, IPV4, &answer(&reply.to_bytes(), to));
        }
    });
    assert_eq!(node.lease().address, Ipv4Addr::new(172, 16, 0, 10));
    // Who has the address is sent to as anybody is.
    let renewal = (Kind::Request, false, MASTER);
    node.until("a renewal", |_| seen.lock().unwrap().contains(&renewal));
    let seen = seen.lock().unwrap().clone();
    let all = Ipv4Addr::BROADCAST;
    let first = [(Kind::Discover, true, all), (Kind::Request, true, all), (Kind::Decline, true, all)];
    assert!(seen.starts_with(&first), "{seen:?}");
}
