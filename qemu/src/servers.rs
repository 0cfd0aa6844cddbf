//! The servers that a node boots from: what SERVERS= says.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bound::Bound;
use crate::classic::{Classic, Programs};
use crate::site::{BRIDGE, Site};
use crate::sockets;
use crate::transcript::{Line, Transcript};

/// Running servers; they end with it.
#[derive(Debug)]
pub enum Servers {
    /// The companion's `up`.
    Rootstream(Bound),
    /// ISC dhcpd, tftpd-hpa and nginx, with configuration that the companion wrote.
    Classic(Classic),
}

impl Servers {
    /// Fetches what `kind` needs and this machine has not got, while there is a network; writes configuration.
    ///
    /// # Errors
    /// A package cannot be had, or the companion fails.
    pub fn prepare(kind: &str, site: &Site) -> Result<()> {
        if kind == "classic" {
            Programs::unpacked()?;
            site.configure_classic()?;
        }
        Ok(())
    }

    /// Starts those of `kind`, which was prepared, and waits until they answer; what they log goes into the transcript.
    ///
    /// # Errors
    /// They do not start.
    pub fn start(kind: &str, site: &Site, transcript: &Transcript) -> Result<Self> {
        if kind != "classic" {
            return Ok(Self::Rootstream(site.up(transcript)?));
        }
        let classic = Classic::start(&Programs::unpacked()?, &site.classic(), &site.logs(), BRIDGE)?;
        transcript.follow(DHCPD, &site.logs().join(crate::classic::DHCPD_LOG));
        Ok(Self::Classic(classic))
    }

    /// The lines of the DHCP server's log.
    pub fn dhcp_log(&self, transcript: &Transcript) -> Vec<Line> {
        transcript.lines(match self {
            Self::Rootstream(_) => "dnsmasq",
            Self::Classic(_) => DHCPD,
        })
    }

    /// Whose servers they are, by the processes that own the ports that nodes boot from.
    ///
    /// # Errors
    /// Nobody has one of the ports.
    pub fn owners(&self) -> Result<String> {
        let mut owners = Vec::new();
        for (protocol, port) in [("udp", 67), ("udp", 69), ("tcp", 80)] {
            owners.push((protocol, port, sockets::owner(protocol, port)?));
        }
        let up = |pid: u32| matches!(self, Self::Rootstream(up) if sockets::descends(pid, up.id()));
        if owners.iter().all(|(.., pid)| up(*pid)) {
            return Ok("rootstream".to_owned());
        }
        let programs: Vec<String> = owners.iter().map(|(.., pid)| program(*pid)).collect::<Result<_>>()?;
        if programs == ["dhcpd", "in.tftpd", "nginx"] {
            return Ok("classic".to_owned());
        }
        let who: Vec<String> = owners
            .iter()
            .zip(programs)
            .map(|((protocol, port, _), who)| format!("{who} at {protocol} port {port}"))
            .collect();
        Ok(who.join(", "))
    }

    /// Ends them.
    ///
    /// # Errors
    /// One did not end, or not well.
    pub fn stop(self, logs: &Path) -> Result<()> {
        match self {
            Self::Rootstream(up) => {
                let status = up.terminate(Duration::from_secs(20)).context("stopping the master's servers")?;
                ensure!(status.success(), "the master's servers ended with {status}; see {}", logs.display());
            }
            Self::Classic(classic) => drop(classic),
        }
        Ok(())
    }
}

/// The source of dhcpd's lines in the transcript.
const DHCPD: &str = "dhcpd";

/// The file name of a process's program.
fn program(pid: u32) -> Result<String> {
    let exe =
        std::fs::read_link(format!("/proc/{pid}/exe")).with_context(|| format!("asking what process {pid} is"))?;
    Ok(exe.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
