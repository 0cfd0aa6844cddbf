//! Network cards on the PCI bus that no driver serves: why no port appeared.

use std::fmt;
use std::fs;
use std::path::Path;

use super::devices::entries;
use super::{Aliases, Index};

/// What `bootstrap` packs beside modules.alias: the aliases of the kernel's network modules that are not in the
/// initramfs.
pub const NOT_PACKED: &str = "modules.not-packed";

/// PCI's class of network controllers (the first of three bytes).
const NETWORK: &str = "0x02";
/// The class of those that are none of Ethernet, InfiniBand and the like: wireless cards, for one.
const OTHER: &str = "0x0280";

/// A network card without a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its place, such as `0000:00:03.0`.
    pub address: String,
    /// Vendor and device, such as `8086:10d3`.
    pub id: String,
    /// The modules of this kernel that would serve it, each with whether the initramfs has it.
    pub modules: Vec<(String, bool)>,
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.address, self.id)?;
        if self.modules.is_empty() {
            return f.write_str("this kernel has no module for it");
        }
        for (number, (module, packed)) in self.modules.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let place = if *packed { "is in this initramfs" } else { "is not in this initramfs" };
            write!(f, "{comma}its module {module} {place}")?;
        }
        Ok(())
    }
}

/// The cards that no driver has claimed, by the sysfs at `sys` (`/sys`), in the order of their places.
pub fn cards(sys: &Path, index: &Index, not_packed: &Aliases) -> Vec<Card> {
    let mut devices = entries(&sys.join("bus/pci/devices"));
    devices.sort();
    let text = |path: &Path, name: &str| fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
    let mut cards = Vec::new();
    for device in devices {
        let class = text(&device, "class");
        if !class.starts_with(NETWORK) || class.starts_with(OTHER) || device.join("driver").exists() {
            continue;
        }
        let modalias = text(&device, "modalias");
        let packed = index.aliases().of(&modalias).into_iter().map(|module| (module.to_owned(), true));
        let others = not_packed.of(&modalias).into_iter().map(|module| (module.to_owned(), false));
        let id = |name| text(&device, name).trim_start_matches("0x").to_owned();
        cards.push(Card {
            address: device.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            id: format!("{}:{}", id("vendor"), id("device")),
            modules: packed.chain(others).collect(),
        });
    }
    cards
}

/// Whether the kernel shows a port with hardware below it, by the sysfs at `sys` (`/sys`).
pub fn has_port(sys: &Path) -> bool {
    entries(&sys.join("class/net")).iter().any(|port| port.join("device").exists())
}

/// What an administrator does about cards without a driver: names the modules that are missing.
pub fn remedy(cards: &[Card]) -> String {
    let named = |packed: bool| {
        let all = cards.iter().flat_map(|card| &card.modules).filter(|(_, here)| *here == packed);
        let mut names: Vec<&str> = all.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(" ")
    };
    match (named(false), named(true)) {
        (missing, _) if !missing.is_empty() => format!(
            "let the initramfs have {missing}: a line for each in modules.txt, or `auto {missing}`, and \
             `rootstream bootstrap` anew"
        ),
        (_, here) if !here.is_empty() => format!(
            "the kernel log above says why {here} did not take the card: firmware that is missing in the image, perhaps, \
             or rootstream.modules.deny="
        ),
        _ => "boot another kernel, or build the card's module for this one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    // F63
    #[test]
    fn cards_without_a_driver_are_named_with_their_modules() {
        let sys = tempfile::tempdir().unwrap();
        let device = |address: &str, class: &str, id: (&str, &str), driver: bool| {
            let folder = sys.path().join("bus/pci/devices").join(address);
            fs::create_dir_all(&folder).unwrap();
            let (vendor, device) = id;
            let alias = format!("pci:v0000{vendor}d0000{device}sv*\n");
            let id = |id: &str| format!("0x{id}\n");
            for (name, text) in
                [("class", id(class)), ("vendor", id(vendor)), ("device", id(device)), ("modalias", alias)]
            {
                fs::write(folder.join(name), text).unwrap();
            }
            if driver {
                symlink("/", folder.join("driver")).unwrap();
            }
        };
        device("0000:00:1f.0", "060100", ("8086", "2918"), false);
        device("0000:00:03.0", "020000", ("8086", "10d3"), false);
        device("0000:00:02.0", "020700", ("15b3", "101b"), false);
        device("0000:00:04.0", "020000", ("8086", "100e"), true);
        device("0000:00:05.0", "028000", ("8086", "2723"), false);
        device("0000:00:06.0", "020000", ("dead", "beef"), false);
        let index = Index::parse("net/mlx5_core.ko:\n", "", "alias pci:v000015b3d0000101bs* mlx5_core\n", "");
        let not_packed = Aliases::parse("alias pci:v00008086d000010d3sv* e1000e\n");
        let found = cards(sys.path(), &index, &not_packed);
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "0000:00:02.0 (15b3:101b): its module mlx5_core is in this initramfs",
                "0000:00:03.0 (8086:10d3): its module e1000e is not in this initramfs",
                "0000:00:06.0 (dead:beef): this kernel has no module for it",
            ]
        );
        assert!(remedy(&found).contains("let the initramfs have e1000e:"), "{}", remedy(&found));
        assert!(remedy(&found[..1]).contains("why mlx5_core did not take"), "{}", remedy(&found[..1]));
        assert!(remedy(&found[2..]).starts_with("boot another kernel"), "{}", remedy(&found[2..]));
        assert!(!has_port(sys.path()));
        fs::create_dir_all(sys.path().join("class/net/lo")).unwrap();
        assert!(!has_port(sys.path()), "loopback has no hardware");
        fs::create_dir_all(sys.path().join("class/net/eth0/device")).unwrap();
        assert!(has_port(sys.path()));
    }
}
