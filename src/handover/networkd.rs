//! systemd-networkd: a .network file under /run with the last of names, so that any other that matches wins.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::files::File;
use super::stage2::{Origin, Port};

use crate::say;

const PATH: &str = "/run/systemd/network/zz-rootstream.network";
/// Since when there is `PermanentMACAddress=`; a section [Match] with nothing known in it would match every port.
const PERMANENT: u32 = 245;
/// Since when there is `KeepConfiguration=`, which took the place of `CriticalConnection=`.
const KEEP: u32 = 243;
/// Since when `MACAddress=` may have twenty bytes.
const INFINIBAND: u32 = 250;

/// The file for the version of systemd that is in the image at `root`.
pub(super) fn file(root: &Path, port: &Port<'_>) -> File {
    let version = version(root).unwrap_or(u32::MAX);
    let mut text = "# Written by rootstream: the port that the node booted from keeps its address.\n\
                    # Any other file here or in /etc/systemd/network that matches the port wins.\n"
        .to_owned();
    // The kernel's idea of a permanent address is no good for InfiniBand: it is older than the queue pair.
    let ib = port.mac.is_infiniband();
    let by = if port.permanent && !ib && version >= PERMANENT { "PermanentMACAddress" } else { "MACAddress" };
    let by =
        if ib && version < INFINIBAND { "Type=infiniband".to_owned() } else { format!("{by}={}", port.mac_text()) };
    // Writing into a String cannot fail.
    let _ = write!(text, "[Match]\n{by}\n\n[Network]\n");
    match port.origin {
        Origin::Lease => lease(&mut text, port, version),
        Origin::Static => fixed(&mut text, port),
    }
    File::new(PATH, text)
}

fn lease(text: &mut String, port: &Port<'_>, version: u32) {
    *text += "DHCP=ipv4\n";
    if version >= KEEP {
        // Not torn down before the lease is renewed, nor when systemd-networkd stops, nor when the server is away.
        *text += "KeepConfiguration=yes\n";
    }
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

/// What systemd-networkd can send as option 61: 01 and the MAC, or ff, an IAID and a DUID.
fn identity(port: &Port<'_>) -> String {
    let own = port.client_id.option(port.mac);
    match own.as_deref() {
        Some([1, mac @ ..]) if *mac == port.mac.mac() => "ClientIdentifier=mac\n".to_owned(),
        Some([255, a, b, c, d, kind_high, kind, rest @ ..]) => {
            let iaid = u32::from_be_bytes([*a, *b, *c, *d]);
            let kind = u16::from_be_bytes([*kind_high, *kind]);
            let rest: Vec<String> = rest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("ClientIdentifier=duid\nIAID={iaid}\nDUIDType={kind}\nDUIDRawData={}\n", rest.join(":"))
        }
        other => {
            let sent = if other.is_some() { "what rootstream.clientid= says" } else { "no client identifier" };
            say::warn!("hand-over: systemd-networkd cannot send {sent}: the server sees 01 and the MAC in stage 2");
            "ClientIdentifier=mac\n".to_owned()
        }
    }
}

fn fixed(text: &mut String, port: &Port<'_>) {
    let lease = port.lease;
    let _ = writeln!(text, "KeepConfiguration=static\nAddress={}/{}", lease.address, lease.prefix);
    for server in &lease.dns {
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
        let _ = if gateway.is_unspecified() {
            writeln!(text, "Scope=link")
        } else {
            writeln!(text, "Gateway={gateway}\nGatewayOnLink=yes")
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
    use super::super::tests::{infiniband, lease, port};
    use super::*;
    use crate::net::ClientId;

    fn at(version: u32) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("usr/lib/systemd");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("libsystemd-shared-{version}.so")), "").unwrap();
        root
    }

    fn text(version: u32, port: &Port<'_>) -> String {
        let file = file(at(version).path(), port);
        assert_eq!(file.path, PATH);
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
        let expected = "ClientIdentifier=duid IAID=11276289 DUIDType=3 DUIDRawData=00:01:52:54:00:ac:10:01";
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
             KeepConfiguration=yes [DHCPv4] ClientIdentifier=duid IAID=0 DUIDType=2 \
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
}
