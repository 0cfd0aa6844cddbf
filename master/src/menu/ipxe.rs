//! iPXE scripts, which nodes fetch by HTTP: one per node by its MAC, one for machines that no node entry names, and the
//! one that leads to them.

use std::collections::BTreeMap;

use anyhow::Result;

use super::entry::{Entry, Linux};
use super::folder::{self, Loader};
use crate::config::site::Site;

/// iPXE on top of the firmware's own driver of the card that it came through: UEFI's and BIOS's.
pub(crate) const LOADERS: [Loader; 2] = [
    Loader { name: "ipxe/snponly.efi", source: "/usr/lib/ipxe/snponly.efi", package: "ipxe" },
    Loader { name: "ipxe/undionly.kpxe", source: "/usr/lib/ipxe/undionly.kpxe", package: "ipxe" },
];

/// What DHCP names, relative to the root of the boot files.
pub(crate) const FIRST: &str = "ipxe/boot.ipxe";

/// Looks for the node's own script beside itself. Replaced by it: a script that gives up must not lead to the other.
const LEAD: &str =
    "#!ipxe\nchain --autofree --replace 01-${netX/mac:hexhyp}.ipxe || chain --autofree --replace default.ipxe\n";

/// Puts iPXE and its scripts into `tftp/ipxe/`, which HTTP serves as `/boot/ipxe/`; scripts of nodes that are gone
/// vanish. `boot` is the URL of all boot files.
///
/// # Errors
/// iPXE is not installed, or the disk refuses.
pub(super) fn write(site: &Site, entries: &[Entry], boot: &str, needed: bool) -> Result<()> {
    folder::install(site, &LOADERS, needed)?;
    folder::write(site, "tftp/ipxe", &scripts(entries, boot), |name| name.starts_with("01-"))
}

/// The scripts by their files' names, in the folder `ipxe/`.
pub(crate) fn scripts(entries: &[Entry], boot: &str) -> BTreeMap<String, String> {
    let of_node = |mac: crate::config::addresses::Mac| format!("{}.ipxe", mac.pxelinux());
    let mut files = folder::menus(entries, of_node, "default.ipxe", |entry| script(entry, boot));
    files.insert("boot.ipxe".to_owned(), LEAD.to_owned());
    files
}

/// The script of an entry: its kernel, or the reason why not and the machine's next boot device. `boot` is the URL of
/// all boot files.
pub(crate) fn script(entry: &Entry, boot: &str) -> String {
    let linux = entry.linux.as_ref().map_err(String::clone);
    match linux.and_then(|linux| unharmed(&linux.parameters).map(|()| linux)) {
        Ok(Linux { kernel, initramfs, parameters, .. }) => format!(
            "#!ipxe\nkernel {boot}/{kernel} initrd=initramfs BOOTIF=01-${{netX/mac:hexhyp}} {parameters}\n\
             initrd --name initramfs {boot}/{initramfs}\nboot\n"
        ),
        // iPXE would read its own words in it.
        Err(why) => {
            let said = entry.refusal(&why).replace("${", "$ {").replace("||", "|").replace("&&", "&");
            format!("#!ipxe\necho {said}\nsleep 5\nexit 1\n")
        }
    }
}

/// Whether iPXE leaves these parameters as they are: it has no way of quoting.
fn unharmed(parameters: &str) -> Result<(), String> {
    match parameters.split(' ').find(|word| word.contains("${") || matches!(*word, "||" | "&&")) {
        None => Ok(()),
        Some(word) => Err(format!("iPXE would not leave its kernel parameter {word} as it is; take another boot path")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::samples;
    use super::*;

    const BOOT: &str = "http://172.16.0.254/boot";

    #[test]
    fn a_script_boots_the_entry() {
        let expected = "#!ipxe\nkernel http://172.16.0.254/boot/compute/vmlinuz initrd=initramfs \
                        BOOTIF=01-${netX/mac:hexhyp} quiet console=ttyS0\n\
                        initrd --name initramfs http://172.16.0.254/boot/compute/initramfs\nboot\n";
        assert_eq!(script(&samples::entry(Ok("quiet console=ttyS0")), BOOT), expected);
    }

    #[test]
    fn what_ipxe_would_change_is_refused() {
        for harmful in ["rootstream.overlay=http://m/${mac}.tar", "a || b"] {
            let text = script(&samples::entry(Ok(harmful)), BOOT);
            assert!(text.contains("echo rootstream: node n1: iPXE would not leave"), "{text}");
            assert!(text.ends_with("sleep 5\nexit 1\n") && !text.contains("${") && !text.contains("||"), "{text}");
        }
    }
}
