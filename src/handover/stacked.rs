//! The VLANs and bonds that a port is made of, as systemd-networkd knows them: it goes on with a device that is there
//! already, and leaves it as it is.

use std::fmt::Write;

use super::files::File;
use super::networkd::FOLDER;
use super::stage2::Port;
use crate::mac::Mac;
use crate::net::{BondOption, Device, Kind};

/// Options of a bond: the kernel's name, systemd's, and the unit that systemd wants behind numbers. What is not here
/// stays as stage 1 set it.
const BOND: [(&str, &str, &str); 24] = [
    ("mode", "Mode", ""),
    ("miimon", "MIIMonitorSec", "ms"),
    ("updelay", "UpDelaySec", "ms"),
    ("downdelay", "DownDelaySec", "ms"),
    ("xmit_hash_policy", "TransmitHashPolicy", ""),
    ("lacp_rate", "LACPTransmitRate", ""),
    ("ad_select", "AdSelect", ""),
    ("ad_actor_sys_prio", "AdActorSystemPriority", ""),
    ("ad_user_port_key", "AdUserPortKey", ""),
    ("ad_actor_system", "AdActorSystem", ""),
    ("fail_over_mac", "FailOverMACPolicy", ""),
    ("arp_interval", "ARPIntervalSec", "ms"),
    ("arp_ip_target", "ARPIPTargets", ""),
    ("arp_validate", "ARPValidate", ""),
    ("arp_all_targets", "ARPAllTargets", ""),
    ("primary_reselect", "PrimaryReselectPolicy", ""),
    ("resend_igmp", "ResendIGMP", ""),
    ("packets_per_slave", "PacketsPerSlave", ""),
    ("num_grat_arp", "GratuitousARP", ""),
    ("all_slaves_active", "AllSlavesActive", ""),
    ("tlb_dynamic_lb", "DynamicTransmitLoadBalancing", ""),
    ("min_links", "MinLinks", ""),
    ("lp_interval", "LearnPacketIntervalSec", "s"),
    ("peer_notif_delay", "PeerNotifyDelaySec", "ms"),
];

/// A file for each device, and one for each port below it. `by_mac` is what ports of the machine are matched by: whatever
/// their names become in stage 2, and not those devices, which may share their MACs.
pub(super) fn networkd(port: &Port<'_>, by_mac: &str) -> Vec<File> {
    let devices = port.devices;
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    let file = |name: &str, end: &str, text: String| {
        let head = "# Written by rootstream: what the node booted from stays as it is.\n";
        File::new(&format!("{FOLDER}/zz-rootstream-{name}.{end}"), format!("{head}{text}"))
    };
    let mut files: Vec<File> =
        devices.iter().map(|device| file(&device.name, "netdev", netdev(device, port))).collect();
    for (device, lower) in devices.iter().flat_map(|device| device.on.iter().map(move |lower| (device, lower))) {
        let mut text = match lower.mac.filter(|_| !names.contains(&lower.name.as_str())) {
            Some(mac) => format!("[Match]\n{by_mac}={}\nName=!{}\n", Mac(mac), names.join(" ")),
            None => format!("[Match]\nName={}\n", lower.name),
        };
        let key = if matches!(device.kind, Kind::Vlan(_)) { "VLAN" } else { "Bond" };
        // Writing into a String cannot fail.
        let _ = writeln!(text, "\n[Network]\nLinkLocalAddressing=no\n{key}={}", device.name);
        if lower.primary {
            text += "PrimarySlave=yes\n";
        }
        files.push(file(&lower.name, "network", text));
    }
    files
}

fn netdev(device: &Device, port: &Port<'_>) -> String {
    match &device.kind {
        Kind::Vlan(id) => format!("[NetDev]\nName={}\nKind=vlan\n\n[VLAN]\nId={id}\n", device.name),
        Kind::Bond(options, mtu) => {
            let mtu = mtu.map(|mtu| format!("MTUBytes={mtu}\n")).unwrap_or_default();
            let options: String = options.iter().filter_map(setting).collect();
            // Else systemd makes one up.
            let mac = port.mac_text();
            format!("[NetDev]\nName={}\nKind=bond\nMACAddress={mac}\n{mtu}\n[Bond]\n{options}", device.name)
        }
    }
}

/// An option as a line for systemd.
fn setting(option: &BondOption) -> Option<String> {
    let (_, key, unit) = BOND.iter().find(|(name, ..)| *name == option.name)?;
    // Newer words of the kernel's that systemd does not know.
    if option.name == "arp_validate" && option.value.starts_with("filter") {
        return None;
    }
    Some(format!("{key}={}{unit}\n", option.value.replace(';', " ")))
}
