//! One node, from power-on to a command over ssh.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::enclosure::Missing;
use crate::evidence::{Booted, Evidence, Visit, gather};
use crate::firmware::Firmware;
use crate::machine::Machine;
use crate::node::Node;
use crate::patience::Patience;
use crate::servers::Servers;
use crate::site::{self, Member, Site};
use crate::timeline::{Timeline, is_dead_end};
use crate::transcript::{Line, Transcript};
use crate::{bmc, hold, network, ssh};

const MEMORY_MIB: u32 = 1024;

/// What to boot, and what to do with it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The nodes' firmware.
    pub firmware: Firmware,
    /// How many nodes boot at once.
    pub nodes: u8,
    /// QEMU's accelerator.
    pub accel: String,
    /// Whose servers they boot from: a value of SERVERS.
    pub servers: String,
    /// Who powers them on: a value of POWER.
    pub power: String,
    /// Leave the nodes running, with the user on the first one's console.
    pub hold: bool,
    /// A process outside that is in the lab's network namespace.
    pub outside: u32,
}

/// Boots nodes from the site's master, in the namespaces of this process, and returns what they really
/// were and how long it took from power-on to the last one's login prompt. The timeline goes to stdout.
///
/// # Errors
/// Any step fails. The consoles' last lines are on stderr then, and the error names the logs.
pub fn run(site: &Site, request: &Request) -> Result<(Evidence, Duration)> {
    let plain = request.nodes == 1 && request.firmware == Firmware::Bios && !request.hold;
    ensure!(request.power == "lab" || plain, "POWER={} is for one node with FIRMWARE=bios and HOLD=0", request.power);
    let members: Vec<Member> = (1..=request.nodes).map(Member::new).collect();
    network::bridge(site::BRIDGE, &site::ADDRESSES)
        .and_then(|()| members.iter().try_for_each(|node| network::tap_on(&node.tap, site::BRIDGE)))
        .context(Missing("this machine gives the lab no bridge and tap (/dev/net/tun)".to_owned()))?;
    let transcript = Transcript::default();
    let servers = Servers::start(&request.servers, site, &transcript)?;
    let mut powered = None;
    let mut machines = Vec::new();
    for member in &members {
        let node = Node::new(&member.name).memory(MEMORY_MIB).accel(&request.accel).firmware(request.firmware);
        let node = node.nic(&member.tap, &member.mac);
        machines.push(match request.power.as_str() {
            "lab" => node.power_on(&site.logs(), &transcript)?,
            bmc => {
                let (machine, by) = bmc::node::power_on(bmc, node, &member.mac, site, &transcript)?;
                powered = Some(by);
                machine
            }
        });
    }
    let outcome = boot(site, &servers, request.firmware, &members, &mut machines, &transcript);
    let seen = |booted| powered.as_mut().map_or(Ok(()), bmc::node::Powered::finish).map(|()| booted);
    let outcome = outcome.and_then(seen);
    if outcome.is_err() {
        machines.iter().for_each(|machine| eprintln!("{}", machine.last_words()));
    }
    let outcome = outcome.with_context(|| {
        let logs = [site.logs(), site.folder().join("log")].map(|folder| folder.display().to_string());
        let names: Vec<&str> = members.iter().map(|node| node.name.as_str()).collect();
        format!("booting {} (logs: {})", names.join(", "), logs.join(", "))
    });
    if let (true, Some(node), Some(machine)) = (request.hold, members.first(), machines.first()) {
        if let Err(error) = &outcome {
            eprintln!("{error:#}");
        }
        invite(site, node, request.outside);
        hold::attach(machine.attach()?)?;
    }
    let outcome = outcome?;
    drop(machines);
    servers.stop(&site.logs())?;
    Ok(outcome)
}

fn boot(
    site: &Site,
    servers: &Servers,
    firmware: Firmware,
    members: &[Member],
    machines: &mut [Machine],
    transcript: &Transcript,
) -> Result<(Evidence, Duration)> {
    let several = members.len() > 1;
    let timeline = |(node, machine): (&Member, &Machine)| Timeline::new(node.clone(), firmware, machine.powered());
    let mut timelines: Vec<Timeline> = members.iter().zip(machines.iter()).map(timeline).collect();
    let tftp = format!("{}/", site.folder().join("tftp").display());
    for node in members {
        tell(several, node, "power-on", Duration::ZERO, &format!("{} {}", node.name, node.mac));
    }
    let login = transcript.wait(
        Patience::with(members.len()),
        || machines.iter_mut().try_for_each(Machine::alive),
        |line| {
            if is_dead_end(&line.text) && members.iter().any(|node| node.name == line.source) {
                // The reason and what to do about it come in the lines after it.
                std::thread::sleep(Duration::from_secs(2));
                bail!("{} says: {}", line.source, line.text.trim());
            }
            for timeline in &mut timelines {
                look(several, timeline, line, &tftp);
            }
            // The last one of them, once all are there.
            let logins: Option<Vec<Duration>> = timelines.iter().map(|timeline| timeline.when("login")).collect();
            Ok(logins.and_then(|logins| logins.into_iter().max()))
        },
    )?;
    for timeline in &timelines {
        let (missing, name) = (timeline.missing(), &timeline.node().name);
        ensure!(missing.is_empty(), "nobody reported these steps of {name}: {}", missing.join(", "));
    }
    let mut visits = Vec::new();
    for timeline in &timelines {
        visits.push(visit(site, timeline, members.len())?);
        let detail = visits.last().map_or("", |visit| visit.uname.as_str());
        tell(several, timeline.node(), "ssh", timeline.powered().elapsed(), detail);
    }
    let booted = members.iter().zip(machines).zip(&visits);
    let mut booted: Vec<Booted<'_>> = booted.map(|((node, machine), visit)| Booted { node, machine, visit }).collect();
    Ok((gather(transcript, servers, &mut booted)?, login))
}

/// Asks a node over ssh what it is.
fn visit(site: &Site, timeline: &Timeline, nodes: usize) -> Result<Visit> {
    let Member { name, address, .. } = timeline.node();
    let output = ssh::run(&site.key(), address, Visit::COMMAND, Patience::with(nodes))?;
    let visit = Visit::parse(&output).with_context(|| format!("{name} answered over ssh:\n{output}"))?;
    ensure!(visit.hostname == *name, "the node is named {}, not {name}", visit.hostname);
    let leased: Vec<_> = visit.leased.iter().map(ToString::to_string).collect();
    ensure!(
        visit.setup == "configured" && leased == [address.as_str()],
        "systemd-networkd holds no lease of {address} in {name}: its port is {}, its addresses by DHCP are {leased:?}",
        visit.setup
    );
    Ok(visit)
}

/// Prints the step that a line shows.
fn look(several: bool, timeline: &mut Timeline, line: &Line, tftp: &str) {
    if let Some((step, at)) = timeline.see(&line.source, &line.text, line.at) {
        tell(several, timeline.node(), step, at, &detail(&line.text, tftp));
    }
}

/// A log line without its own stamp, which is the kernel's or the server's clock, and with boot files as
/// nodes ask for them: relative to the folder `tftp`.
fn detail(line: &str, tftp: &str) -> String {
    let said = line.rsplit_once("]: ").or_else(|| line.split_once("] ")).map_or(line, |(_, said)| said);
    said.trim().replace(tftp, "")
}

/// One line of the timeline; whose, where there are several nodes.
fn tell(several: bool, node: &Member, step: &str, at: Duration, detail: &str) {
    let detail: String = detail.chars().take(90).collect();
    let whose = if several { format!("{}  ", node.name) } else { String::new() };
    println!("{:7.2} s  {whose}{step:<12} {detail}", at.as_secs_f64());
}

fn invite(site: &Site, node: &Member, outside: u32) {
    let Member { name, address, .. } = node;
    let ssh = ssh::arguments(&site.key(), address).join(" ");
    eprintln!(
        "\n{name} keeps running. Its console is below; Ctrl-] ends it. No password opens it: log in by ssh from another terminal:"
    );
    eprintln!("  nsenter --target {outside} --net -- ssh {ssh}\n");
}

#[cfg(test)]
mod tests {
    use super::detail;

    #[test]
    fn stamps_and_folders_are_left_out() {
        let dnsmasq = "Nov 22 15:59:36 dnsmasq-dhcp[59]: 3747838262 DHCPACK(br0) 172.16.0.1 52:54:00:ac:10:01 n1";
        assert_eq!(detail(dnsmasq, "/lab/site/tftp/"), "3747838262 DHCPACK(br0) 172.16.0.1 52:54:00:ac:10:01 n1");
        assert_eq!(
            detail("Probing EDD... o[    0.000000] Linux version 6.1.0", "/lab/site/tftp/"),
            "Linux version 6.1.0"
        );
        assert_eq!(
            detail("[    2.764297] rootstream: image: [1] done", "/lab/site/tftp/"),
            "rootstream: image: [1] done"
        );
        assert_eq!(detail("n1 login: ", "/lab/site/tftp/"), "n1 login:");
        let sent = "Nov 22 15:59:37 dnsmasq-tftp[59]: sent /lab/site/tftp/pxelinux.0 to 172.16.0.1";
        assert_eq!(detail(sent, "/lab/site/tftp/"), "sent pxelinux.0 to 172.16.0.1");
    }
}
