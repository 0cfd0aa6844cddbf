//! The names, VLANs and bonds of the command line: given and made as the ports that they are about appear, and taken back.

use anyhow::Context;

use super::link::{Link, Links};
use super::rename::Names;
use super::{Bond, BondOption, Settings, Vlan, choose};
use crate::failure::{Advise, refuse};
use crate::mac::Hardware;
use crate::say;

/// What is to be made, and what is made.
#[derive(Debug)]
pub(super) struct Stack {
    names: Names,
    bonds: Vec<Bond>,
    vlans: Vec<Vlan>,
    /// Names, in the order in which they were made.
    made: Vec<String>,
    used: Vec<Used>,
}

/// A VLAN or bond that the boot made, for stage 2 to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Kernel name.
    pub name: String,
    /// Its number in the kernel.
    pub index: u32,
    /// What it is.
    pub kind: Kind,
    /// What it is on.
    pub on: Vec<Lower>,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A VLAN with this number.
    Vlan(u16),
    /// A bond, with its options and its MTU.
    Bond(Vec<BondOption>, Option<u16>),
}

/// A port or bond that a device is on, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lower {
    /// Kernel name.
    pub name: String,
    /// Its number in the kernel.
    pub index: u32,
    /// Its MAC.
    pub mac: Option<[u8; 6]>,
    /// The bond uses it as long as it works.
    pub primary: bool,
}

/// A port or bond that something is on.
#[derive(Clone, Debug)]
struct Used {
    /// As it was found.
    link: Link,
    /// What is on it.
    by: String,
}

impl Stack {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            names: Names::new(&settings.names),
            bonds: settings.bonds.clone(),
            vlans: settings.vlans.clone(),
            made: Vec::new(),
            used: Vec::new(),
        }
    }

    /// Names ports, and makes what can be made on the links that there are. True when that changed something: the list is
    /// stale then.
    ///
    /// # Errors
    /// The kernel refuses, or has a device of that name already.
    pub(super) fn build(&mut self, links: &Links, list: &[Link]) -> anyhow::Result<bool> {
        if self.names.apply(links, list)? {
            return Ok(true);
        }
        for number in 0..self.bonds.len() {
            if let Some(bond) = self.bonds.get(number).cloned()
                && self.build_bond(links, list, &bond)?
            {
                return Ok(true);
            }
        }
        for number in 0..self.vlans.len() {
            if let Some(vlan) = self.vlans.get(number).cloned()
                && self.build_vlan(links, list, &vlan)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn build_bond(&mut self, links: &Links, list: &[Link], bond: &Bond) -> anyhow::Result<bool> {
        let name = &bond.name;
        let is_port = |link: &&Link| {
            !link.enslaved
                && !self.is_made(&link.name)
                && bond.ports.iter().any(|word| choose::is_called(link, None, word))
        };
        let ports: Vec<Link> = list.iter().filter(is_port).cloned().collect();
        if !self.is_made(name) {
            if ports.is_empty() {
                return Ok(false);
            }
            refuse_existing(name, list)?;
            links.add_bond(bond).advise(format!("making the bond {name}"), missing("bonding", "bond="))?;
            say::info!("net: {name} is made of {}", bond.ports.join(", "));
            self.made.push(name.clone());
            return Ok(true);
        }
        let Some(index) = list.iter().find(|link| link.name == *name).map(|link| link.index) else { return Ok(false) };
        let changed = !ports.is_empty();
        for port in ports {
            let joining = || format!("making {} a port of {name}", port.name);
            // Before anything is tried: what fails half-way is put back too.
            self.used.push(Used { link: port.clone(), by: name.clone() });
            // The kernel takes ports that are down, and brings them up itself.
            if port.up {
                links.set_down(port.index).with_context(joining)?;
            }
            let member = links.set_controller(port.index, index);
            member.advise(joining(), "leave the port out of bond=, if its driver cannot be in a bond of this mode")?;
            if bond.options.iter().any(|option| option.is_primary(&port)) {
                links
                    .set_primary(index, port.index)
                    .with_context(|| format!("making {} the primary port", port.name))?;
            }
            say::info!("net: {} is a port of {name}", port.name);
        }
        Ok(changed)
    }

    fn build_vlan(&mut self, links: &Links, list: &[Link], vlan: &Vlan) -> anyhow::Result<bool> {
        let name = &vlan.name;
        let is_below = |link: &&Link| !link.enslaved && link.name != *name && choose::is_called(link, None, &vlan.over);
        let Some(below) = list.iter().find(is_below).filter(|_| !self.is_made(name)) else { return Ok(false) };
        refuse_existing(name, list)?;
        links
            .add_vlan(name, vlan.id, below.index)
            .advise(format!("making {name}, VLAN {} on {}", vlan.id, below.name), missing("8021q", "vlan="))?;
        self.made.push(name.clone());
        self.used.push(Used { link: below.clone(), by: name.clone() });
        if !below.up {
            links.set_up(below.index).with_context(|| format!("bringing up {} for {name}", below.name))?;
        }
        say::info!("net: {name} is VLAN {} on {}", vlan.id, below.name);
        Ok(true)
    }

    /// It is a VLAN or bond of ours.
    pub(super) fn is_made(&self, name: &str) -> bool {
        self.made.iter().any(|made| made == name)
    }

    /// It is, or will be, below a VLAN or in a bond, and so does not take part itself.
    pub(super) fn is_below(&self, link: &Link) -> bool {
        let called = |word: &String| !self.is_made(&link.name) && choose::is_called(link, None, word);
        self.used.iter().any(|used| used.link.index == link.index)
            || self.vlans.iter().any(|vlan| called(&vlan.over) || vlan.over == link.name)
            || self.bonds.iter().any(|bond| bond.ports.iter().any(called))
    }

    /// The ports of the machine that a device of ours is on, as they were found.
    pub(super) fn ports_below(&self, name: &str) -> Vec<Link> {
        let mut names = vec![name.to_owned()];
        let mut ports: Vec<Link> = Vec::new();
        // What is on something was made after it.
        for used in self.used.iter().rev().filter(|used| self.is_made(&used.by)) {
            if names.contains(&used.by) && self.is_made(&used.link.name) {
                names.push(used.link.name.clone());
            } else if names.contains(&used.by) {
                ports.push(used.link.clone());
            }
        }
        ports
    }

    /// What a port is made of: itself first, if it was made, and then what it is on.
    pub(super) fn devices(&self, port: &Link) -> Vec<Device> {
        let mut devices = Vec::new();
        let mut names = vec![(port.name.clone(), port.index)];
        while let Some((name, index)) = names.pop() {
            let vlan = self.vlans.iter().find(|vlan| vlan.name == name).map(|vlan| Kind::Vlan(vlan.id));
            let bond = || self.bonds.iter().find(|bond| bond.name == name);
            let bond_kind = || bond().map(|bond| Kind::Bond(bond.options.clone(), bond.mtu));
            let Some(kind) = vlan.or_else(bond_kind).filter(|_| self.is_made(&name)) else { continue };
            let below = self.used.iter().filter(|used| used.by == name).map(|used| &used.link);
            let on: Vec<Lower> = below
                .map(|link| Lower {
                    name: link.name.clone(),
                    index: link.index,
                    mac: link.mac.filter(|mac| !mac.is_infiniband()).map(Hardware::mac),
                    primary: bond().is_some_and(|bond| bond.options.iter().any(|option| option.is_primary(link))),
                })
                .collect();
            names.extend(on.iter().map(|lower| (lower.name.clone(), lower.index)));
            devices.push(Device { name, index, kind, on });
        }
        devices
    }

    /// What could not be made for want of ports, in words.
    pub(super) fn wanting(&self) -> Option<String> {
        let bonds = self.bonds.iter().map(|bond| (&bond.name, bond.ports.join(", ")));
        let vlans = self.vlans.iter().map(|vlan| (&vlan.name, vlan.over.clone()));
        let missing = bonds.chain(vlans).filter(|(name, _)| !self.is_made(name));
        let words: Vec<String> = missing.map(|(name, below)| format!("{name} cannot be made: no {below}")).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// Deletes what was made, and leaves the ports up or down, and called, as they were found.
    ///
    /// # Errors
    /// netlink refuses.
    pub(super) fn put_back(&mut self, links: &Links) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(name) = self.made.pop() {
            let list = links.list().context("listing network ports")?;
            let Some(index) = list.iter().find(|link| link.name == name).map(|link| link.index) else { continue };
            let deleted = links.delete(index).with_context(|| format!("deleting {name}"));
            say::info!("net: {name} is deleted again");
            outcome = outcome.and(deleted);
        }
        let bonds = &self.bonds;
        let of_bond = |by: &str| bonds.iter().any(|bond| bond.name == by);
        for Used { link, by } in self.used.drain(..).rev() {
            // The kernel takes down what leaves a bond.
            let put_back = match (link.up, of_bond(&by)) {
                (true, true) => links.set_up(link.index),
                (true, false) => Ok(()),
                (false, _) => links.set_down(link.index),
            };
            // A bond below a VLAN is gone by now.
            let gone = |error: &std::io::Error| error.raw_os_error() == Some(nix::libc::ENODEV);
            if let Err(error) = put_back
                && !gone(&error)
            {
                outcome = outcome.and(Err(error).with_context(|| format!("leaving {} as it was found", link.name)));
            }
        }
        outcome.and(self.names.put_back(links))
    }
}

impl BondOption {
    /// It makes this port the one that is used as long as it works.
    fn is_primary(&self, port: &Link) -> bool {
        self.name == "primary" && choose::is_called(port, None, &self.value)
    }
}

fn refuse_existing(name: &str, list: &[Link]) -> anyhow::Result<()> {
    if list.iter().any(|link| link.name == name) {
        let what = format!("there is a network device {name} already");
        return Err(refuse(what, "choose another name in bond= or vlan=; or load bonding with max_bonds=0"));
    }
    Ok(())
}

fn missing(module: &str, parameter: &str) -> String {
    format!(
        "the initramfs must hold the module {module} (modules.txt) where the kernel does not have it built in; else correct {parameter}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link::ethernet(index, name, [2, 0, 0, 0, 0, u8::try_from(index).unwrap()])
    }

    fn stack(line: &str) -> Stack {
        let parsed = crate::cmdline::parse(&format!("rootstream.image=http://m/i.tar {line}"));
        assert_eq!(parsed.mistakes, Vec::<String>::new());
        Stack::new(&parsed.config.net)
    }

    #[test]
    fn ports_below_something_do_not_take_part() {
        let mut stack = stack("bond=bond0:eth0,02-00-00-00-00-02 vlan=vlan5:bond0 vlan=eth2.7:eth2");
        let below = |stack: &Stack| {
            let links = [link(1, "eth0"), link(2, "eth1"), link(3, "eth2"), link(4, "eth3"), link(5, "bond0")];
            links.iter().filter(|link| stack.is_below(link)).map(|link| link.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(below(&stack), ["eth0", "eth1", "eth2", "bond0"]);
        assert!(stack.wanting().unwrap().starts_with("bond0 cannot be made: no eth0, 02-00-00-00-00-02; vlan5 cannot"));
        stack.made = vec!["bond0".to_owned(), "vlan5".to_owned()];
        assert_eq!(below(&stack), ["eth0", "eth1", "eth2", "bond0"]);
        assert_eq!(stack.wanting().as_deref(), Some("eth2.7 cannot be made: no eth2"));
    }

    #[test]
    fn the_ports_below_a_vlan_on_a_bond_are_those_of_the_bond() {
        let mut stack = stack("bond=bond0:eth0,eth1:mode=1,primary=eth1 vlan=vlan5:bond0 vlan=vlan6:eth2");
        stack.made = ["bond0", "vlan5", "vlan6"].map(str::to_owned).to_vec();
        let used = |link: Link, by: &str| Used { link, by: by.to_owned() };
        stack.used = vec![
            used(link(1, "eth0"), "bond0"),
            used(link(2, "eth1"), "bond0"),
            used(link(5, "bond0"), "vlan5"),
            used(link(3, "eth2"), "vlan6"),
        ];
        let below = |name: &str| stack.ports_below(name).iter().map(|link| link.index).collect::<Vec<_>>();
        assert_eq!(below("vlan5"), [2, 1]);
        assert_eq!(below("bond0"), [2, 1]);
        assert_eq!(below("vlan6"), [3]);
        assert!(below("eth0").is_empty());
        let devices = stack.devices(&link(9, "vlan5"));
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!((names, &devices[0].kind, devices[0].on[0].index), (vec!["vlan5", "bond0"], &Kind::Vlan(5), 5));
        let Kind::Bond(options, None) = &devices[1].kind else { panic!("{devices:?}") };
        assert_eq!((options[0].value.as_str(), options[2].name), ("active-backup", "miimon"));
        let ports: Vec<_> = devices[1].on.iter().map(|lower| (lower.name.as_str(), lower.primary)).collect();
        assert_eq!(ports, [("eth0", false), ("eth1", true)]);
        assert!(stack.devices(&link(3, "eth2")).is_empty());
    }
}
