//! What the machine has, as sysfs shows it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What the devices on all buses say of themselves (`MODALIAS`), each once, by the sysfs at `sys` (`/sys`).
pub(super) fn modaliases(sys: &Path) -> BTreeSet<String> {
    let buses = entries(&sys.join("bus"));
    let devices = buses.iter().flat_map(|bus| entries(&bus.join("devices")));
    let aliases = devices.filter_map(|device| fs::read_to_string(device.join("modalias")).ok());
    aliases.map(|alias| alias.trim_end().to_owned()).filter(|alias| !alias.is_empty()).collect()
}

/// The paths in a folder; none when it is not there.
pub(super) fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bus_is_asked() {
        let sys = tempfile::tempdir().unwrap();
        let device = |path: &str, alias: &str| {
            fs::create_dir_all(sys.path().join(path)).unwrap();
            fs::write(sys.path().join(path).join("modalias"), alias).unwrap();
        };
        assert!(modaliases(sys.path()).is_empty());
        device("bus/pci/devices/0000:00:03.0", "pci:v00008086\n");
        device("bus/pci/devices/0000:00:04.0", "pci:v00008086\n");
        device("bus/virtio/devices/virtio0", "virtio:d00000001v00001AF4\n");
        device("bus/acpi/devices/LNXSYSTM:00", "\n");
        let found: Vec<String> = modaliases(sys.path()).into_iter().collect();
        assert_eq!(found, ["pci:v00008086", "virtio:d00000001v00001AF4"]);
    }
}
