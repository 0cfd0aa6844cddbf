//! The ways from a node's firmware to its kernel, and what each leaves in the servers' logs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Debian's build of UEFI for QEMU, and its variables as they come from the factory.
const OVMF: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A value of FIRMWARE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// BIOS, which loads PXELINUX.
    Bios,
    /// UEFI, which loads iPXE, which gets a script by HTTP.
    UefiIpxe,
    /// UEFI, which loads GRUB.
    UefiGrub,
    /// UEFI, which loads SYSLINUX.
    UefiSyslinux,
    /// UEFI, which loads iPXE by HTTP.
    UefiHttp,
}

impl Firmware {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Bios, Self::UefiIpxe, Self::UefiGrub, Self::UefiSyslinux, Self::UefiHttp];

    /// The value of FIRMWARE.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::UefiIpxe => "uefi-ipxe",
            Self::UefiGrub => "uefi-grub",
            Self::UefiSyslinux => "uefi-syslinux",
            Self::UefiHttp => "uefi-http",
        }
    }

    /// The firmware that a value of FIRMWARE names.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).with_context(|| format!("no firmware is named {text}"))
    }

    /// Whether it is UEFI.
    pub fn is_uefi(self) -> bool {
        self != Self::Bios
    }

    /// What a site that wants its nodes to boot in this way says: `boot = "…"` in site.toml.
    pub fn boot_path(self) -> &'static str {
        match self {
            Self::Bios => "pxelinux",
            Self::UefiIpxe => "ipxe",
            Self::UefiGrub => "grub",
            Self::UefiSyslinux => "syslinux",
            Self::UefiHttp => "http",
        }
    }

    /// By what the firmware loads its loader, in the timeline's words.
    pub fn protocol(self) -> &'static str {
        if self == Self::UefiHttp { "HTTP" } else { "TFTP" }
    }

    /// The client architectures that such a firmware sends (RFC 4578, 2.1).
    pub fn architectures(self) -> &'static [&'static str] {
        match self {
            Self::Bios => &["00000"],
            Self::UefiHttp => &["00016"],
            _ => &["00007", "00009"],
        }
    }

    /// The files that only this way fetches, the loader first; those that HTTP serves begin with `/`. `mac` is the
    /// node's, with dashes.
    pub fn files(self, mac: &str) -> [String; 2] {
        match self {
            Self::Bios => ["pxelinux.0".to_owned(), "ldlinux.c32".to_owned()],
            Self::UefiIpxe => ["ipxe/snponly.efi".to_owned(), format!("/boot/ipxe/01-{mac}.ipxe")],
            Self::UefiGrub => ["grub/grubnetx64.efi".to_owned(), format!("grub/{}.cfg", mac.replace('-', ":"))],
            Self::UefiSyslinux => ["syslinux.efi".to_owned(), "ldlinux.e64".to_owned()],
            Self::UefiHttp => ["/boot/ipxe/snponly.efi".to_owned(), format!("/boot/ipxe/01-{mac}.ipxe")],
        }
    }

    /// The arguments of a QEMU with this firmware, whose variables are kept in `folder`.
    ///
    /// # Errors
    /// UEFI for QEMU is not installed.
    pub fn arguments(self, folder: &Path) -> Result<Vec<String>> {
        if !self.is_uefi() {
            return Ok(Vec::new());
        }
        // Each machine writes into its own.
        let variables = folder.join("uefi-variables");
        fs::copy(OVMF_VARIABLES, &variables).with_context(|| format!("copying {OVMF_VARIABLES} (package ovmf)"))?;
        let flash = |unit: u8, more: &str, file: &str| {
            ["-drive".to_owned(), format!("if=pflash,format=raw,unit={unit}{more},file={file}")]
        };
        let mut all = Vec::from(flash(0, ",readonly=on", OVMF));
        all.extend(flash(1, "", &variables.display().to_string()));
        if self == Self::UefiHttp {
            // PXE would come first.
            for family in ["IPv4", "IPv6"] {
                all.extend(["-fw_cfg".to_owned(), format!("name=opt/org.tianocore/{family}PXESupport,string=n")]);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::allowed;

    #[test]
    fn every_value_has_a_firmware_and_every_firmware_a_value() {
        assert_eq!(allowed("FIRMWARE"), Firmware::ALL.map(Firmware::as_str));
        for firmware in Firmware::ALL {
            assert_eq!(Firmware::named(firmware.as_str()).unwrap(), firmware);
        }
        assert!(Firmware::named("uefi").is_err());
    }

    #[test]
    fn each_machine_has_variables_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let words = Firmware::UefiHttp.arguments(folder.path()).unwrap().join(" ");
        assert!(words.contains(&format!("unit=1,file={}", folder.path().join("uefi-variables").display())), "{words}");
        assert!(words.contains("IPv4PXESupport,string=n") && words.contains("IPv6PXESupport,string=n"), "{words}");
        assert!(Firmware::Bios.arguments(folder.path()).unwrap().is_empty());
    }
}
