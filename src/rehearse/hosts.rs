//! Host names as this machine resolves them, for a rehearsal on its own network.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result};

use crate::image::Resolve;

/// The C library's resolver: /etc/hosts, DNS, whatever the machine is set up for.
#[derive(Debug)]
pub(super) struct HostNames;

impl Resolve for HostNames {
    fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = (bare, port).to_socket_addrs().with_context(|| format!("resolving {host}"))?;
        Ok(addresses.collect())
    }
}
