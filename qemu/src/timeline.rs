//! The steps of a netboot, recognized in what consoles and servers say.

use std::time::{Duration, Instant};

use crate::classic;
use crate::firmware::Firmware;
use crate::site::Member;

/// The DHCP and TFTP server's log.
pub const DNSMASQ: &str = "dnsmasq";
/// The HTTP server's log.
pub const HTTP: &str = "http";

/// A step: its name, and words of the console that show it.
type Step = (&'static str, &'static str);

/// What the node's console shows, in the order in which a node takes them.
const STEPS: [Step; 7] = [
    ("kernel", "Linux version "),
    ("/init", "rootstream: stage 1"),
    ("modules", "rootstream: modules: done"),
    ("lease", "rootstream: network: done"),
    ("image", "rootstream: image: done"),
    ("switch_root", "rootstream: switch_root: "),
    ("login", " login: "),
];

/// What a console says of a boot that will not get further.
const DEAD_ENDS: [&str; 4] =
    ["rootstream: boot failed", "Kernel panic - not syncing", "No bootable device", "Could not find kernel image"];

/// When one node reached each step.
#[derive(Debug)]
pub struct Timeline {
    node: Member,
    firmware: Firmware,
    powered: Instant,
    reached: Vec<(&'static str, Duration)>,
}

impl Timeline {
    /// The timeline of a node which was powered on then.
    pub fn new(node: Member, firmware: Firmware, powered: Instant) -> Self {
        Self { node, firmware, powered, reached: Vec::new() }
    }

    /// Whose it is.
    pub fn node(&self) -> &Member {
        &self.node
    }

    /// When the power went on.
    pub fn powered(&self) -> Instant {
        self.powered
    }

    /// Takes in a line; answers with the step that it shows for the first time and the time since power-on.
    pub fn see(&mut self, source: &str, text: &str, at: Instant) -> Option<(&'static str, Duration)> {
        let name = self.shown(source, text)?;
        let step = (name, at.saturating_duration_since(self.powered));
        self.reached.push(step);
        Some(step)
    }

    /// The step that a line shows, where it was not reached before.
    fn shown(&self, source: &str, text: &str) -> Option<&'static str> {
        let fresh = |name: &&'static str| self.when(name).is_none();
        if source == self.node.name {
            return STEPS.iter().filter(|(_, words)| text.contains(words)).map(|(name, _)| *name).find(fresh);
        }
        let is_lease = (source == DNSMASQ && text.contains("DHCPACK(") && text.contains(&self.node.mac))
            || classic::leased(source, text, &self.node.mac);
        let [loader, _] = self.firmware.files(&self.node.dashed());
        let step = if is_lease { Some("DHCP") } else { None };
        let loaded = || fetched(source, text, &loader, &self.node.address).then(|| self.firmware.protocol());
        step.or_else(loaded).filter(fresh)
    }

    /// When the node reached a step, since power-on.
    pub fn when(&self, step: &str) -> Option<Duration> {
        self.reached.iter().find(|(name, _)| *name == step).map(|(_, at)| *at)
    }

    /// The steps that nobody has reported.
    pub fn missing(&self) -> Vec<&'static str> {
        let steps = ["DHCP", self.firmware.protocol()].into_iter().chain(STEPS.map(|(name, _)| name));
        steps.filter(|name| self.when(name).is_none()).collect()
    }
}

/// Whether a console line tells that the boot will not get further.
pub fn is_dead_end(text: &str) -> bool {
    DEAD_ENDS.iter().any(|words| text.contains(words))
}

/// Whether a line of a server's log tells that the node at `address` got all of a file, as
/// [`Firmware::files`] names it.
pub fn fetched(source: &str, text: &str, file: &str, address: &str) -> bool {
    if source == DNSMASQ {
        let sent = text.split_once("]: sent ").and_then(|(_, rest)| rest.split_once(" to "));
        return sent.is_some_and(|(path, to)| to == address && path.ends_with(&format!("/{file}")));
    }
    if classic::fetched(source, text, file, address) {
        return true;
    }
    let words: Vec<&str> = text.split(' ').collect();
    let is_get = |words: &[&str]| words.get(1..4) == Some(&[address, "GET", file]);
    source == HTTP
        && is_get(&words)
        && words.last() == Some(&"done")
        && words.get(5).is_some_and(|s| s.starts_with('2'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(firmware: Firmware) -> Timeline {
        Timeline::new(Member::new(1), firmware, Instant::now())
    }

    #[test]
    fn a_boot_is_told_by_its_markers() {
        let mut timeline = timeline(Firmware::Bios);
        let mut told = Vec::new();
        for line in include_str!("../golden/boot.log").lines() {
            let (source, text) = line.split_once(": ").unwrap();
            told.extend(timeline.see(source, text, Instant::now()).map(|(step, _)| step));
            assert!(!is_dead_end(text), "{text}");
        }
        assert_eq!(told[..2], ["DHCP", "TFTP"]);
        assert_eq!(told[2..], STEPS.map(|(name, _)| name));
        assert!(timeline.missing().is_empty());
    }

    #[test]
    fn a_step_needs_its_own_witness() {
        let mut timeline = timeline(Firmware::Bios);
        let at = Instant::now();
        assert_eq!(timeline.see("n1", "DHCPACK(br0) 172.16.0.1 52:54:00:ac:10:01", at), None);
        assert_eq!(timeline.see("dnsmasq", "1 DHCPACK(br0) 172.16.0.2 52:54:00:ac:10:02 n2", at), None);
        assert_eq!(timeline.see("dnsmasq", "n1 login: ", at), None);
        assert_eq!(timeline.see("n2", "n2 login: ", at), None);
        assert_eq!(timeline.see("dnsmasq", "tftp[9]: sent /t/pxelinux.0 to 172.16.0.11", at), None);
        assert_eq!(timeline.missing().len(), 2 + STEPS.len());
    }

    #[test]
    fn a_loader_by_http_is_one_that_came_whole() {
        let mut timeline = timeline(Firmware::UefiHttp);
        let mut step = |source: &str, line: &str| timeline.see(source, line, Instant::now()).map(|(step, _)| step);
        let line = |method: &str, end: &str| {
            format!("2026-11-23T06:00:00.000Z 172.16.0.1 {method} /boot/ipxe/snponly.efi - 200 173792 0.010 {end}")
        };
        assert_eq!(step("http", &line("HEAD", "done")), None);
        assert_eq!(step("http", &line("GET", "broken-off")), None);
        assert_eq!(step("dnsmasq", "tftp[9]: sent /site/tftp/ipxe/snponly.efi to 172.16.0.1"), None);
        assert_eq!(step("http", &line("GET", "done")), Some("HTTP"));
    }

    #[test]
    fn panic_on_the_command_line_is_none() {
        assert!(!is_dead_end("Command line: console=ttyS0 panic=10"));
        assert!(is_dead_end("Kernel panic - not syncing: Attempted to kill init!"));
    }
}
