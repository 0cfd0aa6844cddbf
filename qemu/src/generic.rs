//! Debian's kernel for every machine, which has drivers that the lab's own image, made for virtual machines, lacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::packages::unpacked;

/// The package that leads to the newest one.
const PACKAGE: &str = "linux-image-amd64";

/// The kernel and an initramfs for it with `init` and, where given, this list of modules, made by the companion's binary
/// `rootstream` in a site of its own, `folder`. Needs the network when the kernel was not unpacked before.
///
/// # Errors
/// The package cannot be had, or a program fails; its message is part of the error.
pub fn bootstrap(rootstream: &Path, init: &Path, folder: &Path, modules: Option<&str>) -> Result<(PathBuf, PathBuf)> {
    let kernel = kernel()?;
    let built = folder.join("built");
    if !folder.join("site.toml").exists() {
        let mut new = Command::new(rootstream);
        run(new.args(["site", "new"]).arg(folder).args(["--interface", "br0", "--address", "172.16.0.254/24"]))?;
    }
    fs::create_dir_all(&built).with_context(|| format!("creating {}", built.display()))?;
    let archive = built.join("generic.tar");
    run(Command::new("tar").arg("-C").arg(&kernel).arg("-cf").arg(&archive).args(["./boot", "./lib"]))?;
    let record = r#"{"inputs":"","created":"","arch":"amd64","bytes":0}"#;
    fs::write(built.join("generic.json"), record).context("writing the image's record")?;
    let mut bootstrap = Command::new(rootstream);
    bootstrap.arg("--site").arg(folder).args(["bootstrap", "generic", "--init"]).arg(init);
    if let Some(modules) = modules {
        let list = folder.join("modules.txt");
        fs::write(&list, modules).with_context(|| format!("writing {}", list.display()))?;
        bootstrap.arg("--modules").arg(list);
    }
    run(&mut bootstrap)?;
    let tftp = folder.join("tftp/generic");
    let release = release(&kernel);
    Ok((tftp.join(format!("vmlinuz-{release}")), tftp.join(format!("initramfs-{release}.img"))))
}

/// The kernel's release, by the folder of its package.
pub(crate) fn release(kernel: &Path) -> String {
    kernel.file_name().unwrap_or_default().to_string_lossy().replace("linux-image-", "")
}

/// The unpacked package, with the index that installing it would have made.
pub(crate) fn kernel() -> Result<PathBuf> {
    let output = Command::new("apt-cache").args(["depends", PACKAGE]).output().context("starting apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let newest = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let release = newest.with_context(|| format!("{PACKAGE} is unknown to apt-cache: run apt-get update"))?;
    let kernel = unpacked(&format!("linux-image-{release}"))?;
    if !kernel.join("lib/modules").join(release).join("modules.dep").exists() {
        run(Command::new("depmod").arg("-b").arg(&kernel).arg(release))?;
    }
    Ok(kernel)
}

/// Runs a program and returns what it prints.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
