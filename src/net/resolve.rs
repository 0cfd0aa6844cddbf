//! Host names to addresses, by asking name servers ourselves: stage 1 has no resolv.conf, and libc's
//! resolver would look for one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};

use crate::failure::refuse;
use crate::image::Resolve;
use crate::random;
use crate::say;

const DNS_PORT: u16 = 53;
/// As many servers as libc asks.
const MAX_SERVERS: usize = 3;
/// How long each round over the servers waits for each of them.
const ROUNDS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// How long the other family's answer is awaited when one has come.
const STRAGGLER: Duration = Duration::from_millis(300);
const MAX_ALIASES: usize = 16;

/// Asks name servers over UDP, for IPv4 and IPv6 addresses.
#[derive(Debug)]
pub(super) struct Dns {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// IPv6 addresses come first: it is what the port has.
    version_6: bool,
    rounds: [Duration; 3],
}

impl Dns {
    /// `servers` are asked in order, those that are known on their link only through the port with this kernel index; the
    /// domains in `search` complete names without a dot, in order. `version_6` says which family's addresses come first.
    pub(super) fn new(servers: &[IpAddr], port: u32, search: Vec<String>, version_6: bool) -> Self {
        let at = |server: &IpAddr| match server {
            IpAddr::V6(address) if address.is_unicast_link_local() => {
                SocketAddr::V6(SocketAddrV6::new(*address, DNS_PORT, 0, port))
            }
            server => SocketAddr::new(*server, DNS_PORT),
        };
        let servers = servers.iter().take(MAX_SERVERS).map(at).collect();
        Self { servers, search, version_6, rounds: ROUNDS }
    }

    /// The names to ask for, in order (what resolv.conf calls `ndots:1`).
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let completed = self.search.iter().map(|domain| format!("{host}.{domain}"));
        if host.contains('.') {
            [host.to_owned()].into_iter().chain(completed).collect()
        } else {
            completed.chain([host.to_owned()]).collect()
        }
    }

    /// Asks the servers in turn until one of them knows.
    fn ask(&self, name: &str) -> anyhow::Result<Vec<IpAddr>> {
        let mut failures = Vec::new();
        for wait in self.rounds {
            failures.clear();
            for server in &self.servers {
                match query(*server, name, wait) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        say::info!("net: name server {}: {name}: {error:#}", server.ip());
                        failures.push(format!("{}: {error:#}", server.ip()));
                    }
                }
            }
        }
        bail!("{}", failures.join("; "))
    }
}

impl Resolve for Dns {
    fn resolve(&self, host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let todo = "use the server's address in the URL, or correct the name or nameserver=";
        if self.servers.is_empty() {
            return Err(refuse(format!("the lease names no name server to ask for {host}"), todo));
        }
        for name in self.candidates(host) {
            let mut addresses = self.ask(&name).with_context(|| format!("asking for the address of {name}"))?;
            addresses.sort_by_key(|address| address.is_ipv6() != self.version_6);
            if !addresses.is_empty() {
                return Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect());
            }
        }
        let servers: Vec<String> = self.servers.iter().map(|server| server.ip().to_string()).collect();
        Err(refuse(format!("{host} does not exist, say the name servers ({})", servers.join(", ")), todo))
    }
}

/// Asks one server for both kinds of addresses, IPv4 first in the result; none when the name does
/// not exist or has no address.
fn query(server: SocketAddr, name: &str, wait: Duration) -> anyhow::Result<Vec<IpAddr>> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).context("opening a socket")?;
    // Connected, the socket takes answers of this server only, and learns when nobody listens there.
    socket.connect(server).context("no route")?;
    let [a, b, c, d, ..] = random::bits(name).to_ne_bytes();
    let ids = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
    let kinds = [TYPE::A, TYPE::AAAA];
    for (id, kind) in ids.into_iter().zip(kinds) {
        socket.send(&question(id, name, kind)?).context("sending")?;
    }

    let mut answers: [Option<anyhow::Result<Vec<IpAddr>>>; 2] = [None, None];
    let mut end = Instant::now() + wait;
    let mut buffer = [0; 4096];
    while answers.iter().any(Option::is_none) {
        let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
        socket.set_read_timeout(Some(left)).context("setting a timeout")?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error).context("receiving"),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        for ((id, kind), slot) in ids.into_iter().zip(kinds).zip(&mut answers) {
            if slot.is_none()
                && let Some(answer) = read(bytes, id, name, kind).transpose()
            {
                *slot = Some(answer);
                end = end.min(Instant::now() + STRAGGLER);
            }
        }
    }
    judge(answers.into_iter().flatten()).with_context(|| format!("no answer in {} s", wait.as_secs_f32()))?
}

/// What the answers come to; nothing when there are none. Servers that refuse one family only are
/// common, so any address counts more than a failure, and a failure more than an empty answer.
fn judge(answers: impl Iterator<Item = anyhow::Result<Vec<IpAddr>>>) -> Option<anyhow::Result<Vec<IpAddr>>> {
    answers.reduce(|one, other| match (one, other) {
        (Ok(one), Ok(other)) => Ok([one, other].concat()),
        (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
        (Err(error), _) | (_, Err(error)) => Err(error),
    })
}

fn question(id: u16, name: &str, kind: TYPE) -> anyhow::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(|_| anyhow::anyhow!("not a host name"))?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(|error| anyhow::anyhow!("{error}"))
}

/// The answer to this question, or nothing when the bytes are no such answer.
fn read(bytes: &[u8], id: u16, name: &str, kind: TYPE) -> anyhow::Result<Option<Vec<IpAddr>>> {
    let Ok(packet) = Packet::parse(bytes) else { return Ok(None) };
    let asked = packet.questions.first().is_some_and(|question| {
        question.qtype == QTYPE::TYPE(kind) && question.qname.to_string().eq_ignore_ascii_case(name)
    });
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !asked {
        return Ok(None);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Some(Vec::new())),
        RCODE::ServerFailure => bail!("the server failed (SERVFAIL)"),
        RCODE::Refused => bail!("the server refuses to answer (REFUSED)"),
        other => bail!("the server answers with code {}", other as u8),
    }
    let addresses = follow(&packet, name);
    if addresses.is_empty() && packet.has_flags(PacketFlag::TRUNCATION) {
        bail!("the answer does not fit a datagram");
    }
    Ok(Some(addresses))
}

/// The addresses of `name`, or of what its aliases lead to.
fn follow(packet: &Packet<'_>, name: &str) -> Vec<IpAddr> {
    let mut name = name.to_owned();
    for _ in 0..MAX_ALIASES {
        let records = || packet.answers.iter().filter(|record| record.name.to_string().eq_ignore_ascii_case(&name));
        let addresses: Vec<IpAddr> = records()
            .filter_map(|record| match &record.rdata {
                RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
                RData::AAAA(a) => Some(IpAddr::V6(Ipv6Addr::from(a.address))),
                _ => None,
            })
            .collect();
        if !addresses.is_empty() {
            return addresses;
        }
        let alias = records().find_map(|record| match &record.rdata {
            RData::CNAME(alias) => Some(alias.0.to_string()),
            _ => None,
        });
        match alias {
            Some(alias) => name = alias,
            None => break,
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests;
