//! The lab's wires: one bridge, and a tap for each virtual node.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::namespace::ip;

/// Makes a bridge, up, with these addresses (`172.16.0.254/24`, `fd00:ac10::1/64`).
///
/// # Errors
/// `ip` fails.
pub fn bridge(name: &str, addresses: &[&str]) -> Result<()> {
    ip(&format!("link add {name} type bridge"))?;
    address(name, addresses)
}

/// Makes a tap for a virtual node's NIC and puts it on a bridge.
///
/// # Errors
/// `ip` fails, for one where `/dev/net/tun` may not be opened.
pub fn tap_on(name: &str, bridge: &str) -> Result<()> {
    ip(&format!("tuntap add dev {name} mode tap"))?;
    ip(&format!("link set {name} master {bridge} up"))
}

/// Makes a tap that is itself the master's port, with these addresses.
///
/// # Errors
/// `ip` fails, for one where `/dev/net/tun` may not be opened.
pub fn tap_with(name: &str, addresses: &[&str]) -> Result<()> {
    ip(&format!("tuntap add dev {name} mode tap"))?;
    address(name, addresses)
}

fn address(port: &str, addresses: &[&str]) -> Result<()> {
    for address in addresses {
        // Nobody else is on this wire: no time for duplicate address detection, which IPv6 would take.
        let nodad = if address.contains(':') { " nodad" } else { "" };
        ip(&format!("address add {address} dev {port}{nodad}"))?;
    }
    ip(&format!("link set {port} up"))
}

/// What a port is, as the kernel says.
#[derive(Debug, PartialEq, Eq)]
pub struct Port {
    /// Its kind: `tap`, `bridge`, `veth`.
    pub kind: String,
    /// The bridge it is on.
    pub master: Option<String>,
    /// Whether the other side is connected.
    pub carrier: bool,
}

/// Looks at a port.
///
/// # Errors
/// There is none of that name.
pub fn port(name: &str) -> Result<Port> {
    let output = Command::new("ip").args(["-json", "-details", "link", "show", "dev", name]).output();
    let output = output.context("starting ip (package iproute2)")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    parse(&output.stdout).with_context(|| format!("reading what ip says about {name}"))
}

#[derive(Deserialize)]
struct Link {
    flags: Vec<String>,
    master: Option<String>,
    linkinfo: Option<LinkInfo>,
}

#[derive(Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
    info_data: Option<InfoData>,
}

#[derive(Deserialize)]
struct InfoData {
    r#type: Option<String>,
}

fn parse(json: &[u8]) -> Result<Port> {
    let links: Vec<Link> = serde_json::from_slice(json)?;
    let link = links.into_iter().next().context("no port in it")?;
    let info = link.linkinfo.context("no kind in it")?;
    // The kind of both tun and tap ports is `tun`; the type tells them apart.
    let kind = info.info_data.and_then(|data| data.r#type).or(info.info_kind).context("no kind in it")?;
    Ok(Port { kind, master: link.master, carrier: link.flags.iter().any(|flag| flag == "LOWER_UP") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::enter_private_network;

    #[test]
    fn taps_and_bridges_are_told_apart() {
        enter_private_network().unwrap();
        bridge("br0", &["172.16.0.254/24", "fd00:ac10::1/64"]).unwrap();
        tap_on("tap0", "br0").unwrap();
        tap_with("tap1", &["172.16.1.254/24"]).unwrap();
        assert_eq!(port("br0").unwrap().kind, "bridge");
        let expected = Port { kind: "tap".into(), master: Some("br0".into()), carrier: false };
        assert_eq!(port("tap0").unwrap(), expected);
        assert_eq!(port("tap1").unwrap().master, None);
        assert!(port("tap2").unwrap_err().to_string().contains("tap2"));
    }
}
