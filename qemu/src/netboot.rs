//! One node, from power-on to a command over ssh.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::enclosure::Missing;
use crate::evidence::{Evidence, Visit, gather};
use crate::machine::Machine;
use crate::node::Node;
use crate::patience::Patience;
use crate::servers::Servers;
use crate::site::{self, Site};
use crate::timeline::{Timeline, is_dead_end};
use crate::transcript::{Line, Transcript};
use crate::{bmc, hold, network, ssh};

const TAP: &str = "tap0";
const MEMORY_MIB: u32 = 1024;

/// What to boot, and what to do with it.
#[derive(Clone, Debug)]
pub struct Request {
    /// QEMU's accelerator.
    pub accel: String,
    /// Whose servers it boots from: a value of SERVERS.
    pub servers: String,
    /// Who powers it on: a value of POWER.
    pub power: String,
    /// Leave the node running, with the user on its console.
    pub hold: bool,
    /// A process outside that is in the lab's network namespace.
    pub outside: u32,
}

/// Boots a node from the site's master, in the namespaces of this process, and returns what it really
/// was and how long it took from power-on to the login prompt. The timeline goes to stdout.
///
/// # Errors
/// Any step fails. The console's last lines are on stderr then, and the error names the logs.
pub fn run(site: &Site, request: &Request) -> Result<(Evidence, Duration)> {
    network::bridge(site::BRIDGE, &site::ADDRESSES)
        .and_then(|()| network::tap_on(TAP, site::BRIDGE))
        .context(Missing("this machine gives the lab no bridge and tap (/dev/net/tun)".to_owned()))?;
    let transcript = Transcript::default();
    let servers = Servers::start(&request.servers, site, &transcript)?;
    let node = Node::new(site::NODE).memory(MEMORY_MIB).accel(&request.accel).nic(TAP, site::NODE_MAC);
    let (mut machine, mut powered) = match request.power.as_str() {
        "lab" => (node.power_on(&site.logs(), &transcript)?, None),
        bmc => {
            let (machine, powered) = bmc::node::power_on(bmc, node, site::NODE_MAC, site, &transcript)?;
            (machine, Some(powered))
        }
    };
    let outcome = boot(site, &servers, &mut machine, &transcript);
    let seen = |booted| powered.as_mut().map_or(Ok(()), bmc::node::Powered::finish).map(|()| booted);
    let outcome = outcome.and_then(seen);
    if outcome.is_err() {
        eprintln!("{}", machine.last_words());
    }
    let outcome = outcome.with_context(|| {
        let logs = [site.logs(), site.folder().join("log")].map(|folder| folder.display().to_string());
        format!("booting {} (logs: {})", site::NODE, logs.join(", "))
    });
    if request.hold {
        if let Err(error) = &outcome {
            eprintln!("{error:#}");
        }
        invite(site, request.outside);
        hold::attach(machine.attach()?)?;
    }
    let outcome = outcome?;
    drop(machine);
    servers.stop(&site.logs())?;
    Ok(outcome)
}

fn boot(
    site: &Site,
    servers: &Servers,
    machine: &mut Machine,
    transcript: &Transcript,
) -> Result<(Evidence, Duration)> {
    let mut timeline = Timeline::new(site::NODE, machine.powered());
    let tftp = format!("{}/", site.folder().join("tftp").display());
    tell("power-on", Duration::ZERO, &format!("{} {}", site::NODE, site::NODE_MAC));
    let login = transcript.wait(
        Patience::with(1),
        || machine.alive(),
        |line| {
            if line.source == site::NODE && is_dead_end(&line.text) {
                // The reason and what to do about it come in the lines after it.
                std::thread::sleep(Duration::from_secs(2));
                bail!("the node says: {}", line.text.trim());
            }
            Ok(look(&mut timeline, line, &tftp))
        },
    )?;
    let missing = timeline.missing();
    ensure!(missing.is_empty(), "nobody reported these steps: {}", missing.join(", "));
    let output = ssh::run(&site.key(), site::NODE_ADDRESS, Visit::COMMAND)?;
    let visit = Visit::parse(&output).with_context(|| format!("the node answered over ssh:\n{output}"))?;
    tell("ssh", machine.powered().elapsed(), &visit.uname);
    ensure!(visit.hostname == site::NODE, "the node is named {}, not {}", visit.hostname, site::NODE);
    let leased: Vec<_> = visit.leased.iter().map(ToString::to_string).collect();
    ensure!(
        visit.setup == "configured" && leased == [site::NODE_ADDRESS],
        "systemd-networkd holds no lease of {} in the node: its port is {}, its addresses by DHCP are {leased:?}",
        site::NODE_ADDRESS,
        visit.setup
    );
    Ok((gather(transcript, servers, machine, TAP, &visit)?, login))
}

/// Prints the step that a line shows, and answers with the last one's time.
fn look(timeline: &mut Timeline, line: &Line, tftp: &str) -> Option<Duration> {
    let (step, at) = timeline.see(&line.source, &line.text, line.at)?;
    tell(step, at, &detail(&line.text, tftp));
    (step == "login").then_some(at)
}

/// A log line without its own stamp, which is the kernel's or the server's clock, and with boot files as
/// nodes ask for them: relative to the folder `tftp`.
fn detail(line: &str, tftp: &str) -> String {
    let said = line.rsplit_once("]: ").or_else(|| line.split_once("] ")).map_or(line, |(_, said)| said);
    said.trim().replace(tftp, "")
}

fn tell(step: &str, at: Duration, detail: &str) {
    let detail: String = detail.chars().take(90).collect();
    println!("{:7.2} s  {step:<12} {detail}", at.as_secs_f64());
}

fn invite(site: &Site, outside: u32) {
    let ssh = ssh::arguments(&site.key(), site::NODE_ADDRESS).join(" ");
    eprintln!(
        "\nThe node keeps running. Its console is below; Ctrl-] ends it. No password opens it: log in by ssh from another terminal:"
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
