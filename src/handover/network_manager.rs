//! NetworkManager: a profile under /run, and the note by which NetworkManager goes on with a port instead of taking it
//! for somebody else's. Where the port is a VLAN or a bond, the same for each device and port that it is made of.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::files::File;
use super::stage2::{Port, Way, hex};

use crate::mac::Mac;
use crate::net::{Device, Kind};
use crate::say;

/// NetworkManager reads no profile that others may read.
const SECRET: u32 = 0o600;
/// Below the site's own profiles, and above what NetworkManager makes up for a port without one.
const PRIORITY: &str = "autoconnect-priority=-998\n";
/// Where the site's own profiles are.
const PROFILES: [&str; 3] = [
    "etc/NetworkManager/system-connections",
    "usr/lib/NetworkManager/system-connections",
    "etc/sysconfig/network-scripts",
];

/// Whether a profile in the image at `root` is for this port, or for any.
pub(super) fn knows(root: &Path, port: &Port<'_>) -> bool {
    let entries = PROFILES.iter().flat_map(|folder| fs::read_dir(root.join(folder)).into_iter().flatten().flatten());
    entries.into_iter().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_profile = name.ends_with(".nmconnection") || (name.starts_with("ifcfg-") && name != "ifcfg-lo");
        is_profile && fs::read_to_string(entry.path()).is_ok_and(|text| is_for(&text, port))
    })
}

/// Whether a profile, as a keyfile or as an ifcfg file, is for this port.
fn is_for(text: &str, port: &Port<'_>) -> bool {
    let value = |keys: [&str; 2]| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            keys.contains(&key.trim()).then(|| value.trim().trim_matches('"').to_lowercase())
        })
    };
    let kinds: &[&str] = if port.mac.is_infiniband() { &["infiniband"] } else { &["ethernet", "802-3-ethernet"] };
    let is = |value: Option<String>, allowed: &[&str]| value.is_none_or(|value| allowed.contains(&value.as_str()));
    let types: &[&str] = match port.devices.first().map(|device| &device.kind) {
        None => kinds,
        Some(Kind::Vlan(_)) => &["vlan"],
        Some(Kind::Bond(..)) => &["bond"],
    };
    is(value(["type", "TYPE"]), types)
        && is(value(["interface-name", "DEVICE"]), &[port.name.to_lowercase().as_str()])
        && is(value(["mac-address", "HWADDR"]), &[port.mac_text().as_str()])
}

/// The profiles, and the notes that they are active.
pub(super) fn files(port: &Port<'_>) -> Vec<File> {
    let mut files = Vec::new();
    let own = port.devices.first();
    let identity = match own {
        Some(device) => made(port, device, None),
        None => {
            let kind = if port.mac.is_infiniband() { "infiniband" } else { "ethernet" };
            format!("type={kind}\n{PRIORITY}\n[{kind}]\nmac-address={}\n", port.mac_text())
        }
    };
    add(&mut files, port, port.name, port.index, &(identity + &addresses(port, own.is_some())));
    for (device, lower) in port.devices.iter().flat_map(|device| device.on.iter().map(move |lower| (device, lower))) {
        let owner = matches!(device.kind, Kind::Bond(..)).then_some(device);
        let text = match port.devices.iter().find(|device| device.name == lower.name) {
            Some(below) => made(port, below, owner),
            None => {
                let mac = lower.mac.map(|mac| format!("mac-address={}\n", Mac(mac))).unwrap_or_default();
                format!("type=ethernet\n{}{PRIORITY}\n[ethernet]\n{mac}", member(port, owner))
            }
        };
        // A port of a bond has no addresses to speak of.
        let none = if owner.is_some() { "" } else { "\n[ipv4]\nmethod=disabled\n\n[ipv6]\nmethod=disabled\n" };
        add(&mut files, port, &lower.name, Some(lower.index), &(text + none));
    }
    files
}

/// Adds a profile, and the note that the port with this number has it.
fn add(files: &mut Vec<File>, port: &Port<'_>, name: &str, index: Option<u32>, text: &str) {
    let uuid = uuid(port, name);
    let path = format!("/run/NetworkManager/system-connections/rootstream-{name}.nmconnection");
    let content = format!(
        "# Written by rootstream: the port that the node booted from keeps its address.\n\
         [connection]\nid=rootstream-{name}\nuuid={uuid}\n{text}"
    );
    files.push(File { mode: SECRET, ..File::new(&path, content) });
    if let Some(index) = index {
        let state = format!("[device]\nconnection-uuid={uuid}\nmanaged=true\nnm-owned=0\n");
        files.push(File::new(&format!("/run/NetworkManager/devices/{index}"), state));
    }
}

/// What makes a profile that of a VLAN or bond.
fn made(port: &Port<'_>, device: &Device, owner: Option<&Device>) -> String {
    let name = &device.name;
    let member = member(port, owner);
    match &device.kind {
        Kind::Vlan(id) => {
            let parent = device.on.first().map(|below| uuid(port, &below.name)).unwrap_or_default();
            format!("type=vlan\ninterface-name={name}\n{member}{PRIORITY}\n[vlan]\nid={id}\nparent={parent}\n")
        }
        Kind::Bond(options, mtu) => {
            // NetworkManager knows a primary port in this mode only, and refuses the profile in others.
            let has_primary = options.iter().any(|option| option.name == "mode" && option.value == "active-backup");
            let primary = device.on.iter().find(|lower| lower.primary && has_primary);
            let primary = primary.map(|lower| format!("primary={}\n", lower.name));
            let known = options.iter().filter(|option| !["primary", "missed_max"].contains(&option.name));
            let options: String =
                known.map(|option| format!("{}={}\n", option.name, option.value.replace(';', ","))).collect();
            let mtu = mtu.map(|mtu| format!("\n[ethernet]\nmtu={mtu}\n")).unwrap_or_default();
            let primary = primary.unwrap_or_default();
            format!("type=bond\ninterface-name={name}\n{member}{PRIORITY}\n[bond]\n{options}{primary}{mtu}")
        }
    }
}

/// What makes a profile that of a port of a bond.
fn member(port: &Port<'_>, bond: Option<&Device>) -> String {
    bond.map(|bond| format!("master={}\nslave-type=bond\n", uuid(port, &bond.name))).unwrap_or_default()
}

/// MTU and addresses.
fn addresses(port: &Port<'_>, made: bool) -> String {
    let lease = port.lease;
    let way = port.way();
    let mut text = String::new();
    // Writing into a String cannot fail.
    if let Some(mtu) = lease.mtu {
        let _ = writeln!(text, "{}mtu={mtu}", if made { "\n[ethernet]\n" } else { "" });
    }
    text += "\n[ipv4]\n";
    if lease.address.is_ipv6() {
        text += "method=disabled\n\n[ipv6]\naddr-gen-mode=eui64\nip6-privacy=0\n";
    }
    match way {
        Way::Dhcp => {
            let id = port.client_id_text().unwrap_or_else(|| {
                say::warn!(
                    "hand-over: NetworkManager sends a client identifier: the server sees 01 and the MAC in stage 2"
                );
                "mac".to_owned()
            });
            // The lease is tried for until it is there: a node without its network is of no use.
            let _ = writeln!(text, "method=auto\ndhcp-client-id={id}\ndhcp-timeout=2147483647\nmay-fail=false");
        }
        Way::Routers | Way::Dhcp6 => {
            let (duid, iaid) = port.duid();
            // Without a router nobody would say that there is a server.
            let routed = lease.routes.iter().any(|(.., gateway)| !gateway.is_unspecified());
            let method = if way == Way::Dhcp6 && !routed { "dhcp" } else { "auto" };
            let _ = writeln!(
                text,
                "method={method}\ndhcp-duid={}\ndhcp-iaid={iaid}\ndhcp-timeout=2147483647\nmay-fail=false",
                hex(&duid)
            );
        }
        Way::Static => fixed(&mut text, port),
    }
    text
}

fn fixed(text: &mut String, port: &Port<'_>) {
    let lease = port.lease;
    let _ = writeln!(text, "method=manual\naddress1={}/{}", lease.address, lease.prefix);
    for (number, (to, width, gateway)) in lease.routes.iter().enumerate() {
        let through = if gateway.is_unspecified() { String::new() } else { format!(",{gateway}") };
        let _ = writeln!(text, "route{}={to}/{width}{through}", number + 1);
    }
    // Each family has its own, and none of one link.
    let is_usable = |server: &&IpAddr| match server {
        IpAddr::V4(_) => lease.address.is_ipv4(),
        IpAddr::V6(server) => lease.address.is_ipv6() && !server.is_unicast_link_local(),
    };
    let dns: String = lease.dns.iter().filter(is_usable).map(|server| format!("{server};")).collect();
    let _ = writeln!(text, "dns={dns}");
    if let Some(domain) = &lease.domain {
        let _ = writeln!(text, "dns-search={domain};");
    }
}

/// Always the same for a port: `rootstream`, more or less, and the MAC; for what was made, or is below it, its name too,
/// because they share their MACs.
fn uuid(port: &Port<'_>, name: &str) -> String {
    let node: String = port.mac.mac().iter().map(|byte| format!("{byte:02x}")).collect();
    if !port.is_made() {
        return format!("726f6f74-7374-4265-a16d-{node}");
    }
    // FNV-1a.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}-7374-4265-a16d-{node}")
}

#[cfg(test)]
mod tests {
    use super::super::stage2::Origin;
    use super::super::tests::{infiniband, lease, lease_6, port};
    use super::*;
    use crate::lease::Lease;
    use crate::net::{BondOption, ClientId, Lower};

    // F17
    #[test]
    fn a_profile_for_the_same_client() {
        let lease = lease();
        let [profile, state] = files(&port(&lease, &ClientId::Mac)).try_into().unwrap();
        assert_eq!(profile.path, "/run/NetworkManager/system-connections/rootstream-eth0.nmconnection");
        assert_eq!(profile.mode, 0o600);
        let lines = profile.content.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        assert_eq!(
            lines.collect::<Vec<_>>().join(" "),
            "[connection] id=rootstream-eth0 uuid=726f6f74-7374-4265-a16d-525400ac1001 type=ethernet \
             autoconnect-priority=-998 [ethernet] mac-address=52:54:00:ac:10:01 [ipv4] method=auto \
             dhcp-client-id=01:52:54:00:ac:10:01 dhcp-timeout=2147483647 may-fail=false"
        );
        assert_eq!(state.path, "/run/NetworkManager/devices/2");
        assert!(state.content.contains("connection-uuid=726f6f74-7374-4265-a16d-525400ac1001\nmanaged=true"));
        let [profile, _] = files(&port(&lease, &ClientId::None)).try_into().unwrap();
        assert!(profile.content.contains("dhcp-client-id=mac\n"));
        let fixed = Port { origin: Origin::Static, index: None, ..port(&lease, &ClientId::Mac) };
        let [profile] = files(&fixed).try_into().unwrap();
        let expected = "[ipv4]\nmethod=manual\naddress1=172.16.0.1/24\nroute1=0.0.0.0/0,172.16.0.254\n\
                        dns=172.16.0.254;\ndns-search=cluster;\n";
        assert!(profile.content.ends_with(expected), "{}", profile.content);
    }

    // F17
    #[test]
    fn a_profile_for_infiniband() {
        let lease = lease();
        let [profile, _] = files(&infiniband(&lease, &ClientId::Mac)).try_into().unwrap();
        let id = "dhcp-client-id=ff:00:00:00:00:00:02:00:00:02:c9:00:e4:1d:2d:03:00:12:34:56\n";
        let mac = "[infiniband]\nmac-address=80:00:02:08:00:00:00:00:00:00:00:00:e4:1d:2d:03:00:12:34:56\n";
        let text = profile.content;
        assert!(text.contains("type=infiniband\n") && text.contains(id) && text.contains(mac), "{text}");
        assert!(is_for("[connection]\ntype=infiniband\n", &infiniband(&lease, &ClientId::Mac)));
        assert!(!is_for("[connection]\ntype=ethernet\n", &infiniband(&lease, &ClientId::Mac)));
    }

    fn lines(file: &File) -> String {
        let lines = file.content.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.collect::<Vec<_>>().join(" ")
    }

    // F17
    #[test]
    fn a_profile_for_the_same_client_of_ipv6() {
        let six = |address: &str| lines(&files(&port(&lease_6(address), &ClientId::Mac))[0]);
        let common =
            "[ethernet] mac-address=52:54:00:ac:10:01 [ipv4] method=disabled [ipv6] addr-gen-mode=eui64 ip6-privacy=0";
        let client =
            "dhcp-duid=00:03:00:01:52:54:00:ac:10:01 dhcp-iaid=11276289 dhcp-timeout=2147483647 may-fail=false";
        for address in ["fd00::42", "fd00::5054:ff:feac:1001"] {
            let text = six(address);
            assert!(text.ends_with(&format!("{common} method=auto {client}")), "{text}");
        }
        let alone = Lease { routes: Vec::new(), ..lease_6("fd00::42") };
        assert!(lines(&files(&port(&alone, &ClientId::Mac))[0]).contains(&format!("method=dhcp {client}")));
        let lease = lease_6("fd00::42");
        let fixed = lines(&files(&Port { origin: Origin::Static, ..port(&lease, &ClientId::Mac) })[0]);
        let manual = "method=manual address1=fd00::42/64 route1=::/0,fe80::1 route2=fd05::/64 dns=fd00::1;";
        assert!(fixed.ends_with(&format!("{common} {manual}")), "{fixed}");
    }

    #[test]
    fn a_vlan_on_a_bond_has_profiles_down_to_its_ports() {
        let lease = Lease { mtu: Some(1400), ..lease() };
        let on = |name: &str, index| Lower {
            name: name.to_owned(),
            index,
            mac: Some([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            primary: index == 3,
        };
        let options =
            BondOption::parse_all("mode=1,arp_interval=50,arp_ip_target=10.0.0.1;10.0.0.2,primary=eth1").unwrap();
        let devices = [
            Device { name: "vlan5".to_owned(), index: 9, kind: Kind::Vlan(5), on: vec![on("bond0", 8)] },
            Device {
                name: "bond0".to_owned(),
                index: 8,
                kind: Kind::Bond(options, Some(9000)),
                on: vec![on("eth0", 2), on("eth1", 3)],
            },
        ];
        let port = Port { name: "vlan5", index: Some(9), devices: &devices, ..port(&lease, &ClientId::Mac) };
        let files = files(&port);
        let paths: Vec<_> = files.iter().map(|file| file.path.strip_prefix("/run/NetworkManager/").unwrap()).collect();
        let profile = |name: &str| format!("system-connections/rootstream-{name}.nmconnection");
        let expected = [("vlan5", 9), ("bond0", 8), ("eth0", 2), ("eth1", 3)];
        let expected = expected.map(|(name, index)| [profile(name), format!("devices/{index}")]);
        assert_eq!(paths, expected.concat());
        let (vlan, bond, eth1) = (lines(&files[0]), lines(&files[2]), lines(&files[6]));
        let uuid = |text: &str| text.split("uuid=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        assert!(
            vlan.contains(&format!(
                "type=vlan interface-name=vlan5 autoconnect-priority=-998 [vlan] id=5 parent={} [ethernet] mtu=1400 \
                 [ipv4] method=auto",
                uuid(&bond)
            )),
            "{vlan}"
        );
        assert!(
            bond.ends_with(
                "type=bond interface-name=bond0 autoconnect-priority=-998 [bond] mode=active-backup arp_interval=50 \
                 arp_ip_target=10.0.0.1,10.0.0.2 primary=eth1 [ethernet] mtu=9000 [ipv4] method=disabled [ipv6] \
                 method=disabled"
            ),
            "{bond}"
        );
        assert!(
            eth1.ends_with(&format!(
                "type=ethernet master={} slave-type=bond autoconnect-priority=-998 [ethernet] mac-address=02:00:00:00:00:03",
                uuid(&bond)
            )),
            "{eth1}"
        );
        let uuids: std::collections::BTreeSet<_> = files.iter().step_by(2).map(|file| uuid(&lines(file))).collect();
        assert_eq!(uuids.len(), 4);
        assert!(is_for("[connection]\ntype=vlan\n", &port) && !is_for("[connection]\ntype=ethernet\n", &port));
    }

    #[test]
    fn the_sites_own_profiles_are_seen() {
        let lease = lease();
        let port = port(&lease, &ClientId::Mac);
        for (text, expected) in [
            ("[connection]\ntype=ethernet\n", true),
            ("[connection]\ntype=802-3-ethernet\ninterface-name=eth0\n", true),
            ("[connection]\ntype=ethernet\n[ethernet]\nmac-address=52:54:00:AC:10:01\n", true),
            ("[connection]\ntype=ethernet\ninterface-name=eth1\n", false),
            ("[connection]\ntype=ethernet\n[ethernet]\nmac-address=52:54:00:AC:10:02\n", false),
            ("[connection]\ntype=wifi\n", false),
            ("TYPE=Ethernet\nDEVICE=\"eth0\"\nBOOTPROTO=dhcp\n", true),
            ("DEVICE=eth1\n", false),
        ] {
            assert_eq!(is_for(text, &port), expected, "{text}");
        }
        let root = tempfile::tempdir().unwrap();
        assert!(!knows(root.path(), &port));
        let folder = root.path().join("etc/NetworkManager/system-connections");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("README"), "").unwrap();
        assert!(!knows(root.path(), &port));
        fs::write(folder.join("any.nmconnection"), "[connection]\ntype=ethernet\n").unwrap();
        assert!(knows(root.path(), &port));
    }
}
