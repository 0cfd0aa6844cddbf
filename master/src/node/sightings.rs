//! Who asked for an address, from dnsmasq's log with `log-dhcp`.

use std::collections::HashMap;

use serde::Serialize;

use crate::config::addresses::Mac;

/// Transactions that have said their vendor class and not yet what they want; dnsmasq writes the two in one go.
const OPEN: usize = 256;

/// A machine that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sighting {
    /// The port that it asked from.
    pub(super) mac: Mac,
    /// When it first asked, as in the log.
    pub(super) first: String,
    /// When it last asked.
    pub(super) last: String,
    /// How often.
    pub(super) count: u64,
    /// What it says that it is (option 60); what its firmware said rather than what came after.
    pub(super) vendor_class: Option<String>,
    /// Whether it wanted to boot.
    pub(super) boots: bool,
}

impl Sighting {
    /// The kind of firmware that wants to boot (RFC 4578, and those that were registered since).
    pub(super) fn firmware(&self) -> Option<&'static str> {
        let (client, rest) = self.vendor_class.as_deref()?.split_once(":Arch:")?;
        let number: u16 = rest.split(':').next()?.parse().ok()?;
        Some(match number {
            0 => "BIOS",
            6 => "UEFI 32-bit",
            7 | 9 if client == "PXEClient" => "UEFI",
            15 | 16 => "UEFI by HTTP",
            11 => "UEFI arm64",
            19 => "UEFI arm64 by HTTP",
            27 | 28 => "UEFI riscv64",
            _ => "other",
        })
    }
}

/// All who asked, in the order in which they first did.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    seen: Vec<Sighting>,
    by_mac: HashMap<Mac, usize>,
    classes: HashMap<String, String>,
}

impl Sightings {
    /// Takes a line of the log in; returns the machine that it is about when that asked for the first time.
    ///
    /// `Nov 23 05:52:12 dnsmasq-dhcp[24707]: 4110115343 DHCPDISCOVER(br0) 52:54:00:ac:10:09 no address available`
    pub(super) fn line(&mut self, line: &str) -> Option<Mac> {
        let (time, rest) = line.split_at_checked(15)?;
        let (_, rest) = rest.strip_prefix(" dnsmasq-dhcp[")?.split_once("]: ")?;
        let (transaction, rest) = rest.split_once(' ')?;
        if let Some(class) = rest.strip_prefix("vendor class: ") {
            if self.classes.len() >= OPEN {
                self.classes.clear();
            }
            self.classes.insert(transaction.to_owned(), class.trim().to_owned());
            return None;
        }
        let (_, asked) = rest.strip_prefix("DHCPDISCOVER(")?.split_once(") ")?;
        // The address that it would like may be in front.
        let mac = asked.split_whitespace().take(2).find_map(|word| word.parse::<Mac>().ok())?;
        let class = self.classes.remove(transaction);
        let boots = class.as_deref().is_some_and(|c| c.starts_with("PXEClient") || c.starts_with("HTTPClient"));
        let known = self.by_mac.get(&mac).and_then(|at| self.seen.get_mut(*at));
        if let Some(known) = known {
            time.clone_into(&mut known.last);
            known.count += 1;
            if class.is_some() && (boots || !known.boots) {
                known.vendor_class = class;
            }
            // That it wants to boot is news as well.
            let is_news = boots && !known.boots;
            known.boots |= boots;
            return is_news.then_some(mac);
        }
        self.by_mac.insert(mac, self.seen.len());
        let (first, last) = (time.to_owned(), time.to_owned());
        self.seen.push(Sighting { mac, first, last, count: 1, vendor_class: class, boots });
        Some(mac)
    }

    /// All of them, first come first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Sighting> {
        self.seen.iter()
    }

    /// The machine with that MAC.
    pub(super) fn get(&self, mac: Mac) -> Option<&Sighting> {
        self.by_mac.get(&mac).and_then(|at| self.seen.get(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of dnsmasq 2.90, with a range and without one.
    const LOG: &str = "\
Nov 23 05:52:11 dnsmasq-dhcp[24707]: read /tmp/nodes-site/run/dnsmasq.nodes
Nov 23 05:52:12 dnsmasq-dhcp[24707]: 4110115343 available DHCP subnet: 172.16.0.0/255.255.255.0
Nov 23 05:52:12 dnsmasq-dhcp[24707]: 4110115343 vendor class: PXEClient:Arch:00007:UNDI:003016
Nov 23 05:52:12 dnsmasq-dhcp[24707]: 4110115343 DHCPDISCOVER(br0) 52:54:00:ac:10:09 no address available
Nov 23 05:52:15 dnsmasq-dhcp[24707]: 2703302211 vendor class: udhcp 1.35.0
Nov 23 05:52:15 dnsmasq-dhcp[24707]: 2703302211 DHCPDISCOVER(br0) 172.16.0.7 52:54:00:ac:10:0a \n\
Nov 23 05:52:15 dnsmasq-dhcp[24707]: 2703302211 DHCPOFFER(br0) 172.16.0.242 52:54:00:ac:10:0a \n\
Nov 23 05:52:17 dnsmasq-dhcp[24707]: 4110115344 vendor class: rootstream DHCPDISCOVER(br0) 52:54:00:ac:10:0f
Nov 23 05:52:17 dnsmasq-dhcp[24707]: 4110115344 DHCPDISCOVER(br0) 52:54:00:ac:10:09 no address available
Nov 23 05:52:17 dnsmasq[24707]: exiting on receipt of SIGTERM
";

    #[test]
    fn each_machine_is_there_once_in_the_order_of_its_first_question() {
        let mut sightings = Sightings::default();
        let new: Vec<Mac> = LOG.lines().filter_map(|line| sightings.line(line)).collect();
        let [first, second] = &sightings.seen[..] else { panic!("{sightings:?}") };
        assert_eq!(new, [first.mac, second.mac]);
        assert_eq!(first.mac.to_string(), "52:54:00:ac:10:09");
        assert_eq!((first.first.as_str(), first.last.as_str()), ("Nov 23 05:52:12", "Nov 23 05:52:17"));
        assert_eq!((first.count, first.boots, first.firmware()), (2, true, Some("UEFI")));
        assert_eq!(second.vendor_class.as_deref(), Some("udhcp 1.35.0"));
        assert_eq!((second.count, second.boots, second.firmware()), (1, false, None));
    }

    #[test]
    fn any_line_may_come() {
        let mut sightings = Sightings::default();
        for line in
            ["", "é".repeat(9).as_str(), "Nov 23 05:52:12 dnsmasq-dhcp[", "x DHCPDISCOVER(br0) 52:54:00:ac:10:09"]
        {
            assert_eq!(sightings.line(line), None, "{line}");
        }
        // Firmware after an operating system: news.
        let one = |class: &str| format!("Nov 23 05:52:12 dnsmasq-dhcp[1]: 7 vendor class: {class}");
        let asks = "Nov 23 05:52:13 dnsmasq-dhcp[1]: 7 DHCPDISCOVER(br0) 52:54:00:ac:10:09 ";
        assert!(sightings.line(&one("udhcp")).is_none() && sightings.line(asks).is_some());
        assert!(sightings.line(&one("PXEClient:Arch:00000:UNDI:002001")).is_none() && sightings.line(asks).is_some());
        assert!(sightings.line(asks).is_none());
        assert_eq!(sightings.iter().next().unwrap().firmware(), Some("BIOS"));
    }
}
