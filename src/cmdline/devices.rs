//! `ifname=`, `vlan=` and `bond=` as dracut.cmdline(7) has them.

use crate::mac;
use crate::net::{Bond, BondOption, Rename, Vlan};

/// The longest name of a network device (IFNAMSIZ, with its NUL).
const LONGEST_NAME: usize = 15;

/// Reads `NAME:PORT`; NAME ends in the VLAN's number: `vlan0005`, `vlan5`, `eth0.0005`, `eth0.5`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn vlan(text: &str) -> Result<Vlan, String> {
    let Some((vlan, over)) = text.split_once(':').filter(|(_, over)| !over.is_empty()) else {
        return Err("not NAME:PORT, such as vlan5:eth0".to_owned());
    };
    let number = vlan.strip_prefix("vlan").or_else(|| vlan.rsplit_once('.').map(|(_, number)| number));
    let digits = number.filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(digits) = digits else {
        return Err(format!("{vlan} does not end in the VLAN's number, as vlan5 and eth0.5 do"));
    };
    let id = digits.parse().ok().filter(|id| (1..=4094).contains(id));
    let id = id.ok_or_else(|| format!("{digits} is no VLAN: 1 to 4094"))?;
    Ok(Vlan { name: name(vlan)?, id, over: over.to_owned() })
}

/// Reads `NAME:MAC`, the MAC with colons or dashes; `others` are those read before.
///
/// # Errors
/// What is wrong with it.
pub(super) fn rename(text: &str, others: &[Rename]) -> Result<Rename, String> {
    let length = |mac: &str| mac::bytes(mac).map_or(0, |bytes| bytes.len());
    let Some((new, mac)) = text.split_once(':').filter(|(_, mac)| matches!(length(mac), 6 | 8)) else {
        return Err("not NAME:MAC, such as lan0:52:54:00:ac:10:01".to_owned());
    };
    let rename = Rename { name: name(new)?, mac: mac.to_lowercase().replace('-', ":") };
    match others.iter().find(|other| other.name == rename.name || other.mac == rename.mac) {
        Some(other) if *other != rename => Err(format!("{} is {} already", other.mac, other.name)),
        _ => Ok(rename),
    }
}

/// Reads `NAME[:PORT,PORT…[:OPTION=VALUE,…[:MTU]]]`; alone it is `bond0:eth0,eth1`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn bond(text: &str) -> Result<Bond, String> {
    let mut fields = text.splitn(4, ':').map(|field| Some(field).filter(|field| !field.is_empty()));
    let mut field = || fields.next().flatten();
    let bond = name(field().unwrap_or("bond0"))?;
    let ports = super::values::list(field().unwrap_or("eth0,eth1"))?;
    let options = BondOption::parse_all(field().unwrap_or_default())?;
    let mtu = field().map(super::ip::mtu_of).transpose()?;
    if ports.contains(&bond) {
        return Err(format!("{bond} cannot be a port of itself"));
    }
    Ok(Bond { name: bond, ports, options, mtu })
}

/// What the kernel takes as the name of a device.
fn name(text: &str) -> Result<String, String> {
    let fits = text.len() <= LONGEST_NAME
        && !matches!(text, "." | "..")
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
    if fits { Ok(text.to_owned()) } else { Err(format!("{text} is no name for a network device: 15 letters at most")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_the_number_of_the_vlan() {
        for (text, name, id) in [
            ("vlan0005:eth0", "vlan0005", 5),
            ("vlan5:eth0", "vlan5", 5),
            ("eth0.0005:eth0", "eth0.0005", 5),
            ("eth0.5:eth0", "eth0.5", 5),
            ("a.b.4094:eth0", "a.b.4094", 4094),
        ] {
            let expected = Vlan { name: name.to_owned(), id, over: "eth0".to_owned() };
            assert_eq!(vlan(text), Ok(expected), "{text}");
        }
        for (text, why) in [
            ("vlan5", "not NAME:PORT"),
            ("vlan5:", "not NAME:PORT"),
            ("storage:eth0", "does not end in the VLAN's number"),
            ("vlan:eth0", "does not end in the VLAN's number"),
            ("eth0.x5:eth0", "does not end in the VLAN's number"),
            ("vlan0:eth0", "no VLAN: 1 to 4094"),
            ("vlan4095:eth0", "no VLAN: 1 to 4094"),
            ("vlan99999:eth0", "no VLAN: 1 to 4094"),
            ("enp129s0f0np0.5:enp129s0f0np0", ""),
            ("enp129s0f0np01.5:eth0", "15 letters"),
        ] {
            match vlan(text) {
                Ok(_) => assert!(why.is_empty(), "{text}"),
                Err(message) => assert!(!why.is_empty() && message.contains(why), "{text}: {message}"),
            }
        }
    }

    #[test]
    fn a_name_belongs_to_one_mac() {
        let first = rename("lan0:52-54-00-AC-10-01", &[]).unwrap();
        assert_eq!((first.name.as_str(), first.mac.as_str()), ("lan0", "52:54:00:ac:10:01"));
        assert!(rename("ib-a:e4:1d:2d:03:00:12:34:56", &[]).is_ok());
        let others = [first.clone()];
        assert_eq!(rename("lan0:52:54:00:ac:10:01", &others), Ok(first));
        for (text, why) in [
            ("lan0", "not NAME:MAC"),
            ("lan0:eth0", "not NAME:MAC"),
            (":52:54:00:ac:10:01", "no name for a network device"),
            ("a/b:52:54:00:ac:10:01", "no name for a network device"),
            ("longer-than-fifteen:52:54:00:ac:10:01", "15 letters"),
            ("lan0:52:54:00:ac:10:02", "52:54:00:ac:10:01 is lan0 already"),
            ("lan1:52:54:00:ac:10:01", "52:54:00:ac:10:01 is lan0 already"),
        ] {
            let message = rename(text, &others).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }

    #[test]
    fn a_bond_has_ports_options_and_an_mtu() {
        let full = bond("bond1:eth2,52-54-00-ac-10-01:mode=802.3ad,miimon=100:9000").unwrap();
        assert_eq!((full.name.as_str(), full.mtu), ("bond1", Some(9000)));
        assert_eq!(full.ports, ["eth2", "52-54-00-ac-10-01"]);
        assert_eq!(full.options.len(), 2);
        let plain = bond("").unwrap();
        assert_eq!((plain.name.as_str(), plain.mtu), ("bond0", None));
        assert_eq!(plain.ports, ["eth0", "eth1"]);
        assert_eq!(bond("bond0:eth0::1400").unwrap().mtu, Some(1400));
        for (text, why) in [
            ("bond0:eth0,,eth1", "empty name"),
            ("bond0:eth0:mode=5g", "5g is none of"),
            ("bond0:eth0:mode=1:jumbo", "no MTU"),
            ("bond0:bond0", "port of itself"),
            ("a/b:eth0", "no name for a network device"),
        ] {
            let message = bond(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}
