//! PXELINUX menus: one per node by its MAC, and one for machines that no node entry names.

use std::collections::BTreeMap;

use anyhow::Result;

use super::entry::{Entry, Linux};
use super::folder::{self, Loader};
use crate::config::addresses::Mac;
use crate::config::site::Site;

/// What PXELINUX needs beside the menus.
pub(crate) const LOADERS: [Loader; 2] = [
    Loader { name: "pxelinux.0", source: "/usr/lib/PXELINUX/pxelinux.0", package: "pxelinux" },
    Loader { name: "ldlinux.c32", source: "/usr/lib/syslinux/modules/bios/ldlinux.c32", package: "syslinux-common" },
];

/// Puts the loader and all menus into `tftp/`; menus of nodes that are gone vanish.
///
/// # Errors
/// The loader is not installed, or the disk refuses.
pub(super) fn write(site: &Site, entries: &[Entry]) -> Result<()> {
    folder::install(site, &LOADERS, true)?;
    folder::write(site, "tftp/pxelinux.cfg", &menus(entries), |name| name.starts_with("01-"))
}

/// The menus by their files' names, in the folder `pxelinux.cfg/`.
pub(crate) fn menus(entries: &[Entry]) -> BTreeMap<String, String> {
    folder::menus(entries, Mac::pxelinux, "default", menu)
}

/// The menu of an entry: its kernel, or the reason why not and the machine's next boot device.
pub(crate) fn menu(entry: &Entry) -> String {
    match &entry.linux {
        Ok(linux) => boot(linux),
        Err(why) => {
            format!("DEFAULT none\nPROMPT 0\nSAY {}\nLABEL none\n  LOCALBOOT -1\n", entry.refusal(why))
        }
    }
}

fn boot(linux: &Linux) -> String {
    let Linux { kernel, initramfs, parameters, .. } = linux;
    format!(
        "{}DEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL {kernel}\n  INITRD {initramfs}\n  APPEND {parameters}\n  IPAPPEND 2\n",
        serial(parameters)
    )
}

/// PXELINUX talks on the serial port that the kernel will talk on. The line must be the first one.
fn serial(parameters: &str) -> String {
    let console = parameters.split_whitespace().rev().find_map(|p| p.strip_prefix("console=ttyS"));
    let Some(console) = console else { return String::new() };
    let (port, options) = console.split_once(',').unwrap_or((console, "9600"));
    let speed: String = options.chars().take_while(char::is_ascii_digit).collect();
    match (port.parse::<u8>(), speed.parse::<u32>()) {
        (Ok(port @ 0..=3), Ok(speed)) => format!("SERIAL {port} {speed}\n"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(parameters: &str) -> Linux {
        Linux {
            image: "compute".to_owned(),
            kernel: "compute/vmlinuz".to_owned(),
            initramfs: "compute/initramfs".to_owned(),
            parameters: parameters.to_owned(),
        }
    }

    #[test]
    fn a_menu_boots_the_entry() {
        let menu = "SERIAL 1 115200\nDEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL compute/vmlinuz\n  \
                    INITRD compute/initramfs\n  APPEND quiet console=ttyS1,115200n8\n  IPAPPEND 2\n";
        assert_eq!(boot(&linux("quiet console=ttyS1,115200n8")), menu);
    }

    #[test]
    fn no_serial_console_no_serial_line() {
        assert!(boot(&linux("quiet")).starts_with("DEFAULT"));
        assert_eq!(serial("console=ttyS0"), "SERIAL 0 9600\n");
        assert_eq!(serial("console=ttyS9,115200"), "");
    }
}
