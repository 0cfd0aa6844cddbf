//! Kea's DHCPv4 server: its manual, chapter 8. JSON, whose strings hold anything.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde::Serialize;

use super::guide::{self, comment};
use super::plan::{Host, Loader, Plan, STAGE_1};
use super::{Export, File};

const FOLDER: &str = "/etc/kea";
const FILE: &str = "kea-dhcp4.conf";

/// The whole of kea-dhcp4.conf.
///
/// # Errors
/// It cannot be JSON.
pub(super) fn export(site: &guide::Site, plan: &Plan<'_>) -> Result<Export> {
    let guide = site.guide(
        "kea",
        FOLDER,
        FILE,
        &[
            (
                "",
                "--force replaces the one that Kea came with. Where Kea serves other networks already, take".to_owned(),
            ),
            ("", "\"client-classes\" and the element of \"subnet4\" into its configuration instead.".to_owned()),
            ("check", format!("kea-dhcp4 -t {FOLDER}/{FILE}")),
            ("start", "systemctl restart kea-dhcp4-server".to_owned()),
        ],
    );
    let configuration = serde_json::to_string_pretty(&Configuration { dhcp4: dhcp4(plan) }).context("writing JSON")?;
    let text = format!("{}{configuration}\n", comment(&guide, "#"));
    Ok(Export { guide, files: vec![File { path: FILE.to_owned(), text }], loaders: Vec::new() })
}

#[derive(Serialize)]
struct Configuration {
    #[serde(rename = "Dhcp4")]
    dhcp4: Dhcp4,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Dhcp4 {
    interfaces_config: Interfaces,
    lease_database: Leases,
    client_classes: Vec<Class>,
    subnet4: [Subnet; 1],
}

#[derive(Serialize)]
struct Interfaces {
    interfaces: [String; 1],
}

#[derive(Serialize)]
struct Leases {
    r#type: &'static str,
    name: &'static str,
}

/// What clients are told that a test holds for.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Class {
    name: String,
    test: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_file_name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    option_data: Vec<OptionData>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct OptionData {
    name: &'static str,
    data: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    always_send: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Subnet {
    id: u32,
    subnet: String,
    interface: String,
    authoritative: bool,
    match_client_id: bool,
    valid_lifetime: u32,
    next_server: Ipv4Addr,
    pools: Vec<Pool>,
    option_data: Vec<OptionData>,
    reservations: Vec<Reservation>,
}

#[derive(Serialize)]
struct Pool {
    pool: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Reservation {
    hw_address: String,
    ip_address: Ipv4Addr,
    hostname: String,
}

fn dhcp4(plan: &Plan<'_>) -> Dhcp4 {
    let interface = plan.network.interface();
    Dhcp4 {
        interfaces_config: Interfaces { interfaces: [interface.to_owned()] },
        lease_database: Leases { r#type: "memfile", name: "/var/lib/kea/kea-leases4.csv" },
        client_classes: plan.loaders.iter().map(loader).chain([stage_1()]).collect(),
        subnet4: [subnet(plan, interface)],
    }
}

fn loader(Loader { architecture, file }: &Loader) -> Class {
    Class {
        name: format!("rootstream-{architecture}"),
        test: format!("option[93].hex == 0x{architecture:04x}"),
        boot_file_name: Some(file.clone()),
        option_data: Vec::new(),
    }
}

/// Stage 1 knows the site's own server by this and need not wait for other offers.
fn stage_1() -> Class {
    Class {
        name: "rootstream-stage-1".to_owned(),
        test: format!("option[60].text == '{STAGE_1}'"),
        boot_file_name: None,
        option_data: vec![OptionData { always_send: true, ..option("vendor-class-identifier", STAGE_1) }],
    }
}

fn option(name: &'static str, data: impl ToString) -> OptionData {
    OptionData { name, data: data.to_string(), always_send: false }
}

fn subnet(plan: &Plan<'_>, interface: &str) -> Subnet {
    let network = plan.network;
    let mut options = vec![option("broadcast-address", network.address.broadcast())];
    options.extend(network.gateway().map(|gateway| option("routers", gateway)));
    if !network.dns.is_empty() {
        let servers: Vec<_> = network.dns.iter().map(ToString::to_string).collect();
        options.push(option("domain-name-servers", servers.join(", ")));
    }
    options.extend(network.domain.as_ref().map(|domain| option("domain-name", domain)));
    Subnet {
        id: 1,
        subnet: format!("{}/{}", network.address.network(), network.address.prefix),
        interface: interface.to_owned(),
        authoritative: true,
        // A node's ROM, stage 1 and stage 2 send different client identifiers; the port is the same.
        match_client_id: false,
        valid_lifetime: plan.lease(),
        next_server: plan.master(),
        pools: network
            .range()
            .map(|range| Pool { pool: format!("{} - {}", range.first, range.last) })
            .into_iter()
            .collect(),
        option_data: options,
        reservations: plan.hosts.iter().map(reservation).collect(),
    }
}

fn reservation(Host { name, mac, ip }: &Host) -> Reservation {
    Reservation { hw_address: mac.to_string(), ip_address: *ip, hostname: name.clone() }
}
