//! What a boot really was, from what each part of it left behind.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::bmc::board::switched_by;
use crate::machine::Machine;
use crate::servers::Servers;
use crate::site::{BRIDGE, MASTER, NODE_MAC};
use crate::transcript::{Line, Transcript};
use crate::{network, sockets};

/// The image that is unpacked.
const ARCHIVE: &str = "debian";

/// The values of the line that ends a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What asked for the boot file, by its client architecture.
    pub firmware: &'static str,
    /// Whose DHCP and HTTP servers answered.
    pub servers: String,
    /// How many nodes showed a login prompt.
    pub nodes: usize,
    /// Who switched the power on.
    pub power: String,
    /// How far the image was verified, as the node's record says.
    pub trust: String,
    /// What the image is: `debian`, unpacked from an archive, or the file system that it is mounted as.
    pub image: String,
    /// How the node is wired.
    pub net: String,
    /// What executes the node's instructions.
    pub accel: &'static str,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { firmware, servers, nodes, power, trust, image, net, accel } = self;
        write!(f, "firmware={firmware} servers={servers} nodes={nodes} power={power} ")?;
        write!(f, "trust={trust} net={net} accel={accel}")?;
        // An archive is the rule, and scripts that read this line know it without.
        if image == ARCHIVE { Ok(()) } else { write!(f, " image={image}") }
    }
}

/// What a command in the node tells about it.
#[derive(Debug)]
pub struct Visit {
    /// `uname -a`.
    pub uname: String,
    /// The kind of the root file system.
    pub root: String,
    /// The host's name.
    pub hostname: String,
    /// What systemd-networkd says of the setup of the port: `configured` when it is finished.
    pub setup: String,
    /// The addresses that systemd-networkd got for the port by DHCP, and will renew.
    pub leased: Vec<Ipv4Addr>,
    /// `trust` in the boot record.
    pub trust: String,
    /// `image.media` in the boot record.
    pub media: String,
}

impl Visit {
    /// The command whose output [`Visit::parse`] reads. It waits until systemd-networkd has a lease of its
    /// own, which nothing in the boot waits for; how that ended is in what networkctl says.
    pub const COMMAND: &str = "uname -a && hostname && findmnt --noheadings --output FSTYPE / && \
        { /usr/lib/systemd/systemd-networkd-wait-online --interface=eth0:routable --ipv4 --timeout=120; \
        networkctl --json=short status eth0; } && cat /run/rootstream/boot.json";

    /// Reads the command's output.
    ///
    /// # Errors
    /// A part is missing, or the boot record is none.
    pub fn parse(output: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Record {
            trust: String,
            image: Image,
        }
        #[derive(Deserialize)]
        struct Image {
            media: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Port {
            administrative_state: String,
            #[serde(default)]
            addresses: Vec<Address>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Address {
            address: Vec<u8>,
            config_source: String,
        }
        let mut parts = output.splitn(5, '\n').map(|part| part.trim().to_owned());
        let mut part = |name: &str| parts.next().filter(|part| !part.is_empty()).with_context(|| format!("no {name}"));
        let (uname, hostname, root) = (part("uname")?, part("host name")?, part("root file system")?);
        let port: Port = serde_json::from_str(&part("port")?).context("reading what networkctl says")?;
        let leased = port.addresses.into_iter().filter(|address| address.config_source == "DHCPv4");
        let leased = leased.filter_map(|address| Some(<[u8; 4]>::try_from(address.address).ok()?.into())).collect();
        let record: Record = serde_json::from_str(&part("boot record")?).context("reading the node's boot record")?;
        let Record { trust, image: Image { media } } = record;
        Ok(Self { uname, root, hostname, setup: port.administrative_state, leased, trust, media })
    }

    /// What the image is, where the root file system and the record agree.
    ///
    /// # Errors
    /// They do not.
    pub fn image(&self) -> Result<String> {
        match (self.root.as_str(), self.media.as_str()) {
            ("tmpfs", media) if media.starts_with("tar") => Ok(ARCHIVE.to_owned()),
            ("overlay", media @ ("squashfs" | "erofs")) => Ok(media.to_owned()),
            (root, media) => anyhow::bail!("the node's root file system is {root}, of a {media} image"),
        }
    }
}

/// Gathers the evidence while everything still runs. `tap` is the node's wire.
///
/// # Errors
/// A trace that every boot leaves is missing.
pub fn gather(
    transcript: &Transcript,
    servers: &Servers,
    machine: &mut Machine,
    tap: &str,
    visit: &Visit,
) -> Result<Evidence> {
    let dhcp: Vec<String> = servers.dhcp_log(transcript).into_iter().map(|line| line.text).collect();
    let port = network::port(tap)?;
    ensure!(port.carrier && port.master.as_deref() == Some(BRIDGE), "{tap} is not a live port of {BRIDGE}: {port:?}");
    let power = match switched_by(machine.id())? {
        Some(bmc) => bmc,
        None if sockets::parent(machine.id())? == std::process::id() => "lab".to_owned(),
        None => "other".to_owned(),
    };
    Ok(Evidence {
        firmware: firmware(&dhcp)?,
        servers: servers.owners()?,
        nodes: logins(&transcript.containing(" login: ")),
        power,
        trust: visit.trust.clone(),
        image: visit.image()?,
        net: port.kind,
        accel: machine.accel()?,
    })
}

/// The firmware of the node that PXE-booted, from the first client architecture it sent (RFC 4578).
fn firmware(dhcp: &[String]) -> Result<&'static str> {
    let arch = dhcp.iter().find_map(|line| line.split_once("PXEClient:Arch:")?.1.split(':').next());
    let code = arch.with_context(|| format!("no PXE client in the DHCP log of {MASTER}"))?;
    ensure!(dhcp.iter().any(|line| line.contains("DHCPACK") && line.contains(NODE_MAC)), "no lease for {NODE_MAC}");
    match code {
        "00000" => Ok("bios"),
        "00007" | "00009" => Ok("uefi"),
        other => anyhow::bail!("client architecture {other} is of no firmware that the lab knows"),
    }
}

fn logins(prompts: &[Line]) -> usize {
    prompts.iter().map(|line| &line.source).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_is_what_the_client_sent() {
        let log = |arch: &str| {
            vec![
                format!("1 vendor class: PXEClient:Arch:{arch}:UNDI:002001"),
                format!("1 DHCPACK(br0) 172.16.0.1 {NODE_MAC} n1"),
            ]
        };
        assert_eq!(firmware(&log("00000")).unwrap(), "bios");
        assert_eq!(firmware(&log("00007")).unwrap(), "uefi");
        assert!(firmware(&log("00011")).is_err());
        assert!(firmware(&[]).is_err());
        assert!(firmware(&log("00000")[..1]).unwrap_err().to_string().contains("no lease"));
    }

    #[test]
    fn a_visit_is_read() {
        let port = r#"{"AdministrativeState":"configured","Addresses":[
            {"Family":2,"Address":[172,16,0,1],"ConfigSource":"DHCPv4"},
            {"Family":2,"Address":[172,16,0,9],"ConfigSource":"foreign"},
            {"Family":10,"Address":[254,128,0,0,0,0,0,0,80,84,0,255,254,172,16,1],"ConfigSource":"foreign"}]}"#;
        let record = "{\n \"trust\": \"digest\", \"ok\": true, \"image\": { \"media\": \"tar+zstd\" } }";
        let output = format!("Linux n1 6.1.0\nn1\ntmpfs\n{}\n{record}\n", port.replace('\n', ""));
        let visit = Visit::parse(&output).unwrap();
        assert_eq!((visit.uname.as_str(), visit.root.as_str()), ("Linux n1 6.1.0", "tmpfs"));
        assert_eq!((visit.hostname.as_str(), visit.trust.as_str()), ("n1", "digest"));
        assert_eq!((visit.setup.as_str(), &visit.leased), ("configured", &vec![Ipv4Addr::new(172, 16, 0, 1)]));
        assert_eq!(visit.image().unwrap(), "debian");
        let mounted = Visit { root: "overlay".to_owned(), media: "erofs".to_owned(), ..visit };
        assert_eq!(mounted.image().unwrap(), "erofs");
        let neither = Visit { root: "tmpfs".to_owned(), ..mounted };
        assert!(neither.image().unwrap_err().to_string().contains("is tmpfs, of a erofs image"));
        // As it is while udev cannot rename the port.
        let pending = format!("Linux\nn1\ntmpfs\n{{\"AdministrativeState\":\"pending\"}}\n{record}");
        let visit = Visit::parse(&pending).unwrap();
        assert!(visit.setup == "pending" && visit.leased.is_empty());
        assert!(Visit::parse("Linux\nn1\n\n{}").unwrap_err().to_string().contains("root file system"));
    }

    #[test]
    fn the_closing_line_has_every_value() {
        let evidence = Evidence {
            firmware: "bios",
            servers: "rootstream".into(),
            nodes: 1,
            power: "lab".to_owned(),
            trust: "digest".into(),
            image: "debian".into(),
            net: "tap".into(),
            accel: "tcg",
        };
        let line = "firmware=bios servers=rootstream nodes=1 power=lab trust=digest net=tap accel=tcg";
        assert_eq!(evidence.to_string(), line);
        let squashfs = Evidence { image: "squashfs".into(), ..evidence };
        assert_eq!(squashfs.to_string(), format!("{line} image=squashfs"));
    }
}
