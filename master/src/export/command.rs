//! `rootstream config`: its words, and what it says when it is done.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::guide::Site as Named;
use super::plan::Plan;
use super::{Export, dnsmasq, isc_dhcp, kea, menus, nginx, output, tftpd};
use crate::config::nodes::Nodes;
use crate::config::site::Site;
use crate::say;

/// The configuration of a server.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Whose configuration.
    #[arg(value_enum)]
    server: Server,
    /// Write the files into this folder, instead of to stdout.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace files there that were not written by this command.
    #[arg(long, requires = "output")]
    force: bool,
}

/// The servers that configuration can be written for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Server {
    /// DHCP and TFTP by dnsmasq: for /etc/dnsmasq.d
    Dnsmasq,
    /// DHCP by ISC dhcpd: for /etc/dhcp
    IscDhcp,
    /// DHCP by Kea: for /etc/kea
    Kea,
    /// TFTP by tftpd-hpa: for /etc/default
    Tftpd,
    /// HTTP by nginx: for /etc/nginx/conf.d
    Nginx,
    /// PXELINUX's menus, one for each MAC: for the TFTP server's folder
    Pxelinux,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// A mistake in the site's configuration, a value that the server's syntax cannot hold, a folder that cannot be
    /// written, or a file in it that is somebody else's.
    pub(crate) fn run(&self, site: &Site) -> Result<()> {
        let nodes = Nodes::of(site)?;
        let export = self.server.export(site, &nodes)?;
        match &self.output {
            Some(folder) => output::write(&export, folder, &site.tftp(), self.force)?,
            None => output::print(&export),
        }
        export.guide.iter().for_each(say::note);
        Ok(())
    }
}

impl Server {
    fn export(self, site: &Site, nodes: &Nodes) -> Result<Export> {
        let (named, plan) = (Named::of(site)?, || Plan::of(site, nodes));
        match self {
            Self::Dnsmasq => dnsmasq::export(&named, site, &plan()),
            Self::IscDhcp => Ok(isc_dhcp::export(&named, &plan())),
            Self::Kea => kea::export(&named, &plan()),
            Self::Tftpd => tftpd::export(&named, site),
            Self::Nginx => nginx::export(&named, site),
            Self::Pxelinux => menus::pxelinux(&named, site, nodes),
        }
    }
}
