//! DHCP and TFTP by a dnsmasq of our own, keyed on the nodes' MACs.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rootstream::failure::{Advise, refuse};
use tokio::process::{Child, Command};

use crate::aside;
use crate::config::addresses::Mac;
use crate::config::nodes::{Bmc, Nodes};
use crate::config::site::{Network, Site};

/// How long dnsmasq may take to answer.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(5);

/// The files that dnsmasq works with.
struct Files {
    config: PathBuf,
    nodes: NodeFiles,
    leases: PathBuf,
    log: PathBuf,
    tftp: PathBuf,
}

/// Where dnsmasq reads who the nodes are.
#[derive(Debug)]
struct NodeFiles {
    dhcp: PathBuf,
    dns: PathBuf,
}

impl NodeFiles {
    fn write(&self, nodes: &Nodes) -> Result<()> {
        let without: Vec<&str> =
            nodes.iter().filter(|node| node.mac.is_none()).map(|node| node.name.as_str()).collect();
        if !without.is_empty() {
            log::warn!("no MAC is known of {}, which cannot boot: rootstream node discover --help", without.join(","));
        }
        let (mut dhcp, mut dns) = (String::new(), String::new());
        let mut host = |mac: Option<Mac>, ip: Ipv4Addr, name: &str| {
            // A port that is not known yet gets nothing, its name is known all the same.
            if let Some(mac) = mac {
                dhcp.push_str(&format!("{mac},{ip},{name}\n"));
            }
            dns.push_str(&format!("{ip} {name}\n"));
        };
        for node in nodes.iter() {
            host(node.mac, node.ip, node.name.as_str());
            if let Some(bmc) = &node.bmc {
                host(bmc.mac, bmc.ip, &Bmc::name_of(&node.name));
            }
        }
        aside::write(&self.dhcp, dhcp.as_bytes())?;
        aside::write(&self.dns, dns.as_bytes())
    }
}

/// A running dnsmasq. It ends with the program that started it, however that ends.
#[derive(Debug)]
pub(super) struct Dnsmasq {
    child: Child,
    stderr: PathBuf,
    log: PathBuf,
    nodes: NodeFiles,
}

impl Dnsmasq {
    /// Writes its configuration and starts it; returns when it answers.
    ///
    /// # Errors
    /// It is not installed, ends at once (its message is part of the error) or does not answer.
    pub(super) async fn start(site: &Site, nodes: &Nodes) -> Result<Self> {
        let (run, log) = (site.folder("run")?, site.folder("log")?);
        let files = Files {
            config: run.join("dnsmasq.conf"),
            nodes: NodeFiles { dhcp: run.join("dnsmasq.nodes"), dns: run.join("dnsmasq.names") },
            leases: run.join("dnsmasq.leases"),
            log: log.join("dnsmasq.log"),
            tftp: site.tftp(),
        };
        aside::write(&files.config, configuration(site, &files)?.as_bytes())?;
        files.nodes.write(nodes)?;
        let stderr = run.join("dnsmasq.err");
        let stderr_file = fs::File::create(&stderr).with_context(|| format!("making {}", stderr.display()))?;
        // setpriv asks the kernel to end dnsmasq when we die, even by SIGKILL; a dnsmasq left
        // behind would go on answering with an old configuration.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "dnsmasq", "--keep-in-foreground"])
            .arg(format!("--conf-file={}", files.config.display()))
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr_file)
            .kill_on_drop(true)
            .spawn()
            .advise("starting dnsmasq through setpriv", "install it: apt-get install util-linux")?;
        let mut dnsmasq = Self { child, stderr, log: files.log, nodes: files.nodes };
        let address = site.config().network.address.address;
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = dnsmasq.child.try_wait().context("waiting for dnsmasq")? {
                return Err(dnsmasq.obituary(status));
            }
            // It opens its DHCP socket before it first answers anything.
            let answers = tokio::task::spawn_blocking(move || answers_tftp(address));
            if answers.await.context("asking by TFTP")?.is_ok() {
                return Ok(dnsmasq);
            }
            if Instant::now() > deadline {
                dnsmasq.stop().await?;
                return Err(anyhow::anyhow!("nothing comes back from {address} port 69")).advise(
                    format!("waiting {} s for dnsmasq to answer TFTP", START.as_secs()),
                    format!("look for a firewall on this machine, and into {}", dnsmasq.log.display()),
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Tells it of other nodes.
    ///
    /// # Errors
    /// The disk refuses, or the system to signal it.
    pub(super) fn reload(&self, nodes: &Nodes) -> Result<()> {
        self.nodes.write(nodes)?;
        self.signal(Signal::SIGHUP).context("telling dnsmasq to read its nodes again")
    }

    fn signal(&self, signal: Signal) -> nix::Result<()> {
        match self.child.id().and_then(|id| i32::try_from(id).ok()) {
            Some(pid) => kill(Pid::from_raw(pid), signal),
            // It has ended.
            None => Ok(()),
        }
    }

    /// Waits until it ends by itself, and says why it did.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => self.obituary(status),
            Err(error) => anyhow::Error::new(error).context("waiting for dnsmasq"),
        }
    }

    /// Ends it, and waits until it is gone.
    ///
    /// # Errors
    /// The system refuses to signal it or to wait for it.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM).context("ending dnsmasq")?;
        if let Ok(ended) = tokio::time::timeout(STOP, self.child.wait()).await {
            ended.context("waiting for dnsmasq to end")?;
            return Ok(());
        }
        log::warn!("dnsmasq did not end within {} s and is killed", STOP.as_secs());
        self.child.kill().await.context("killing dnsmasq")
    }

    fn obituary(&self, status: std::process::ExitStatus) -> anyhow::Error {
        let said = fs::read_to_string(&self.stderr).unwrap_or_default();
        let said = if said.trim().is_empty() { "no message".to_owned() } else { said.trim().replace('\n', "; ") };
        refuse(
            format!("dnsmasq ended ({status}): {said}"),
            format!(
                "another DHCP or TFTP server may run here (ss -lunp), the interface may be missing (ip address), \
                 or dnsmasq may not be installed (apt-get install dnsmasq-base); its log is {}",
                self.log.display()
            ),
        )
    }
}

/// dnsmasq is in /usr/sbin, which is not on every user's path.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Fetches a small file that is there, by TFTP (RFC 1350). To its end: dnsmasq logs a transfer that breaks
/// off as a failure.
fn answers_tftp(server: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind(SocketAddrV4::new(server, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.send_to(b"\0\x01pxelinux.cfg/default\0octet\0", SocketAddrV4::new(server, 69))?;
    let mut packet = [0; 4 + 512];
    loop {
        let (length, from) = socket.recv_from(&mut packet)?;
        let [0, 3, high, low, ..] = packet else {
            // An error is a sign of life too.
            return Ok(());
        };
        socket.send_to(&[0, 4, high, low], from)?;
        if length < packet.len() {
            return Ok(());
        }
    }
}

fn configuration(site: &Site, files: &Files) -> Result<String> {
    let network = &site.config().network;
    let mut text = String::from("# Written by `rootstream up` at every start, from site.toml and nodes.toml.\n");
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    // Root inside: the site may lie in a folder that only its owner can enter.
    line("user=root\ngroup=root\nno-resolv\nno-hosts".to_owned());
    line(format!("interface={}\nexcept-interface=lo\nbind-interfaces", network.interface()));
    line(format!("log-dhcp\nlog-facility={}", path(&files.log)?));
    line(format!("dhcp-leasefile={}", path(&files.leases)?));
    // No file for its pid: the usual one belongs to the system's own dnsmasq.
    line("pid-file=".to_owned());
    if !network.dns.contains(&network.address.address) {
        line("port=0".to_owned());
    }
    // Both are read again at SIGHUP.
    line(format!("dhcp-hostsfile={}", path(&files.nodes.dhcp)?));
    line(format!("addn-hosts={}", path(&files.nodes.dns)?));
    line(format!("enable-tftp\ntftp-root={}", path(&files.tftp)?));
    text.push_str(&dhcp(network));
    Ok(text)
}

/// What nodes are told, in dnsmasq's words.
pub(crate) fn dhcp(network: &Network) -> String {
    let (net, mask, lease) = (network.address.network(), network.address.mask(), &network.lease);
    let master = network.address.address;
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    line(format!("dhcp-range={net},static,{mask},{lease}"));
    if let Some(range) = network.range() {
        line(format!("dhcp-range={},{},{mask},{lease}", range.first, range.last));
    }
    // A node's ROM, stage 1 and stage 2 send different client identifiers; the port is the same.
    line("dhcp-ignore-clid".to_owned());
    match network.gateway() {
        Some(gateway) => line(format!("dhcp-option=option:router,{gateway}")),
        // Without this dnsmasq would offer itself.
        None => line("dhcp-option=option:router".to_owned()),
    }
    if network.dns.is_empty() {
        line("dhcp-option=option:dns-server".to_owned());
    } else {
        let servers: Vec<_> = network.dns.iter().map(ToString::to_string).collect();
        line(format!("dhcp-option=option:dns-server,{}", servers.join(",")));
    }
    if let Some(domain) = &network.domain {
        line(format!("domain={domain}\nexpand-hosts\nlocal=/{domain}/"));
    }
    // By architecture only: network cards with an iPXE ROM say that they are iPXE, and still
    // need the loader.
    line(format!("dhcp-match=set:bios,option:client-arch,0\ndhcp-boot=tag:bios,pxelinux.0,{master},{master}"));
    // Stage 1 knows the site's own server by this and need not wait for other offers.
    line("dhcp-vendorclass=set:rootstream,rootstream\ndhcp-option-force=tag:rootstream,60,rootstream".to_owned());
    if let Some(prefix) = network.ipv6_prefix {
        line(format!("enable-ra\nquiet-ra\ndhcp-range={},ra-only,64", prefix.address()));
    }
    text
}

/// A path as dnsmasq's configuration can hold it.
pub(crate) fn path(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) if !text.contains(['\n', '"', '#', ',']) => Ok(text),
        _ => bail!("dnsmasq cannot work with the path {}; move the site", path.display()),
    }
}
