//! `ifname=`: ports get the names that the command line has for them before anything else names them, and on leaving the
//! ones of before.

use anyhow::Context;

use super::choose;
use super::link::{Link, Links};
use crate::failure::{Advise, refuse};
use crate::say;

/// A name for a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// What the port is to be called.
    pub name: String,
    /// Its MAC, or over InfiniBand its GUID, as text.
    pub mac: String,
}

/// The names that are wanted, and those that were given.
#[derive(Debug)]
pub(super) struct Names {
    wanted: Vec<Rename>,
    /// Kernel number and name of before.
    given: Vec<(u32, String)>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Next<'a> {
    Nothing,
    Give(&'a Link, String),
    /// Why a name cannot be given, and what to do.
    Refuse(String, &'static str),
}

impl Names {
    pub(super) fn new(wanted: &[Rename]) -> Self {
        Self { wanted: wanted.to_vec(), given: Vec::new() }
    }

    /// Gives a port its name. True when that changed something: the list is stale then.
    ///
    /// # Errors
    /// The name or the MAC is another port's too, or the kernel refuses.
    pub(super) fn apply(&mut self, links: &Links, list: &[Link]) -> anyhow::Result<bool> {
        let (link, name) = match self.next(list) {
            Next::Nothing => return Ok(false),
            Next::Refuse(what, todo) => return Err(refuse(what, todo)),
            Next::Give(link, name) => (link, name),
        };
        let renaming = || format!("renaming {} to {name}", link.name);
        // Before it is tried: a port that has the name and does not come up again is put back too.
        self.given.push((link.index, link.name.clone()));
        set(links, link, &name).advise(renaming(), "look at the kernel log; or leave out ifname=")?;
        say::info!("net: {} is {name} now (ifname=)", link.name);
        if looks_like_the_kernels(&name) {
            say::warn!("net: ifname={name}: the kernel gives such names itself; better use one of another kind");
        }
        Ok(true)
    }

    fn next<'a>(&self, list: &'a [Link]) -> Next<'a> {
        for Rename { name, mac } in &self.wanted {
            // VLANs and bonds share the MAC of a port below them, and a bond's ports the MAC of the first.
            let has = |link: &&Link| {
                choose::is_port(link) && !link.enslaved && link.mac.is_some_and(|own| own.is_called(mac))
            };
            let ports: Vec<&Link> = list.iter().filter(has).collect();
            match ports.as_slice() {
                [port] if port.name == *name => {}
                [port] => {
                    if list.iter().any(|link| link.name == *name) {
                        let what = format!("ifname={name}:{mac}: another port is called {name} already");
                        return Next::Refuse(what, "choose a name that the kernel does not give itself, such as lan0");
                    }
                    return Next::Give(port, name.clone());
                }
                [] => {}
                ports => {
                    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
                    let what = format!("ifname={name}:{mac}: that is the MAC of {}", names.join(" and "));
                    return Next::Refuse(what, "leave out ifname= and call these ports by the kernel's names");
                }
            }
        }
        Next::Nothing
    }

    /// Gives ports the names of before.
    ///
    /// # Errors
    /// netlink refuses.
    pub(super) fn put_back(&mut self, links: &Links) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for (index, name) in self.given.drain(..).rev() {
            let list = links.list().context("listing network ports")?;
            let Some(link) = list.iter().find(|link| link.index == index && link.name != name) else { continue };
            outcome = outcome.and(set(links, link, &name).with_context(|| format!("renaming {} to {name}", link.name)));
        }
        outcome
    }
}

/// Renames a port, which most kernels do only while it is down.
fn set(links: &Links, link: &Link, name: &str) -> std::io::Result<()> {
    if !link.up {
        return links.set_name(link.index, name);
    }
    links.set_down(link.index)?;
    let renamed = links.set_name(link.index, name);
    links.set_up(link.index).and(renamed)
}

/// `eth0`, `ib1`: a port that appears later could be given the same.
fn looks_like_the_kernels(name: &str) -> bool {
    let number = ["eth", "ib", "usb", "wlan"].iter().find_map(|start| name.strip_prefix(start));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[(&str, &str)]) -> Names {
        let rename = |(name, mac): &(&str, &str)| Rename { name: (*name).to_owned(), mac: (*mac).to_owned() };
        Names::new(&wanted.iter().map(rename).collect::<Vec<_>>())
    }

    #[test]
    fn a_port_gets_its_name_once() {
        let first = Link::ethernet(2, "eth0", [2, 0, 0, 0, 0, 1]);
        let second = Link::ethernet(3, "eth1", [2, 0, 0, 0, 0, 2]);
        let vlan = Link { kind: Some("vlan".to_owned()), ..Link::ethernet(4, "vlan5", [2, 0, 0, 0, 0, 2]) };
        let names = names(&[("storage", "02:00:00:00:00:02"), ("boot", "02-00-00-00-00-09")]);
        let list = [first.clone(), second.clone(), vlan.clone()];
        assert_eq!(names.next(&list), Next::Give(&second, "storage".to_owned()));
        let renamed = Link { name: "storage".to_owned(), ..second };
        assert_eq!(names.next(&[first, renamed, vlan]), Next::Nothing);
    }

    #[test]
    fn a_name_or_a_mac_that_is_another_port_s_too_is_refused() {
        let first = Link::ethernet(2, "eth0", [2, 0, 0, 0, 0, 1]);
        let second = Link::ethernet(3, "eth1", [2, 0, 0, 0, 0, 2]);
        let taken = [first.clone(), second.clone()];
        let Next::Refuse(what, _) = names(&[("eth0", "02:00:00:00:00:02")]).next(&taken) else { panic!() };
        assert_eq!(what, "ifname=eth0:02:00:00:00:00:02: another port is called eth0 already");
        let twins = [first.clone(), Link { mac: first.mac, ..second }];
        let Next::Refuse(what, _) = names(&[("lan0", "02:00:00:00:00:01")]).next(&twins) else { panic!() };
        assert_eq!(what, "ifname=lan0:02:00:00:00:00:01: that is the MAC of eth0 and eth1");
        // A bond gives its ports the MAC of the first.
        let in_bond = twins.map(|link| Link { enslaved: true, ..link });
        assert_eq!(names(&[("lan0", "02:00:00:00:00:01")]).next(&in_bond), Next::Nothing);
    }

    #[test]
    fn names_of_the_kernels_kind_are_known() {
        for (name, expected) in [("eth7", true), ("ib0", true), ("eth", false), ("eth0a", false), ("lan0", false)] {
            assert_eq!(looks_like_the_kernels(name), expected, "{name}");
        }
    }
}
