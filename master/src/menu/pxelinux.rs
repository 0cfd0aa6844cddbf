//! PXELINUX menus: one per node by its MAC, and one for machines that no node entry names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rootstream::failure::Advise;

use super::entry::{Entry, Linux};
use crate::aside;
use crate::config::addresses::Mac;
use crate::config::site::Site;

/// What PXELINUX needs beside the menus, and where Debian's packages put it.
pub(crate) const LOADER: [(&str, &str); 2] =
    [("pxelinux.0", "/usr/lib/PXELINUX/pxelinux.0"), ("ldlinux.c32", "/usr/lib/syslinux/modules/bios/ldlinux.c32")];

/// Puts the loader and all menus into `tftp/`; menus of nodes that are gone vanish.
///
/// A node whose image is not ready gets a menu that says so and goes on to the next boot device.
///
/// # Errors
/// The loader is not installed, or the disk refuses.
pub(super) fn write(site: &Site, entries: &[Entry]) -> Result<()> {
    let tftp = site.folder("tftp")?;
    for (name, source) in LOADER {
        let content = fs::read(source).advise(
            format!("reading the network boot loader {source}"),
            "install it: apt-get install pxelinux syslinux-common",
        )?;
        aside::write(&tftp.join(name), &content)?;
    }
    let folder = site.folder("tftp/pxelinux.cfg")?;
    let _claim = aside::claim(&folder)?;
    let menus = menus(entries);
    for (name, text) in &menus {
        aside::write(&folder.join(name), text.as_bytes())?;
    }
    remove_others(&folder, &menus)
}

/// The menus by their file's name.
pub(super) fn menus(entries: &[Entry]) -> BTreeMap<String, String> {
    let name = |entry: &Entry| match &entry.node {
        None => Some("default".to_owned()),
        Some(node) => node.mac.map(Mac::pxelinux),
    };
    entries.iter().filter_map(|entry| Some((name(entry)?, menu(entry)))).collect()
}

fn remove_others(folder: &Path, menus: &BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("01-") && !menus.contains_key(&name) {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// The menu of an entry: its kernel, or the reason why not and the machine's next boot device.
fn menu(entry: &Entry) -> String {
    match &entry.linux {
        Ok(linux) => boot(linux),
        Err(why) => {
            format!("DEFAULT none\nPROMPT 0\nSAY rootstream: {}: {why}\nLABEL none\n  LOCALBOOT -1\n", entry.who())
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
