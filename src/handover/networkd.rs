//! systemd-networkd: files under /run with the last of names, so that any other that matches wins. One for the port; and
//! where that is a VLAN or a bond, one for each device and port that it is made of.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::files::File;
use super::stacked;
use super::stage2::{Port, Way, hex};

use crate::say;

pub(super) const FOLDER: &str = "/run/systemd/network";
/// Since when there is `PermanentMACAddress=`; a section [Match] with nothing known in it would match every port.
const PERMANENT: u32 = 245;
/// Since when there is `KeepConfiguration=`, which took the place of `CriticalConnection=`.
const KEEP: u32 = 243;
/// Since when `MACAddress=` may have twenty bytes.
const INFINIBAND: u32 = 250;
/// Since when DHCPv6 has a DUID of its own; before, it is that of the section [DHCPv4].
const OWN_DUID: u32 = 249;

/// The files for the version of systemd that is in the image at `root`.
pub(super) fn files(root: &Path, port: &Port<'_>) -> Vec<File> {
    let version = version(root).unwrap_or(u32::MAX);
    let mut text = "# Written by rootstream: the port that the node booted from keeps its address.\n\
                    # Any other file here or in /etc/systemd/network that matches the port wins.\n"
        .to_owned();
    // Writing into a String cannot fail.
    let _ = if port.is_made() {
        writeln!(text, "[Match]\nName={}", port.name)
    } else if port.mac.is_infiniband() && version < INFINIBAND {
        writeln!(text, "[Match]\nType=infiniband")
    } else {
        // The kernel's idea of a permanent address is no good for InfiniBand: it is older than the queue pair.
        let permanent = port.permanent && !port.mac.is_infiniband();
        writeln!(text, "[Match]\n{}={}", by_mac(permanent, version), port.mac_text())
    };
    text += "\n[Network]\n";
    match port.way() {
        Way::Dhcp => dhcp(&mut text, port, version),
        Way::Routers => routers(&mut text, port, version),
        Way::Dhcp6 => dhcp6(&mut text, port, version),
        Way::Static => fixed(&mut text, port),
    }
    let mut files = vec![File::new(&format!("{FOLDER}/zz-rootstream.network"), text)];
    files.extend(stacked::networkd(port, by_mac(true, version)));
    files
}

/// What a port of the machine is matched by.
fn by_mac(permanent: bool, version: u32) -> &'static str {
    if permanent && version >= PERMANENT { "PermanentMACAddress" } else { "MACAddress" }
}

fn dhcp(text: &mut String, port: &Port<'_>, version: u32) {
    *text += "DHCP=ipv4\n";
    keep(text, version);
    *text += "\n[DHCPv4]\n";
    if version < KEEP {
        *text += "CriticalConnection=yes\n";
    }
    *text += &identity(port);
    *text += "UseHostname=no\n";
    if port.lease.mtu.is_some() {
        *text += "UseMTU=yes\n";
    }
}

/// Not torn down before the lease is renewed, nor when systemd-networkd stops, nor when the server is away.
fn keep(text: &mut String, version: u32) {
    if version >= KEEP {
        *text += "KeepConfiguration=yes\n";
    }
}

/// The address is the same as long as it is made of the MAC.
fn routers(text: &mut String, port: &Port<'_>, version: u32) {
    *text += "IPv6AcceptRA=yes\nIPv6PrivacyExtensions=no\n";
    keep(text, version);
    *text += &duid(port, version);
}

fn dhcp6(text: &mut String, port: &Port<'_>, version: u32) {
    *text += "DHCP=ipv6\nIPv6AcceptRA=yes\nIPv6PrivacyExtensions=no\n";
    keep(text, version);
    *text += &duid(port, version);
    // Whatever routers say of servers, there is one.
    *text += "UseHostname=no\nWithoutRA=solicit\n";
}

/// Who the node is for DHCPv6 servers.
fn duid(port: &Port<'_>, version: u32) -> String {
    let (duid, iaid) = port.duid();
    let Some(same) = identifier(&duid) else {
        say::warn!("hand-over: systemd-networkd cannot send the DUID of rootstream.clientid=: it sends one of its own");
        return "\n[DHCPv6]\n".to_owned();
    };
    let before = if version < OWN_DUID { format!("\n[DHCPv4]\n{same}IAID={iaid}\n") } else { String::new() };
    let own = if version < OWN_DUID { String::new() } else { same };
    format!("{before}\n[DHCPv6]\n{own}IAID={iaid}\n")
}

/// A DUID for systemd, which knows four types of it (RFC 8415 section 11), by their names.
fn identifier(duid: &[u8]) -> Option<String> {
    let ([high, low], rest) = duid.split_first_chunk::<2>()?;
    let kind = match u16::from_be_bytes([*high, *low]) {
        1 => "link-layer-time",
        2 => "vendor",
        3 => "link-layer",
        4 => "uuid",
        _ => return None,
    };
    Some(format!("DUIDType={kind}\nDUIDRawData={}\n", hex(rest)))
}

/// What systemd-networkd can send as option 61: 01 and the MAC, or ff, an IAID and a DUID.
fn identity(port: &Port<'_>) -> String {
    let own = port.client_id.option(port.mac);
    let with_duid = match own.as_deref() {
        Some([255, a, b, c, d, duid @ ..]) => {
            identifier(duid).map(|duid| format!("IAID={}\n{duid}", u32::from_be_bytes([*a, *b, *c, *d])))
        }
        _ => None,
    };
    match (own, with_duid) {
        (Some(own), _) if own.split_first() == Some((&1, &port.mac.mac()[..])) => "ClientIdentifier=mac\n".to_owned(),
        (_, Some(duid)) => format!("ClientIdentifier=duid\n{duid}"),
        (other, None) => {
            let sent = if other.is_some() { "what rootstream.clientid= says" } else { "no client identifier" };
            say::warn!("hand-over: systemd-networkd cannot send {sent}: the server sees 01 and the MAC in stage 2");
            "ClientIdentifier=mac\n".to_owned()
        }
    }
}

fn fixed(text: &mut String, port: &Port<'_>) {
    let lease = port.lease;
    let _ = writeln!(text, "KeepConfiguration=static\nAddress={}/{}", lease.address, lease.prefix);
    if lease.address.is_ipv6() {
        *text += "IPv6AcceptRA=no\n";
    }
    for server in port.name_servers() {
        let _ = writeln!(text, "DNS={server}");
    }
    if let Some(domain) = &lease.domain {
        let _ = writeln!(text, "Domains={domain}");
    }
    for server in &lease.ntp {
        let _ = writeln!(text, "NTP={server}");
    }
    if let Some(mtu) = lease.mtu {
        let _ = writeln!(text, "\n[Link]\nMTUBytes={mtu}");
    }
    for (to, width, gateway) in &lease.routes {
        let _ = writeln!(text, "\n[Route]\nDestination={to}/{width}");
        let _ = match gateway {
            IpAddr::V4(gateway) if gateway.is_unspecified() => writeln!(text, "Scope=link"),
            IpAddr::V6(gateway) if gateway.is_unspecified() => Ok(()),
            gateway => writeln!(text, "Gateway={gateway}\nGatewayOnLink=yes"),
        };
    }
}

/// The version of systemd, by the name of its library (`libsystemd-shared-252.so`).
fn version(root: &Path) -> Option<u32> {
    let folders = ["usr/lib/systemd", "lib/systemd", "usr/lib64/systemd"];
    let names = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).into_iter().flatten().flatten());
    names.filter_map(|entry| number(&entry.file_name().to_string_lossy())).max()
}

fn number(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("libsystemd-shared-")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::stage2::Origin;
    use super::super::tests::{infiniband, lease, lease_6, port};
    use super::*;
    use crate::net::{ClientId, Device, Kind, Lower};

    fn at(version: u32) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("usr/lib/systemd");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("libsystemd-shared-{version}.so")), "").unwrap();
        root
    }

    fn text(version: u32, port: &Port<'_>) -> String {
        let [file] = files(at(version).path(), port).try_into().unwrap();
        assert_eq!(file.path, "/run/systemd/network/zz-rootstream.network");
        let lines = file.content.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.collect::<Vec<_>>().join(" ")
    }

    // F17
    #[test]
    fn stage_2_is_the_same_client_for_the_server() {
        let lease = lease();
        let mac = port(&lease, &ClientId::Mac);
        assert_eq!(
            text(252, &mac),
            "[Match] PermanentMACAddress=52:54:00:ac:10:01 [Network] DHCP=ipv4 KeepConfiguration=yes \
             [DHCPv4] ClientIdentifier=mac UseHostname=no"
        );
        let duid = text(252, &port(&lease, &ClientId::Duid));
        let expected = "ClientIdentifier=duid IAID=11276289 DUIDType=link-layer DUIDRawData=00:01:52:54:00:ac:10:01";
        assert!(duid.contains(expected), "{duid}");
        for other in [ClientId::None, ClientId::Bytes(vec![0, 7])] {
            assert!(text(252, &port(&lease, &other)).contains("ClientIdentifier=mac"));
        }
    }

    // F17
    #[test]
    fn over_infiniband_stage_2_sends_what_firmware_and_stage_1_sent() {
        let lease = lease();
        let port = infiniband(&lease, &ClientId::Mac);
        assert_eq!(
            text(252, &port),
            "[Match] MACAddress=80:00:02:08:00:00:00:00:00:00:00:00:e4:1d:2d:03:00:12:34:56 [Network] DHCP=ipv4 \
             KeepConfiguration=yes [DHCPv4] ClientIdentifier=duid IAID=0 DUIDType=vendor \
             DUIDRawData=00:00:02:c9:00:e4:1d:2d:03:00:12:34:56 UseHostname=no"
        );
        assert!(text(249, &port).starts_with("[Match] Type=infiniband [Network]"));
    }

    #[test]
    fn older_versions_get_what_they_know() {
        let lease = lease();
        let old = text(241, &port(&lease, &ClientId::Mac));
        assert!(
            old.starts_with("[Match] MACAddress=52:54:00:ac:10:01 [Network] DHCP=ipv4 [DHCPv4] CriticalConnection=yes")
        );
        assert!(text(244, &port(&lease, &ClientId::Mac)).contains("[Match] MACAddress="));
        assert_eq!(number("libsystemd-shared-252.22-1.so"), Some(252));
        assert_eq!(number("libsystemd-core-252.so"), None);
        assert_eq!(version(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_fixed_address_stays_fixed() {
        let mut lease = lease();
        lease.routes.push(("10.9.0.0".parse().unwrap(), 16, "0.0.0.0".parse().unwrap()));
        lease.mtu = Some(9000);
        let fixed = Port { origin: Origin::Static, permanent: false, ..port(&lease, &ClientId::Mac) };
        assert_eq!(
            text(252, &fixed),
            "[Match] MACAddress=52:54:00:ac:10:01 [Network] KeepConfiguration=static Address=172.16.0.1/24 \
             DNS=172.16.0.254 Domains=cluster [Link] MTUBytes=9000 [Route] Destination=0.0.0.0/0 Gateway=172.16.0.254 \
             GatewayOnLink=yes [Route] Destination=10.9.0.0/16 Scope=link"
        );
    }

    // F17
    #[test]
    fn the_same_client_of_ipv6() {
        let lease = lease_6("fd00::42");
        let bound = text(252, &port(&lease, &ClientId::Mac));
        assert_eq!(
            bound,
            "[Match] PermanentMACAddress=52:54:00:ac:10:01 [Network] DHCP=ipv6 IPv6AcceptRA=yes \
             IPv6PrivacyExtensions=no KeepConfiguration=yes [DHCPv6] DUIDType=link-layer DUIDRawData=00:01:52:54:00:ac:10:01 \
             IAID=11276289 UseHostname=no WithoutRA=solicit"
        );
        let old = text(247, &port(&lease, &ClientId::Mac));
        let expected =
            "[DHCPv4] DUIDType=link-layer DUIDRawData=00:01:52:54:00:ac:10:01 IAID=11276289 [DHCPv6] IAID=11276289";
        assert!(old.contains(expected), "{old}");
        let lease = lease_6("fd00::5054:ff:feac:1001");
        let made = text(252, &port(&lease, &ClientId::Mac));
        assert!(made.contains("[Network] IPv6AcceptRA=yes IPv6PrivacyExtensions=no KeepConfiguration=yes"), "{made}");
        let fixed = Port { origin: Origin::Static, ..port(&lease, &ClientId::Mac) };
        assert_eq!(
            text(252, &fixed),
            "[Match] PermanentMACAddress=52:54:00:ac:10:01 [Network] KeepConfiguration=static \
             Address=fd00::5054:ff:feac:1001/64 IPv6AcceptRA=no DNS=fd00::1 DNS=fe80::1%eth0 \
             [Route] Destination=::/0 Gateway=fe80::1 GatewayOnLink=yes [Route] Destination=fd05::/64"
        );
    }

    #[test]
    fn a_vlan_is_matched_by_name_and_made_as_it_is() {
        let lease = lease();
        let on = |name: &str, last| Lower {
            name: name.to_owned(),
            index: 2,
            mac: Some([2, 0, 0, 0, 0, last]),
            primary: last == 2,
        };
        let options = crate::net::BondOption::parse_all("mode=1,miimon=50,arp_validate=filter").unwrap();
        let devices = [
            Device { name: "vlan5".to_owned(), index: 9, kind: Kind::Vlan(5), on: vec![on("bond0", 1)] },
            Device {
                name: "bond0".to_owned(),
                index: 8,
                kind: Kind::Bond(options, Some(9000)),
                on: vec![on("eth0", 1), on("eth1", 2)],
            },
        ];
        let port = Port { name: "vlan5", devices: &devices, ..port(&lease, &ClientId::Mac) };
        let files = files(at(252).path(), &port);
        let texts: Vec<String> = files
            .iter()
            .map(|file| {
                let lines = file.content.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
                let name = file.path.strip_prefix("/run/systemd/network/zz-rootstream").unwrap();
                format!("{name}: {}", lines.collect::<Vec<_>>().join(" "))
            })
            .collect();
        assert!(texts[0].starts_with(".network: [Match] Name=vlan5 [Network] DHCP=ipv4"), "{texts:#?}");
        assert_eq!(
            texts[1..],
            [
                "-vlan5.netdev: [NetDev] Name=vlan5 Kind=vlan [VLAN] Id=5",
                "-bond0.netdev: [NetDev] Name=bond0 Kind=bond MACAddress=52:54:00:ac:10:01 MTUBytes=9000 \
                 [Bond] Mode=active-backup MIIMonitorSec=50ms",
                "-bond0.network: [Match] Name=bond0 [Network] LinkLocalAddressing=no VLAN=vlan5",
                "-eth0.network: [Match] PermanentMACAddress=02:00:00:00:00:01 Name=!vlan5 bond0 \
                 [Network] LinkLocalAddressing=no Bond=bond0",
                "-eth1.network: [Match] PermanentMACAddress=02:00:00:00:00:02 Name=!vlan5 bond0 \
                 [Network] LinkLocalAddressing=no Bond=bond0 PrimarySlave=yes",
            ]
        );
    }
}
