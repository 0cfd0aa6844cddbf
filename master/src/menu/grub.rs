//! GRUB's configuration: one file per node by its MAC, one for machines that no node entry names, and the one that
//! leads to them.
//!
//! Debian's network image of GRUB reads `grub/grub.cfg` first, and finds kernels by the server that it came from.

use std::collections::BTreeMap;

use anyhow::Result;

use super::entry::{Entry, Linux};
use super::folder::{self, Loader};
use crate::config::site::Site;

/// GRUB for the network, signed for machines with Secure Boot and a shim.
pub(crate) const LOADERS: [Loader; 1] = [Loader {
    name: "grub/grubnetx64.efi",
    source: "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    package: "grub-efi-amd64-signed",
}];

/// What GRUB reads first. `-s` and not `-e`, which never finds anything on a network.
const FIRST: &str = "\
if [ -s $prefix/$net_default_mac.cfg ]; then
  source $prefix/$net_default_mac.cfg
else
  source $prefix/default.cfg
fi
# Whoever gets here did not boot. GRUB cannot tell the firmware so, which then would go on: the next boot device is
# the disk, and without one the firmware's own menu.
sleep 5
if search --no-floppy --file --set=root /EFI/BOOT/BOOTX64.EFI; then
  chainloader /EFI/BOOT/BOOTX64.EFI
  boot
fi
exit
";

/// Puts GRUB and its configuration into `tftp/grub/`; files of nodes that are gone vanish.
///
/// # Errors
/// GRUB is not installed, or the disk refuses.
pub(super) fn write(site: &Site, entries: &[Entry], needed: bool) -> Result<()> {
    folder::install(site, &LOADERS, needed)?;
    let is_node = |name: &str| name.ends_with(".cfg") && name.contains(':');
    folder::write(site, "tftp/grub", &configurations(entries), is_node)
}

/// GRUB's files by their names, in the folder `grub/`.
pub(crate) fn configurations(entries: &[Entry]) -> BTreeMap<String, String> {
    let mut files = folder::menus(entries, |mac| format!("{mac}.cfg"), "default.cfg", configuration);
    files.insert("grub.cfg".to_owned(), FIRST.to_owned());
    files
}

/// What GRUB does for an entry: it boots its kernel, or says why not.
pub(crate) fn configuration(entry: &Entry) -> String {
    let Linux { kernel, initramfs, parameters, .. } = match &entry.linux {
        Ok(linux) => linux,
        Err(why) => return format!("echo {}\n", quoted(&entry.refusal(why))),
    };
    let port = match entry.node.as_ref().and_then(|node| node.mac) {
        Some(mac) => mac.pxelinux(),
        None => "$net_default_mac".to_owned(),
    };
    let words: Vec<String> = parameters.split_whitespace().map(quoted).collect();
    format!("linux /{kernel} BOOTIF={port} {}\ninitrd /{initramfs}\nboot\n", words.join(" "))
}

/// As GRUB's shell reads it back.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::super::entry::samples;
    use super::*;

    #[test]
    fn a_node_boots_its_kernel_with_its_parameters_as_they_are() {
        let text = configuration(&samples::entry(Ok("a=${mac} 'b' console=ttyS0;c")));
        let expected = "linux /compute/vmlinuz BOOTIF=01-52-54-00-ac-10-01 'a=${mac}' ''\\''b'\\''' \
                        'console=ttyS0;c'\ninitrd /compute/initramfs\nboot\n";
        assert_eq!(text, expected);
        let unknown = configuration(&Entry { node: None, ..samples::entry(Ok("quiet")) });
        assert!(unknown.contains("BOOTIF=$net_default_mac 'quiet'\n"), "{unknown}");
    }

    #[test]
    fn a_node_that_cannot_boot_is_told_why() {
        let text = configuration(&samples::entry(Err("it's\nmissing $x")));
        assert_eq!(text, "echo 'rootstream: node n1: it'\\''s missing $x'\n");
    }
}
