//! `bond=`: a bond to make of several ports, and its options as netlink has them.

use std::net::Ipv4Addr;

use crate::mac::parse_mac;

/// A bond to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// Its name as a network device.
    pub name: String,
    /// Its ports, by name or MAC.
    pub ports: Vec<String>,
    /// Its options.
    pub options: Vec<BondOption>,
    /// Its MTU, and that of its ports.
    pub mtu: Option<u16>,
}

/// An option of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondOption {
    /// Its name, as the kernel's bonding module gives it.
    pub name: &'static str,
    /// Its value, in the module's words where it has some.
    pub value: String,
    /// The attribute's number in linux/if_link.h (`IFLA_BOND_…`), and its value. The primary port has none: it can be
    /// set when it is there.
    pub(super) attribute: Option<(u16, Vec<u8>)>,
}

/// How an option's value is written.
enum Value {
    U8,
    U16,
    U32,
    /// One of these words, or its number: eight bits.
    Word8(&'static [&'static str]),
    /// The same with 32 bits.
    Word32(&'static [&'static str]),
    Addresses,
    Mac,
    Port,
}

/// The options, by the names that the kernel's bonding module gives them.
const OPTIONS: [(&str, u16, Value); 29] = [
    (
        "mode",
        1,
        Value::Word8(&[
            "balance-rr",
            "active-backup",
            "balance-xor",
            "broadcast",
            "802.3ad",
            "balance-tlb",
            "balance-alb",
        ]),
    ),
    ("miimon", 3, Value::U32),
    ("updelay", 4, Value::U32),
    ("downdelay", 5, Value::U32),
    ("use_carrier", 6, Value::U8),
    ("arp_interval", 7, Value::U32),
    ("arp_ip_target", 8, Value::Addresses),
    (
        "arp_validate",
        9,
        Value::Word32(&["none", "active", "backup", "all", "filter", "filter_active", "filter_backup"]),
    ),
    ("arp_all_targets", 10, Value::Word32(&["any", "all"])),
    ("primary", 11, Value::Port),
    ("primary_reselect", 12, Value::Word8(&["always", "better", "failure"])),
    ("fail_over_mac", 13, Value::Word8(&["none", "active", "follow"])),
    ("xmit_hash_policy", 14, Value::Word8(&["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"])),
    ("resend_igmp", 15, Value::U32),
    ("num_grat_arp", 16, Value::U8),
    ("num_unsol_na", 16, Value::U8),
    ("all_slaves_active", 17, Value::U8),
    ("min_links", 18, Value::U32),
    ("lp_interval", 19, Value::U32),
    ("packets_per_slave", 20, Value::U32),
    ("lacp_rate", 21, Value::Word8(&["slow", "fast"])),
    ("ad_select", 22, Value::Word8(&["stable", "bandwidth", "count"])),
    ("ad_actor_sys_prio", 24, Value::U16),
    ("ad_user_port_key", 25, Value::U16),
    ("ad_actor_system", 26, Value::Mac),
    ("tlb_dynamic_lb", 27, Value::U8),
    ("peer_notif_delay", 28, Value::U32),
    ("lacp_active", 29, Value::Word8(&["off", "on"])),
    ("missed_max", 30, Value::U8),
];
/// How often carrier is looked at, in milliseconds, where nothing is said: a bond that never looks takes every port for
/// one that works.
const MIIMON_DEFAULT: &str = "miimon=100";

impl BondOption {
    /// Reads `NAME=VALUE`.
    ///
    /// # Errors
    /// No such option, or no such value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is not OPTION=VALUE"))?;
        let Some((name, number, kind)) = OPTIONS.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = OPTIONS.iter().map(|(name, ..)| *name).collect();
            return Err(format!("{name} is no option of a bond that can be set here; those are {}", known.join(", ")));
        };
        let bytes = match kind {
            Value::Port if value.is_empty() => None,
            Value::Port => return Ok(Self { name, value: value.to_owned(), attribute: None }),
            Value::U8 => value.parse::<u8>().ok().map(|number| vec![number]),
            Value::U16 => value.parse::<u16>().ok().map(|number| number.to_ne_bytes().to_vec()),
            Value::U32 => value.parse::<u32>().ok().map(|number| number.to_ne_bytes().to_vec()),
            Value::Word8(words) => number_of(words, value)?.map(|number| vec![number]),
            Value::Word32(words) => number_of(words, value)?.map(|number| u32::from(number).to_ne_bytes().to_vec()),
            Value::Mac => parse_mac(value).map(|mac| mac.to_vec()),
            Value::Addresses => addresses(value),
        };
        let bytes = bytes.ok_or_else(|| format!("{value} is no value for {name}"))?;
        let word = match kind {
            Value::Word8(words) | Value::Word32(words) => {
                value.parse().ok().and_then(|number: usize| words.get(number))
            }
            _ => None,
        };
        Ok(Self { name, value: (*word.unwrap_or(&value)).to_owned(), attribute: Some((*number, bytes)) })
    }

    /// All options of a value such as `mode=802.3ad,miimon=100`, and how carrier is watched where that is left open.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let words = text.split(',').filter(|word| !word.is_empty());
        let mut options = words.map(Self::parse).collect::<Result<Vec<Self>, String>>()?;
        if !options.iter().any(|option| ["miimon", "arp_interval"].contains(&option.name)) {
            options.push(Self::parse(MIIMON_DEFAULT)?);
        }
        Ok(options)
    }
}

fn number_of(words: &[&str], value: &str) -> Result<Option<u8>, String> {
    let number = words.iter().position(|word| *word == value).or_else(|| value.parse().ok());
    match number.filter(|number| *number < words.len()) {
        Some(number) => Ok(u8::try_from(number).ok()),
        None => Err(format!("{value} is none of {}", words.join(", "))),
    }
}

/// Addresses separated by semicolons, as attributes in an attribute: each with its length, its place and its bytes.
fn addresses(text: &str) -> Option<Vec<u8>> {
    let addresses = text.split(';').map(|address| address.parse::<Ipv4Addr>().ok()).collect::<Option<Vec<_>>>()?;
    let nested = addresses
        .iter()
        .zip(0_u16..)
        .flat_map(|(address, place)| [&8_u16.to_ne_bytes()[..], &place.to_ne_bytes(), &address.octets()].concat());
    // BOND_MAX_ARP_TARGETS
    (addresses.len() <= 16).then(|| nested.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_kernels_numbers() {
        let attribute = |text: &str| BondOption::parse(text).unwrap().attribute.unwrap();
        assert_eq!(attribute("mode=802.3ad"), (1, vec![4]));
        assert_eq!(attribute("mode=1"), (1, vec![1]));
        assert_eq!(attribute("miimon=250"), (3, 250_u32.to_ne_bytes().to_vec()));
        assert_eq!(attribute("arp_validate=filter_backup"), (9, 6_u32.to_ne_bytes().to_vec()));
        assert_eq!(attribute("xmit_hash_policy=layer3+4"), (14, vec![1]));
        assert_eq!(attribute("lacp_rate=fast"), (21, vec![1]));
        assert_eq!(attribute("ad_user_port_key=7"), (25, 7_u16.to_ne_bytes().to_vec()));
        assert_eq!(attribute("ad_actor_system=02-00-00-00-00-01"), (26, vec![2, 0, 0, 0, 0, 1]));
        let primary = BondOption { name: "primary", value: "eth1".to_owned(), attribute: None };
        assert_eq!(BondOption::parse("primary=eth1"), Ok(primary));
        for (text, word) in [("mode=4", "802.3ad"), ("mode=802.3ad", "802.3ad"), ("miimon=250", "250")] {
            assert_eq!(BondOption::parse(text).unwrap().value, word);
        }
        let targets = [
            &8_u16.to_ne_bytes()[..],
            &[0, 0, 10, 0, 0, 1],
            &8_u16.to_ne_bytes(),
            &1_u16.to_ne_bytes(),
            &[10, 0, 0, 2],
        ];
        assert_eq!(attribute("arp_ip_target=10.0.0.1;10.0.0.2"), (8, targets.concat()));
    }

    #[test]
    fn carrier_is_always_watched() {
        let every_100_ms = BondOption {
            name: "miimon",
            value: "100".to_owned(),
            attribute: Some((3, 100_u32.to_ne_bytes().to_vec())),
        };
        assert_eq!(BondOption::parse_all("").unwrap(), std::slice::from_ref(&every_100_ms));
        assert_eq!(BondOption::parse_all("mode=1").unwrap()[1], every_100_ms);
        assert_eq!(BondOption::parse_all("miimon=50").unwrap().len(), 1);
        assert_eq!(BondOption::parse_all("arp_interval=50,arp_ip_target=10.0.0.1").unwrap().len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("mode=lacp", "lacp is none of balance-rr, active-backup,"),
            ("mode=7", "7 is none of"),
            ("miimon=often", "often is no value for miimon"),
            ("miimon", "is not OPTION=VALUE"),
            ("primary=", "no value for primary"),
            ("max_bonds=2", "max_bonds is no option of a bond that can be set here; those are mode, miimon,"),
            ("arp_ip_target=10.0.0.1;", "no value for arp_ip_target"),
            ("use_carrier=256", "no value for use_carrier"),
        ] {
            let message = BondOption::parse(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}
