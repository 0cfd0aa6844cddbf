//! ISC dhcpd: dhcpd.conf(5), dhcp-options(5), dhcp-eval(5).
//!
//! Everything is inside a shared network of its own or a host, so that what dhcpd does for other networks stays.

use std::fmt::Write;

use super::guide::{self, comment, shell_word};
use super::plan::{HTTP, Host, Plan, Rule, STAGE_1, Way};
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
    line(rules(plan, plan.way, "  "));
    line("  if exists vendor-class-identifier {".to_owned());
    line("    log(info, concat(\"vendor class of \", binary-to-ascii(16, 8, \":\", substring(hardware, 1, 6)), \": \", option vendor-class-identifier));\n  }".to_owned());
    line("  # Stage 1 knows the site's own server by this and need not wait for other offers.".to_owned());
    line(format!("  if option vendor-class-identifier = \"{STAGE_1}\" {{"));
    line(format!("    {}\n  }}", tell(STAGE_1)));
    line(format!("  subnet {net} netmask {mask} {{"));
    if let Some(range) = network.range() {
        line(format!("    range {} {};", range.first, range.last));
    }
    line("  }\n}\n".to_owned());
    for host in plan.hosts.iter().filter(|host| host.way == plan.way) {
        line(entry(host));
    }
    for way in plan.other_ways() {
        line(format!("\ngroup {{\n{}", rules(plan, way, "  ")));
        for host in plan.hosts.iter().filter(|host| host.way == way) {
            line(format!("  {}", entry(host)));
        }
        line("}".to_owned());
    }
    text
}

/// The boot files of this way, as a chain of conditions.
fn rules(plan: &Plan<'_>, way: Way, indent: &str) -> String {
    let rule = |rule: Rule| {
        let [high, low] = rule.architecture.to_be_bytes();
        let ipxe = if rule.ipxe { " and option user-class = \"iPXE\"" } else { "" };
        let http = if rule.is_http() { format!(" {}", tell(HTTP)) } else { String::new() };
        format!(
            "if option rootstream-architecture = {high:02x}:{low:02x}{ipxe} {{ filename \"{}\";{http} }}",
            rule.file
        )
    };
    let rules: Vec<String> = plan.rules(way).into_iter().map(rule).collect();
    format!("{indent}{}", rules.join(&format!("\n{indent}els")))
}

/// Puts a vendor class into the answer, for which nobody asks.
fn tell(class: &str) -> String {
    format!(
        "option vendor-class-identifier \"{class}\"; \
         option dhcp-parameter-request-list = concat(option dhcp-parameter-request-list, 3c);"
    )
}

/// A host's name in the configuration must not be a number or one of another host of the site's.
fn entry(Host { name, mac, ip, .. }: &Host) -> String {
    format!("host rootstream-{name} {{ hardware ethernet {mac}; fixed-address {ip}; option host-name \"{name}\"; }}")
}
