//! ISC dhcpd: dhcpd.conf(5), dhcp-options(5), dhcp-eval(5).
//!
//! Everything is inside a shared network of its own or a host, so that what dhcpd does for other networks stays.

use std::fmt::Write;

use super::guide::{self, comment, shell_word};
use super::plan::{Host, Plan, STAGE_1};
use super::{Export, File};

const FOLDER: &str = "/etc/dhcp";
const FILE: &str = "rootstream.conf";

/// The file to include in dhcpd.conf. All that stands in it are addresses, numbers and names of letters, digits,
/// hyphens and dots, so nothing needs escaping.
pub(super) fn export(site: &guide::Site, plan: &Plan<'_>) -> Export {
    let interface = shell_word(&format!("INTERFACESv4=\"{}\"", plan.network.interface()));
    let guide = site.guide(
        "isc-dhcp",
        FOLDER,
        FILE,
        &[
            ("", format!("echo 'include \"{FOLDER}/{FILE}\";' >>{FOLDER}/dhcpd.conf    # once")),
            ("", format!("echo {interface} >>/etc/default/isc-dhcp-server    # once")),
            ("check", format!("dhcpd -t -cf {FOLDER}/dhcpd.conf")),
            ("start", "systemctl restart isc-dhcp-server".to_owned()),
        ],
    );
    let text = format!("{}\n{}", comment(&guide, "#"), configuration(plan));
    Export { guide, files: vec![File { path: FILE.to_owned(), text }], loaders: Vec::new() }
}

fn configuration(plan: &Plan<'_>) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    let network = plan.network;
    let (net, mask, lease) = (network.address.network(), network.address.mask(), plan.lease());
    line("option rootstream-architecture code 93 = unsigned integer 16;\n\nshared-network rootstream {".to_owned());
    line("  authoritative;".to_owned());
    line("  # A node's ROM, stage 1 and stage 2 send different client identifiers; the port is the same.".to_owned());
    line("  ignore-client-uids true;".to_owned());
    line(format!("  default-lease-time {lease};\n  max-lease-time {lease};"));
    line(format!("  option broadcast-address {};", network.address.broadcast()));
    if let Some(gateway) = network.gateway() {
        line(format!("  option routers {gateway};"));
    }
    if !network.dns.is_empty() {
        let servers: Vec<_> = network.dns.iter().map(ToString::to_string).collect();
        line(format!("  option domain-name-servers {};", servers.join(", ")));
    }
    if let Some(domain) = &network.domain {
        line(format!("  option domain-name \"{domain}\";"));
    }
    line(format!("  next-server {};", plan.master()));
    line(
        "  # By architecture only: network cards with an iPXE ROM say that they are iPXE, and still need the loader."
            .to_owned(),
    );
    for (place, loader) in plan.loaders.iter().enumerate() {
        let [high, low] = loader.architecture.to_be_bytes();
        let word = if place == 0 { "if" } else { "elsif" };
        line(format!(
            "  {word} option rootstream-architecture = {high:02x}:{low:02x} {{ filename \"{}\"; }}",
            loader.file
        ));
    }
    line("  if exists vendor-class-identifier {".to_owned());
    line("    log(info, concat(\"vendor class: \", option vendor-class-identifier));\n  }".to_owned());
    line("  # Stage 1 knows the site's own server by this and need not wait for other offers.".to_owned());
    line(format!("  if option vendor-class-identifier = \"{STAGE_1}\" {{"));
    line(format!("    option vendor-class-identifier \"{STAGE_1}\";"));
    // It is not in the list of what stage 1 asks for.
    line("    option dhcp-parameter-request-list = concat(option dhcp-parameter-request-list, 3c);\n  }".to_owned());
    line(format!("  subnet {net} netmask {mask} {{"));
    if let Some(range) = network.range() {
        line(format!("    range {} {};", range.first, range.last));
    }
    line("  }\n}\n".to_owned());
    plan.hosts.iter().for_each(|host| line(entry(host)));
    text
}

/// A host's name in the configuration must not be a number or one of another host of the site's.
fn entry(Host { name, mac, ip }: &Host) -> String {
    format!("host rootstream-{name} {{ hardware ethernet {mac}; fixed-address {ip}; option host-name \"{name}\"; }}")
}
