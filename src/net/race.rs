//! Carrier and DHCP on all ports at once, until one of them has a lease.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::choose::{self, Runner};
use super::firmware::Firmware;
use super::link::{self, Links};
use super::port::Port;
use super::stack::Stack;
use super::statics::Said;
use super::{Settings, verdict, wait};
use crate::failure::refuse;
use crate::lease::Lease;
use crate::mac::Hardware;
use crate::say;

/// How often the ports are looked at: new ones, carrier.
const LOOK: Duration = Duration::from_millis(50);
/// When the console first hears what is waited for, and every how many seconds from then on.
const FIRST_WORD: Duration = Duration::from_secs(1);
const TELL: u64 = 5;

/// Tries all wanted ports until one has a lease, and returns its place in `ports`. Times count from `started`.
///
/// `ports` holds every port that took part, also after a failure: the caller puts them back.
pub(super) fn run(
    links: &Links,
    settings: &Settings,
    started: Instant,
    stack: &mut Stack,
    ports: &mut Vec<Port>,
) -> anyhow::Result<(usize, Lease)> {
    let firmware = Firmware::of_machine(Path::new("/"), std::env::consts::ARCH);
    let mut next_look = Duration::ZERO;
    let mut next_word = FIRST_WORD;
    loop {
        let now = started.elapsed();
        if now >= next_look {
            // Right after it was brought up, a port may have carrier.
            let more = look(links, settings, firmware, stack, ports, now)?;
            next_look = if more { now } else { now + LOOK };
        }
        for port in ports.iter_mut() {
            port.tick(links, now);
        }
        let runners: Vec<Runner> = ports.iter().map(|port| port.runner(settings)).collect();
        let winner = choose::winner(&runners, settings.bootif.is_some(), now);
        if let Some((number, port, lease)) = winner.and_then(|number| with_lease(ports, number)) {
            if runners.get(number).is_some_and(|runner| !runner.reaches) {
                say::warn!("net: {}: this lease has no way to the image, and there is no better one", port.title());
            }
            return Ok((number, lease));
        }
        let phase = Phase::of(ports, settings);
        if now >= phase.end {
            return Err(verdict::no_lease(ports, settings, stack, || links.list()));
        }
        if now >= next_word {
            say::info!("net: {}", phase.word(ports, now));
            next_word = Duration::from_secs((now.as_secs() / TELL + 1) * TELL);
        }
        let wake = ports.iter().filter_map(Port::deadline).fold(next_look.min(phase.end), Duration::min);
        wait::readable(ports.iter().flat_map(Port::sockets), wake.saturating_sub(now))?;
        let now = started.elapsed();
        let own: Vec<Hardware> = ports.iter().map(Port::mac).collect();
        for port in ports.iter_mut() {
            port.receive(links, now, &own);
        }
    }
}

fn with_lease(ports: &[Port], number: usize) -> Option<(usize, &Port, Lease)> {
    let port = ports.get(number)?;
    Some((number, port, port.lease()?))
}

/// What is waited for now.
struct Phase {
    carrier: bool,
    since: Duration,
    end: Duration,
}

impl Phase {
    fn of(ports: &[Port], settings: &Settings) -> Self {
        // The port that gets it last may be the one that is served.
        match ports.iter().filter_map(Port::first_carrier).max() {
            None => Self { carrier: false, since: Duration::ZERO, end: settings.carrier },
            Some(since) => Self { carrier: true, since, end: since.saturating_add(settings.dhcp) },
        }
    }

    fn word(&self, ports: &[Port], now: Duration) -> String {
        let waited = now.saturating_sub(self.since).as_secs_f32();
        let time = format!("{waited:.0} s of {} s", self.end.saturating_sub(self.since).as_secs());
        let named = |with: bool| {
            let titles: Vec<String> = ports.iter().filter(|p| p.has_carrier() == with).map(Port::title).collect();
            titles.join(", ")
        };
        match (ports.is_empty(), self.carrier, named(true), named(false)) {
            (true, ..) => format!("waiting for a network port to appear: {time}"),
            (_, false, _, without) => format!("waiting for carrier on {without}: {time}"),
            (_, true, with, without) if without.is_empty() => format!("waiting for a lease on {with}: {time}"),
            (_, true, with, without) if with.is_empty() => format!("waiting for carrier again on {without}: {time}"),
            (_, true, with, without) => format!("waiting for a lease on {with}, for carrier on {without}: {time}"),
        }
    }
}

/// Notes the carrier of all ports and takes in new ones; true when there were any.
fn look(
    links: &Links,
    settings: &Settings,
    firmware: Firmware,
    stack: &mut Stack,
    ports: &mut Vec<Port>,
    now: Duration,
) -> anyhow::Result<bool> {
    let listed = || links.list().context("listing network ports");
    let mut list = listed()?;
    while stack.build(links, &list)? {
        list = listed()?;
    }
    for port in ports.iter_mut() {
        let carrier = list.iter().any(|link| link.index == port.index() && link.carrier);
        port.carrier(links, carrier, now);
        port.join(stack.ports_below(port.name()));
    }
    let known = ports.len();
    for link in list {
        let Some(mac) = link.mac.filter(|_| ports.iter().all(|port| port.index() != link.index)) else { continue };
        let driver = link::driver(Path::new("/sys"), &link);
        if stack.is_below(&link) {
            continue;
        }
        if let Some(said) = Said::about(settings, &link, driver.as_deref(), stack.is_made(&link.name)) {
            let mac = said.ip.mac.map_or(mac, Hardware::Ethernet);
            let below = stack.ports_below(&link.name);
            ports.push(Port::open(links, link, driver, mac, said, below, (&settings.client_id, firmware)));
        }
    }
    if let Some(port) = ports.iter().find(|port| port.is_forbidden()) {
        let what = format!("this user may not bring up {} and listen on it", port.title());
        return Err(refuse(what, "run as root, or with CAP_NET_ADMIN and CAP_NET_RAW"));
    }
    Ok(ports.len() > known)
}
