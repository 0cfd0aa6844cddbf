//! dnsmasq: dnsmasq(8). What it tells nodes is what the one of `up` does.

use std::fmt::Write;

use anyhow::Result;
use rootstream::failure::refuse;

use super::guide::{self, comment};
use super::plan::{Host, Plan};
use super::{Export, File, folders};
use crate::config::nodes::Nodes;
use crate::config::site::Site;
use crate::up::dnsmasq;

const FOLDER: &str = "/etc/dnsmasq.d";
const FILE: &str = "rootstream.conf";

/// The file for dnsmasq.d.
///
/// # Errors
/// dnsmasq would take the name of the interface or of a node for something else, or cannot have the folder of boot files
/// in its configuration.
pub(super) fn export(named: &guide::Site, site: &Site, nodes: &Nodes, plan: &Plan<'_>) -> Result<Export> {
    let mut steps = vec![
        ("check", "dnsmasq --test".to_owned()),
        ("start", "systemctl restart dnsmasq".to_owned()),
        ("", "rootstream config pxelinux    # the loaders' menus; again after each change".to_owned()),
    ];
    steps.extend(folders::closed(&site.tftp()).map(|folder| ("note", format!("{folder}, so dnsmasq serves no files"))));
    let guide = named.guide("dnsmasq", FOLDER, FILE, &steps);
    let text = format!("{}\n{}", comment(&guide, "#"), configuration(site, nodes, plan)?);
    Ok(Export { guide, files: vec![File { path: FILE.to_owned(), text }], loaders: Vec::new() })
}

fn configuration(site: &Site, nodes: &Nodes, plan: &Plan<'_>) -> Result<String> {
    let network = plan.network;
    let interface = network.interface();
    if !interface.chars().all(|c| c.is_ascii_alphanumeric() || "._-:@".contains(c)) {
        return Err(refuse(
            format!("dnsmasq would not take {interface} for the name of one interface"),
            "rename it: ip link set OLD name NEW; and correct site.toml",
        ));
    }
    let mut text = format!("interface={interface}\nlog-dhcp\n");
    if !network.dns.contains(&plan.master()) {
        text.push_str("# The nodes ask other name servers; where this dnsmasq is for nobody else either:\n# port=0\n");
    }
    let _ = writeln!(text, "enable-tftp\ntftp-root={}", dnsmasq::path(&site.tftp())?);
    text.push_str(&dnsmasq::dhcp(site, nodes, site.config().http.port));
    for host in &plan.hosts {
        text.push_str(&entry(host));
    }
    for (name, ip) in plan.names.iter().filter(|_| network.dns.contains(&plan.master())) {
        let full = network.domain.as_ref().map(|domain| format!(",{name}.{domain}")).unwrap_or_default();
        let _ = writeln!(text, "host-record={name}{full},{ip}");
    }
    Ok(text)
}

/// Which of its parts is what, dnsmasq tells by their looks; names that look like another part are no node's.
fn entry(Host { name, mac, ip, .. }: &Host) -> String {
    format!("dhcp-host={mac},{ip},{name}\n")
}
