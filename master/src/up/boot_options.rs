//! Which loader the firmware of a node gets, in dnsmasq's words.

use std::fmt::Write;

use crate::config::nodes::{BootPath, Nodes};
use crate::config::site::Site;
use crate::menu::{grub, ipxe, pxelinux, syslinux};

/// The tag of nodes for which the site's default does not count.
const OWN: &str = "own-path";

/// The tag of nodes that boot in this way.
fn tag(path: BootPath) -> String {
    format!("boot-{path}")
}

/// What dnsmasq answers to firmware and to iPXE, by client architecture (RFC 4578; 16 is that of UEFI HTTP boot) and by
/// the tags of the nodes. `boot` is the URL of the boot files.
///
/// Where a firmware cannot go the way that is asked for, it goes its own: BIOS by PXELINUX, UEFI by iPXE. No two of the
/// rules are ever true at once. Network cards with an iPXE ROM say that they are iPXE from the start, so that alone
/// decides nothing.
pub(super) fn options(site: &Site, nodes: &Nodes, boot: &str) -> String {
    let master = site.config().network.address.address;
    let [pxelinux, _] = pxelinux::LOADERS.map(|loader| loader.name);
    let [syslinux, _] = syslinux::LOADERS.map(|loader| loader.name);
    let [grub] = grub::LOADERS.map(|loader| loader.name);
    let [snponly, undionly] = ipxe::LOADERS.map(|loader| loader.name);
    let script = format!("{boot}/{}", ipxe::FIRST);
    let (by_ipxe, by_grub, by_syslinux) = (tag(BootPath::Ipxe), tag(BootPath::Grub), tag(BootPath::Syslinux));
    let mut text = String::new();
    for (firmware, architecture) in [("bios", 0), ("efi64", 7), ("efi64", 9), ("efihttp", 16)] {
        let _ = writeln!(text, "dhcp-match=set:{firmware},option:client-arch,{architecture}");
    }
    text.push_str("dhcp-userclass=set:ipxe,iPXE\n");
    for node in nodes.iter() {
        if let (Some(mac), Some(path)) = (node.mac, node.boot) {
            let _ = writeln!(text, "dhcp-mac=set:{OWN},{mac}\ndhcp-mac=set:{},{mac}", tag(path));
        }
    }
    if let Some(path) = site.boot_path(None) {
        let _ = writeln!(text, "tag-if=set:{},tag:!{OWN}", tag(path));
    }
    let other = format!("tag:efi64,tag:!{by_grub},tag:!{by_syslinux}");
    for (tags, file) in [
        (format!("tag:bios,tag:!{by_ipxe}"), pxelinux),
        (format!("tag:bios,tag:{by_ipxe},tag:!ipxe"), undionly),
        (format!("tag:efi64,tag:{by_grub}"), grub),
        (format!("tag:efi64,tag:{by_syslinux}"), syslinux),
        (format!("{other},tag:!ipxe"), snponly),
    ] {
        let _ = writeln!(text, "dhcp-boot={tags},{file},{master},{master}");
    }
    for tags in [format!("tag:bios,tag:{by_ipxe},tag:ipxe"), format!("{other},tag:ipxe")] {
        let _ = writeln!(text, "dhcp-boot={tags},{script}");
    }
    // Firmware takes no other answer for one about HTTP.
    let _ = writeln!(text, "dhcp-boot=tag:efihttp,{boot}/{snponly}\ndhcp-option-force=tag:efihttp,60,HTTPClient");
    text
}
