//! Debian server packages, unpacked instead of installed, so that none of their daemons ever starts
//! on the user's own network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Where this machine's build outputs go: `build/` at the top of the checkout.
pub fn build_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("build")
}

/// The folder that `package` is unpacked in, such as `build/packages/nginx-light`; downloads it first
/// where needed.
///
/// # Errors
/// `apt-get download` or `dpkg -x` fails; both messages are part of the error.
pub fn unpacked(package: &str) -> Result<PathBuf> {
    let packages = build_dir().join("packages");
    let folder = packages.join(package);
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&packages).with_context(|| format!("creating {}", packages.display()))?;
    let aside = tempfile::tempdir_in(&packages).context("making a folder for the download")?;
    run(Command::new("apt-get").args(["-qq", "download", package]).current_dir(aside.path()))?;
    let Some(archive) =
        fs::read_dir(aside.path())?.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "deb"))
    else {
        bail!("apt-get download {package} left no .deb; run apt-get update");
    };
    let fresh = aside.path().join("root");
    run(Command::new("dpkg").arg("-x").arg(&archive).arg(&fresh))?;
    match fs::rename(&fresh, &folder) {
        // Another test unpacked it meanwhile: the same files.
        Err(_) if folder.exists() => Ok(folder),
        renamed => renamed.map(|()| folder).context("moving the unpacked package into place"),
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn outputs_go_to_build_at_the_top() {
        assert!(super::build_dir().ends_with("build"));
        assert!(super::build_dir().parent().unwrap().join("Cargo.toml").exists());
    }
}
