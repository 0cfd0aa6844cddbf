//! Why there is no lease, in words for the person in front of the console.

use std::convert::Infallible;
use std::io;

use super::Settings;
use super::engine::Lack;
use super::link::Link;
use super::port::Port;
use super::stack::Stack;
use crate::failure::Advise;

/// The error of a race that nobody won. `list` says which links the kernel has.
pub(super) fn no_lease(
    ports: &[Port],
    settings: &Settings,
    stack: &Stack,
    list: impl FnOnce() -> io::Result<Vec<Link>>,
) -> anyhow::Error {
    if ports.is_empty() {
        return no_port(settings, stack, &list().unwrap_or_default());
    }
    let stories: Vec<String> = ports.iter().map(Port::story).chain(stack.wanting()).collect();
    let with_carrier: Vec<&Port> = ports.iter().filter(|port| port.first_carrier().is_some()).collect();
    let (what, todo) = if with_carrier.is_empty() {
        (
            format!("no carrier on {}", titles(ports)),
            format!(
                "check the cable, and that the switch port is enabled at a speed this port knows; \
                 rootstream.carrier= waits longer than {} s",
                settings.carrier.as_secs()
            ),
        )
    } else if let Some((port, (address, by))) =
        with_carrier.iter().find_map(|port| port.conflict().map(|conflict| (port, conflict)))
    {
        (
            format!("the address {address} of ip= for {} is in use by {by}", port.title()),
            "find that machine by its MAC in the switch and take the address from it, or correct ip=".to_owned(),
        )
    } else if let Some(Some(lack)) = with_carrier.iter().map(|port| port.lack()).min() {
        unanswered(lack, &with_carrier, settings)
    } else {
        (
            format!("no usable lease on {}", titles(with_carrier)),
            "correct what the server or router offers, or switch off one that is not the site's own".to_owned(),
        )
    };
    let Err(error) = Err::<Infallible, _>(anyhow::anyhow!(stories.join("; "))).advise(what, todo);
    error
}

/// What is said, and what is to be done, where nobody answered on these ports.
fn unanswered(lack: Lack, ports: &[&Port], settings: &Settings) -> (String, String) {
    let titles = titles(ports.iter().copied());
    let macs: Vec<String> = ports.iter().map(|port| port.mac().to_string()).collect();
    let knows = format!("runs for this network and knows {}", macs.join(", "));
    let (what, check) = match lack {
        Lack::Dhcp => ("no DHCP server answered", format!("that a DHCP server {knows}")),
        Lack::Dhcp6 => (
            "no DHCPv6 server answered",
            format!("that a DHCPv6 server {knows} by its DUID-LL, 00:03:00:01 and the MAC"),
        ),
        Lack::Router => (
            "no router advertised",
            "that something advertises on this network (radvd, enable-ra of dnsmasq, a router)".to_owned(),
        ),
        Lack::LinkLocal => {
            return (
                format!("no address on the link for {titles}"),
                "look for another machine with the same MAC, and at the kernel log for what is wrong with IPv6"
                    .to_owned(),
            );
        }
    };
    let todo = format!(
        "check {check}, that the switch port is in the right VLAN and forwards at once (spanning tree); \
         rootstream.dhcp= waits longer than {} s",
        settings.dhcp.as_secs()
    );
    (format!("{what} on {titles}"), todo)
}

fn no_port(settings: &Settings, stack: &Stack, list: &[Link]) -> anyhow::Error {
    let names: Vec<String> = list
        .iter()
        .map(|link| match link.mac {
            Some(mac) => format!("{} ({mac})", link.name),
            None => link.name.clone(),
        })
        .collect();
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let devices = settings.ip.iter().filter_map(|ip| ip.device.clone());
    let wanted: Vec<String> = settings.ports.iter().cloned().chain(devices).collect();
    let name_one = "name one of the ports shown, its MAC or its driver, in ip=, rootstream.net=, vlan= or bond=; names that \
                    udev gives, such as eno1, are not known yet here; or add the missing driver to modules.txt";
    let (what, todo) = if let Some(wanting) = stack.wanting() {
        (wanting, name_one.to_owned())
    } else if wanted.is_empty() {
        (
            "no network port appeared".to_owned(),
            "add the driver of this machine's network card to modules.txt or rootstream.modules=".to_owned(),
        )
    } else {
        (format!("no network port matches {}", wanted.join(", ")), name_one.to_owned())
    };
    let why = format!("after {} s the kernel shows {names}", settings.carrier.as_secs());
    let Err(error) = Err::<Infallible, _>(anyhow::anyhow!(why)).advise(what, todo);
    error
}

fn titles<'a>(ports: impl IntoIterator<Item = &'a Port>) -> String {
    ports.into_iter().map(Port::title).collect::<Vec<_>>().join(", ")
}
