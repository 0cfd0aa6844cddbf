//! The programs that the simulators are made of, unpacked instead of installed: both packages would start daemons.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::packages::{build_dir, unpacked};

/// ipmi_sim, ipmitool and what they are linked with.
const PACKAGES: [&str; 5] = ["openipmi", "libopenipmi0", "libpopt0", "ipmitool", "libfreeipmi17"];
/// The Redfish emulator, as PyPI has it.
const EMULATOR: &str = "sushy-tools==2.2.0";

/// ipmitool and ipmi_sim, ready to be run.
#[derive(Clone, Debug)]
pub struct Tools {
    path: OsString,
    libraries: OsString,
}

impl Tools {
    /// Unpacks them, once. To be called where the network is.
    ///
    /// # Errors
    /// They cannot be downloaded or unpacked.
    pub fn unpack() -> Result<Self> {
        let folders = PACKAGES.iter().map(|package| unpacked(package)).collect::<Result<Vec<PathBuf>>>()?;
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let inside = |name: &str| folders.iter().map(|folder| folder.join(name)).collect::<Vec<_>>();
        let own: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
        Ok(Self {
            path: std::env::join_paths(inside("usr/bin").into_iter().chain(own))
                .context("naming the tools' folders")?,
            libraries: std::env::join_paths(inside(&format!("usr/lib/{triplet}"))).context("naming their libraries")?,
        })
    }

    /// Lets a program, and those that it starts, find them.
    pub fn lend<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("PATH", &self.path).env("LD_LIBRARY_PATH", &self.libraries)
    }
}

/// The folder that the Redfish emulator's Python modules are in; gets them first where needed. To be called where the
/// network is.
///
/// # Errors
/// pip fails.
pub fn emulator() -> Result<PathBuf> {
    let packages = build_dir().join("packages");
    let folder = packages.join("sushy-tools");
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&packages).with_context(|| format!("creating {}", packages.display()))?;
    let aside = tempfile::tempdir_in(&packages).context("making a folder for the Redfish emulator")?;
    let fresh = aside.path().join("modules");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--target"]);
    let output = pip.arg(&fresh).arg(EMULATOR).output().context("starting pip (package python3-pip)")?;
    ensure!(output.status.success(), "getting {EMULATOR}: {}", String::from_utf8_lossy(&output.stderr).trim());
    match fs::rename(&fresh, &folder) {
        // Another test was quicker.
        Err(_) if folder.exists() => Ok(folder),
        renamed => renamed.map(|()| folder).context("moving the Redfish emulator into place"),
    }
}
