//! The steps of a netboot, recognized in what consoles and servers say.

use std::time::{Duration, Instant};

/// Who says that a step was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Witness {
    /// The node's console.
    Console,
    /// A server's log.
    Server,
}

/// A step: its name, who reports it, and words that the report has in this order.
type Step = (&'static str, Witness, &'static [&'static str]);

/// In the order in which a node takes them; some are told in either of two ways.
const STEPS: [Step; 11] = [
    ("DHCP", Witness::Server, &["DHCPACK("]),
    ("DHCP", Witness::Server, &["DHCPACK on "]),
    ("TFTP", Witness::Server, &["sent ", "pxelinux.0 to "]),
    // tftpd tells nobody.
    ("TFTP", Witness::Console, &["tftp://", "pxelinux.0... ok"]),
    ("kernel", Witness::Console, &["Linux version "]),
    ("/init", Witness::Console, &["rootstream: stage 1"]),
    ("modules", Witness::Console, &["rootstream: modules: done"]),
    ("lease", Witness::Console, &["rootstream: network: done"]),
    ("image", Witness::Console, &["rootstream: image: done"]),
    ("switch_root", Witness::Console, &["rootstream: switch_root: "]),
    ("login", Witness::Console, &[" login: "]),
];

/// What a console says of a boot that will not get further.
const DEAD_ENDS: [&str; 4] =
    ["rootstream: boot failed", "Kernel panic - not syncing", "No bootable device", "Could not find kernel image"];

/// When one node reached each step.
#[derive(Debug)]
pub struct Timeline {
    node: String,
    powered: Instant,
    reached: Vec<(&'static str, Duration)>,
}

impl Timeline {
    /// The timeline of the node whose console is the source `node`, and which was powered on then.
    pub fn new(node: &str, powered: Instant) -> Self {
        Self { node: node.to_owned(), powered, reached: Vec::new() }
    }

    /// Takes in a line; answers with the step that it shows for the first time and the time since power-on.
    pub fn see(&mut self, source: &str, text: &str, at: Instant) -> Option<(&'static str, Duration)> {
        let witness = if source == self.node { Witness::Console } else { Witness::Server };
        let fresh = STEPS.iter().find(|(name, from, words)| {
            *from == witness && !self.reached.iter().any(|(seen, _)| seen == name) && in_order(text, words)
        });
        let step = (fresh?.0, at.saturating_duration_since(self.powered));
        self.reached.push(step);
        Some(step)
    }

    /// When the node reached a step, since power-on.
    pub fn when(&self, step: &str) -> Option<Duration> {
        self.reached.iter().find(|(name, _)| *name == step).map(|(_, at)| *at)
    }

    /// The steps that nobody has reported.
    pub fn missing(&self) -> Vec<&'static str> {
        names().into_iter().filter(|name| self.when(name).is_none()).collect()
    }
}

/// The steps' names, each once.
fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = STEPS.iter().map(|(name, ..)| *name).collect();
    names.dedup();
    names
}

/// Whether a console line tells that the boot will not get further.
pub fn is_dead_end(text: &str) -> bool {
    DEAD_ENDS.iter().any(|words| text.contains(words))
}

fn in_order(text: &str, words: &[&str]) -> bool {
    let mut rest = Some(text);
    for word in words {
        rest = rest.and_then(|text| text.split_once(word)).map(|(_, after)| after);
    }
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_told_by_its_markers() {
        let mut timeline = Timeline::new("n1", Instant::now());
        let mut told = Vec::new();
        for line in include_str!("../golden/boot.log").lines() {
            let (source, text) = line.split_once(": ").unwrap();
            told.extend(timeline.see(source, text, Instant::now()).map(|(step, _)| step));
            assert!(!is_dead_end(text), "{text}");
        }
        assert_eq!(told, names());
        assert!(timeline.missing().is_empty());
    }

    #[test]
    fn a_step_needs_its_own_witness() {
        let mut timeline = Timeline::new("n1", Instant::now());
        assert_eq!(timeline.see("n1", "DHCPACK(br0) 172.16.0.1", Instant::now()), None);
        assert_eq!(timeline.see("dnsmasq", "n1 login: ", Instant::now()), None);
        assert_eq!(timeline.missing(), names());
        let mut reached = |source, text| timeline.see(source, text, Instant::now()).map(|(step, _)| step);
        assert_eq!(reached("n1", "tftp://172.16.0.254/pxelinux.0... ok"), Some("TFTP"));
        assert_eq!(reached("dnsmasq", "sent /site/tftp/pxelinux.0 to 172.16.0.1"), None, "twice");
        assert_eq!(reached("dhcpd", "DHCPACK on 172.16.0.1 to 52:54:00:ac:10:01 via br0"), Some("DHCP"));
    }

    #[test]
    fn panic_on_the_command_line_is_none() {
        assert!(!is_dead_end("Command line: console=ttyS0 panic=10"));
        assert!(is_dead_end("Kernel panic - not syncing: Attempted to kill init!"));
    }
}
