//! What DHCP tells servers of the machine and its firmware, as PXE ROMs do (RFC 4578).

use std::path::Path;

use crate::facts::{Fact, NodeFacts};

/// The machine's kind and UUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Firmware {
    /// Option 93, where the kind has a number.
    pub(super) arch: Option<u16>,
    /// Option 97, in the order of SMBIOS.
    pub(super) uuid: Option<[u8; 16]>,
}

impl Firmware {
    /// Of the machine with the root file system `root`, which runs on processors named `arch`, as Rust names them.
    pub(super) fn of_machine(root: &Path, arch: &str) -> Self {
        let efi = root.join("sys/firmware/efi").exists();
        let arch = match (arch, efi) {
            ("x86_64" | "x86", false) => Some(0),
            ("x86_64", true) => Some(7),
            ("aarch64", true) => Some(11),
            _ => None,
        };
        Self { arch, uuid: NodeFacts::of_machine(root).get(Fact::Uuid).and_then(as_in_smbios) }
    }
}

/// Linux prints the first three fields as the little-endian numbers that they are in SMBIOS.
fn as_in_smbios(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    let [a, b, c, d, e, f, g, h, rest @ ..] = u128::from_str_radix(&digits, 16).ok()?.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = rest;
    Some([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn kind_and_uuid_are_as_firmware_says_them() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Firmware::of_machine(root.path(), "x86_64"), Firmware { arch: Some(0), uuid: None });
        assert_eq!(Firmware::of_machine(root.path(), "aarch64").arch, None);
        let dmi = root.path().join("sys/class/dmi/id");
        fs::create_dir_all(&dmi).unwrap();
        fs::create_dir_all(root.path().join("sys/firmware/efi")).unwrap();
        fs::write(dmi.join("product_uuid"), "00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        let uuid = [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        assert_eq!(Firmware::of_machine(root.path(), "x86_64"), Firmware { arch: Some(7), uuid: Some(uuid) });
        assert_eq!(Firmware::of_machine(root.path(), "aarch64").arch, Some(11));
        for odd in ["00112233-4455", "+0112233-4455-6677-8899-aabbccddeefg", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
            fs::write(dmi.join("product_uuid"), odd).unwrap();
            assert_eq!(Firmware::of_machine(root.path(), "x86_64").uuid, None, "{odd}");
        }
    }
}
