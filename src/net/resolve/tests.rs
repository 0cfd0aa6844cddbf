use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use simple_dns::ResourceRecord;
use simple_dns::rdata::{A, AAAA, CNAME};

use super::*;

type Zone = BTreeMap<(&'static str, u16), RData<'static>>;

fn a(address: [u8; 4]) -> RData<'static> {
    RData::A(A::from(Ipv4Addr::from(address)))
}

fn aaaa(last: u16) -> RData<'static> {
    RData::AAAA(AAAA::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)))
}

fn alias(name: &'static str) -> RData<'static> {
    RData::CNAME(CNAME(Name::new_unchecked(name)))
}

const BOTH: u16 = 0;
const IPV4: u16 = 1;
const IPV6: u16 = 28;

/// A name server on loopback, and the names that it was asked for.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers from `zone`, with the chain of aliases; `change` has the last word on each answer.
    fn start(zone: Zone, change: impl Fn(u16, Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let query = Packet::parse(&buffer[..length]).unwrap();
                let QTYPE::TYPE(kind) = query.questions[0].qtype else { panic!() };
                let mut name = query.questions[0].qname.to_string().to_lowercase();
                log.lock().unwrap().push(name.clone());
                let mut answer = query.clone().into_reply();
                while let Some(data) = [BOTH, u16::from(kind)].iter().find_map(|kind| zone.get(&(name.as_str(), *kind)))
                {
                    let owner = Name::new(&name).unwrap().into_owned();
                    answer.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, data.clone()));
                    let RData::CNAME(next) = data else { break };
                    name = next.0.to_string();
                }
                if !zone.keys().any(|(known, _)| *known == name) {
                    *answer.rcode_mut() = RCODE::NameError;
                }
                for bytes in change(kind.into(), answer.build_bytes_vec_compressed().unwrap()) {
                    socket.send_to(&bytes, from).unwrap();
                }
            }
        });
        Self { address, asked }
    }

    fn plain(zone: Zone) -> Self {
        Self::start(zone, |_, answer| vec![answer])
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.dedup();
        asked
    }
}

fn dns(servers: &[&Server], domain: Option<&str>) -> Dns {
    Dns {
        servers: servers.iter().map(|server| server.address).collect(),
        search: domain.into_iter().map(str::to_owned).collect(),
        version_6: false,
        rounds: [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(200)],
    }
}

fn resolved(dns: &Dns, host: &str) -> Vec<String> {
    dns.resolve(host, 80).unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn literal_addresses_need_no_server() {
    let dns = Dns::new(&["fe80::1".parse().unwrap(), "fd00::1".parse().unwrap()], 7, Vec::new(), true);
    let servers: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["[fe80::1%7]:53", "[fd00::1]:53"]);
    let dns = Dns::new(&[], 2, Vec::new(), false);
    assert_eq!(resolved(&dns, "10.0.0.1"), ["10.0.0.1:80"]);
    assert_eq!(resolved(&dns, "[fd00::1]"), ["[fd00::1]:80"]);
    let error = dns.resolve("master", 80).unwrap_err().to_string();
    assert_eq!(error, "the lease names no name server to ask for master");
}

#[test]
fn both_families_are_asked_for_and_that_of_the_port_comes_first() {
    let zone = Zone::from([(("master.example", IPV4), a([10, 0, 0, 1])), (("master.example", IPV6), aaaa(1))]);
    let server = Server::plain(zone);
    assert_eq!(resolved(&dns(&[&server], None), "master.example"), ["10.0.0.1:80", "[fd00::1]:80"]);
    assert_eq!(resolved(&dns(&[&server], None), "MASTER.example"), ["10.0.0.1:80", "[fd00::1]:80"]);
    let of_6 = Dns { version_6: true, ..dns(&[&server], None) };
    assert_eq!(resolved(&of_6, "master.example"), ["[fd00::1]:80", "10.0.0.1:80"]);
}

#[test]
fn aliases_are_followed_and_loops_end() {
    let zone = Zone::from([
        (("www.example", BOTH), alias("web.example")),
        (("web.example", BOTH), alias("host.example")),
        (("host.example", IPV4), a([10, 0, 0, 2])),
    ]);
    let server = Server::plain(zone);
    assert_eq!(resolved(&dns(&[&server], None), "www.example"), ["10.0.0.2:80"]);

    let mut packet = Packet::new_reply(1);
    for (from, to) in [("a.example", "b.example"), ("b.example", "a.example")] {
        packet.answers.push(ResourceRecord::new(Name::new(from).unwrap(), CLASS::IN, 1, alias(to)));
    }
    assert_eq!(follow(&packet, "a.example"), Vec::<IpAddr>::new());
}

#[test]
fn the_domain_completes_short_names_first_and_others_last() {
    let zone = Zone::from([(("master.cluster.example", IPV4), a([10, 0, 0, 1]))]);
    let server = Server::plain(zone);
    let dns = dns(&[&server], Some("cluster.example"));
    assert_eq!(resolved(&dns, "master"), ["10.0.0.1:80"]);
    assert_eq!(server.asked(), ["master.cluster.example"]);
    assert_eq!(dns.candidates("a.b"), ["a.b", "a.b.cluster.example"]);
    assert_eq!(dns.candidates("a."), ["a"]);
}

#[test]
fn a_name_that_does_not_exist_is_not_asked_for_again() {
    let server = Server::plain(Zone::new());
    let error = dns(&[&server, &server], Some("example")).resolve("nobody", 80).unwrap_err();
    assert_eq!(error.to_string(), "nobody does not exist, say the name servers (127.0.0.1, 127.0.0.1)");
    assert_eq!(server.asked(), ["nobody.example", "nobody"]);
}

#[test]
fn silent_and_failing_servers_are_passed_over() {
    let zone = || Zone::from([(("m.example", IPV4), a([10, 0, 0, 1]))]);
    let silent = Server::start(Zone::new(), |_, _| Vec::new());
    let failing = Server::start(zone(), |_, mut answer| {
        answer[3] = answer[3] & 0xf0 | 2;
        vec![answer]
    });
    let good = Server::plain(zone());
    assert_eq!(resolved(&dns(&[&silent, &failing, &good], None), "m.example"), ["10.0.0.1:80"]);

    let started = Instant::now();
    let error = dns(&[&silent, &failing], None).resolve("m.example", 80).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3));
    let chain = format!("{error:#}");
    assert!(chain.starts_with("asking for the address of m.example: 127.0.0.1: no answer in 0.2 s"), "{chain}");
    assert!(chain.ends_with("127.0.0.1: the server failed (SERVFAIL)"), "{chain}");
    // Nobody listens here: known at once, not after the time for an answer.
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rounds = [Duration::from_secs(30); 3];
    let dns = Dns { servers: vec![gone, good.address], search: Vec::new(), version_6: false, rounds };
    assert_eq!(resolved(&dns, "m.example"), ["10.0.0.1:80"]);
}

#[test]
fn a_server_that_refuses_one_family_still_counts() {
    let zone = Zone::from([(("m.example", IPV4), a([10, 0, 0, 1]))]);
    let refusing = Server::start(zone.clone(), |kind, mut answer| {
        if kind == IPV6 {
            answer[3] = answer[3] & 0xf0 | 5;
        }
        vec![answer]
    });
    assert_eq!(resolved(&dns(&[&refusing], None), "m.example"), ["10.0.0.1:80"]);
    let mute = Server::start(zone, |kind, answer| if kind == IPV6 { Vec::new() } else { vec![answer] });
    assert_eq!(resolved(&dns(&[&mute], None), "m.example"), ["10.0.0.1:80"]);
}

#[test]
fn answers_to_other_questions_are_not_believed() {
    let zone = Zone::from([(("m.example", IPV4), a([10, 0, 0, 1]))]);
    let server = Server::start(zone, |_, answer| {
        let mut other_id = answer.clone();
        other_id[0] ^= 1;
        other_id[3] |= 3;
        let mut other_name = answer.clone();
        other_name[13] = b'n';
        other_name[3] |= 3;
        let mut no_reply = answer.clone();
        no_reply[2] &= 0x7f;
        let mut absurd = answer.clone();
        absurd[6] = 0xff;
        vec![other_id, other_name, no_reply, absurd, answer[..7].to_vec(), vec![0xc0; 40], answer]
    });
    assert_eq!(resolved(&dns(&[&server], None), "m.example"), ["10.0.0.1:80"]);
}

#[test]
fn a_cut_answer_without_an_address_is_a_failure() {
    let server = Server::start(Zone::from([(("m.example", IPV4), a([10, 0, 0, 1]))]), |_, mut answer| {
        answer[2] |= 2;
        answer[7] = 0;
        let question_end = 12 + "m.example".len() + 2 + 4;
        answer.truncate(question_end);
        vec![answer]
    });
    let error = dns(&[&server], None).resolve("m.example", 80).unwrap_err();
    assert!(format!("{error:#}").contains("does not fit a datagram"), "{error:#}");
}
