//! NetworkManager: a profile under /run, and the note by which NetworkManager goes on with a port instead of taking it
//! for somebody else's.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::files::File;
use super::stage2::{Origin, Port};

use crate::say;

/// NetworkManager reads no profile that others may read.
const SECRET: u32 = 0o600;
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
    is(value(["type", "TYPE"]), kinds)
        && is(value(["interface-name", "DEVICE"]), &[port.name.to_lowercase().as_str()])
        && is(value(["mac-address", "HWADDR"]), &[port.mac_text().as_str()])
}

/// The profile, and the note that it is active.
pub(super) fn files(port: &Port<'_>) -> Vec<File> {
    let uuid = uuid(port.mac.mac());
    let profile = format!("/run/NetworkManager/system-connections/rootstream-{}.nmconnection", port.name);
    let mut files = vec![File { mode: SECRET, ..File::new(&profile, keyfile(port, &uuid)) }];
    if let Some(index) = port.index {
        let state = format!("[device]\nconnection-uuid={uuid}\nmanaged=true\nnm-owned=0\n");
        files.push(File::new(&format!("/run/NetworkManager/devices/{index}"), state));
    }
    files
}

fn keyfile(port: &Port<'_>, uuid: &str) -> String {
    let lease = port.lease;
    let kind = if port.mac.is_infiniband() { "infiniband" } else { "ethernet" };
    // Below the site's own profiles, and above what NetworkManager makes up for a port without one.
    let mut text = format!(
        "# Written by rootstream: the port that the node booted from keeps its address.\n\
         [connection]\nid=rootstream-{}\nuuid={uuid}\ntype={kind}\nautoconnect-priority=-998\n\n\
         [{kind}]\nmac-address={}\n",
        port.name,
        port.mac_text()
    );
    // Writing into a String cannot fail.
    if let Some(mtu) = lease.mtu {
        let _ = writeln!(text, "mtu={mtu}");
    }
    text += "\n[ipv4]\n";
    match port.origin {
        Origin::Lease => {
            let id = port.client_id_text().unwrap_or_else(|| {
                say::warn!(
                    "hand-over: NetworkManager sends a client identifier: the server sees 01 and the MAC in stage 2"
                );
                "mac".to_owned()
            });
            // The lease is tried for until it is there: a node without its network is of no use.
            let _ = writeln!(text, "method=auto\ndhcp-client-id={id}\ndhcp-timeout=2147483647\nmay-fail=false");
        }
        Origin::Static => {
            let _ = writeln!(text, "method=manual\naddress1={}/{}", lease.address, lease.prefix);
            for (number, (to, width, gateway)) in lease.routes.iter().enumerate() {
                let through = if gateway.is_unspecified() { String::new() } else { format!(",{gateway}") };
                let _ = writeln!(text, "route{}={to}/{width}{through}", number + 1);
            }
            let list = |servers: &[IpAddr]| servers.iter().map(|server| format!("{server};")).collect::<String>();
            let _ = writeln!(text, "dns={}", list(&lease.dns));
            if let Some(domain) = &lease.domain {
                let _ = writeln!(text, "dns-search={domain};");
            }
        }
    }
    text
}

/// Always the same for a port: `rootstream`, more or less, and its MAC.
fn uuid(mac: [u8; 6]) -> String {
    let node: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("726f6f74-7374-4265-a16d-{node}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{infiniband, lease, port};
    use super::*;
    use crate::net::ClientId;

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
