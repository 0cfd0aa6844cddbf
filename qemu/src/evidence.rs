//! What a boot really was, from what each part of it left behind.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::bmc::board::switched_by;
use crate::classic;
use crate::firmware::Firmware;
use crate::machine::Machine;
use crate::servers::Servers;
use crate::site::{BRIDGE, MASTER, Member};
use crate::timeline::{DNSMASQ, HTTP, fetched};
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

/// A node that was booted, and what it is asked about.
#[derive(Debug)]
pub struct Booted<'a> {
    /// Which one.
    pub node: &'a Member,
    /// Its machine.
    pub machine: &'a mut Machine,
    /// What it said of itself.
    pub visit: &'a Visit,
}

/// Gathers the evidence while everything still runs. `servers` are those that run.
///
/// # Errors
/// A trace that every boot leaves is missing, or the nodes differ.
pub fn gather(transcript: &Transcript, servers: &Servers, nodes: &mut [Booted<'_>]) -> Result<Evidence> {
    let mut all = nodes.iter_mut().map(|booted| of_one(transcript, servers, booted));
    let mut evidence = all.next().context("no node was booted")??;
    for other in all {
        let other = other?;
        ensure!(other == evidence, "the nodes differ: {other}, and {evidence}");
    }
    evidence.nodes = logins(&transcript.containing(" login: "));
    Ok(evidence)
}

fn of_one(transcript: &Transcript, servers: &Servers, booted: &mut Booted<'_>) -> Result<Evidence> {
    let Booted { node, machine, visit } = booted;
    let port = network::port(&node.tap)?;
    ensure!(
        port.carrier && port.master.as_deref() == Some(BRIDGE),
        "{} is not a live port of {BRIDGE}: {port:?}",
        node.tap
    );
    let power = match switched_by(machine.id())? {
        Some(bmc) => bmc,
        None if sockets::parent(machine.id())? == std::process::id() => "lab".to_owned(),
        None => "other".to_owned(),
    };
    let sources = [DNSMASQ, HTTP].into_iter().chain(classic::LOGS.map(|(source, _)| source));
    let logs: Vec<Line> = sources.flat_map(|source| transcript.lines(source)).collect();
    Ok(Evidence {
        firmware: firmware(&logs, node)?.as_str(),
        servers: servers.owners()?,
        nodes: 1,
        power,
        trust: visit.trust.clone(),
        image: visit.image()?,
        net: port.kind,
        accel: machine.accel()?,
    })
}

/// The firmware of a node: the first client architecture that it sent (RFC 4578) and the files that it fetched tell.
fn firmware(logs: &[Line], node: &Member) -> Result<Firmware> {
    let dhcp: Vec<&str> = logs.iter().filter(|line| line.source == DNSMASQ).map(|line| line.text.as_str()).collect();
    // The lines of one exchange begin with its number.
    let number = |line: &str| line.split_once("]: ").and_then(|(_, said)| said.split(' ').next()).map(str::to_owned);
    let is_lease = |line: &Line| classic::leased(&line.source, &line.text, &node.mac);
    ensure!(
        dhcp.iter().any(|line| line.contains("DHCPACK(") && line.contains(&node.mac)) || logs.iter().any(is_lease),
        "{MASTER} logged no lease for {}",
        node.mac
    );
    let own: BTreeSet<String> =
        dhcp.iter().filter(|line| line.contains(&node.mac)).filter_map(|line| number(line)).collect();
    let asked = dhcp.into_iter().filter(|line| number(line).is_some_and(|number| own.contains(&number)));
    let code = asked
        .filter_map(|line| line.split_once("Client:Arch:")?.1.split(':').next())
        .chain(logs.iter().filter_map(|line| classic::architecture(&line.source, &line.text, &node.mac)))
        .next();
    let code = code.with_context(|| format!("no client architecture of {} in the DHCP log of {MASTER}", node.name))?;
    let has = |file: &String| logs.iter().any(|line| fetched(&line.source, &line.text, file, &node.address));
    let possible = Firmware::ALL.into_iter().filter(|firmware| firmware.architectures().contains(&code));
    let taken: Vec<_> = possible.filter(|firmware| firmware.files(&node.dashed()).iter().all(has)).collect();
    match taken[..] {
        [one] => Ok(one),
        _ => bail!(
            "client architecture {code} and the files that {} fetched tell of no one firmware: {taken:?}",
            node.name
        ),
    }
}

fn logins(prompts: &[Line]) -> usize {
    prompts.iter().map(|line| &line.source).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(source: &str, lines: &[&str]) -> Vec<Line> {
        let at = std::time::Instant::now();
        lines.iter().map(|text| Line { source: source.to_owned(), text: (*text).to_owned(), at }).collect()
    }

    fn lease(number: u32, class: &str, node: &Member) -> Vec<Line> {
        let Member { mac, address, name, .. } = node;
        let stamp = "Nov 23 06:00:00 dnsmasq-dhcp[9]: ";
        log(
            DNSMASQ,
            &[
                &format!("{stamp}{number} vendor class: {class}:UNDI:003000"),
                &format!("{stamp}{number} DHCPDISCOVER(br0) {mac}"),
                &format!("{stamp}{number} DHCPACK(br0) {address} {mac} {name}"),
            ],
        )
    }

    #[test]
    fn firmware_is_what_the_client_sent_and_fetched() {
        let (one, other) = (Member::new(1), Member::new(2));
        let tftp = |file: &str, node: &Member| {
            log(DNSMASQ, &[&format!("Nov 23 06:00:00 dnsmasq-tftp[9]: sent /site/tftp/{file} to {}", node.address)])
        };
        let http = |file: &str, node: &Member| {
            log(HTTP, &[&format!("2026-11-23T06:00:00.000Z {} GET {file} - 200 9 0.010 done", node.address)])
        };
        let bios = [tftp("pxelinux.0", &one), tftp("ldlinux.c32", &one)].concat();
        let pxe = lease(1, "PXEClient:Arch:00000", &one);
        assert_eq!(firmware(&[&pxe[..], &bios].concat(), &one).unwrap(), Firmware::Bios);
        assert!(firmware(&pxe, &one).unwrap_err().to_string().contains("tell of no one firmware: []"));
        assert!(firmware(&bios, &one).unwrap_err().to_string().contains("no lease for 52:54:00:ac:10:01"));
        // Another node's architecture and files are none of its own.
        let uefi = lease(2, "PXEClient:Arch:00007", &other);
        let grub = [tftp("grub/grubnetx64.efi", &other), tftp("grub/52:54:00:ac:10:02.cfg", &other)].concat();
        let both = [&uefi[..], &grub, &pxe, &bios].concat();
        assert_eq!(firmware(&both, &one).unwrap(), Firmware::Bios);
        assert_eq!(firmware(&both, &other).unwrap(), Firmware::UefiGrub);
        assert!(firmware(&[&uefi[..], &bios].concat(), &other).is_err());
        // What comes after the firmware says that it is PXE.
        let by_http = lease(3, "HTTPClient:Arch:00016", &one);
        let ipxe = lease(4, "PXEClient:Arch:00007", &one);
        let files = [http("/boot/ipxe/snponly.efi", &one), http("/boot/ipxe/01-52-54-00-ac-10-01.ipxe", &one)].concat();
        assert_eq!(firmware(&[&by_http[..], &ipxe, &files].concat(), &one).unwrap(), Firmware::UefiHttp);
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
