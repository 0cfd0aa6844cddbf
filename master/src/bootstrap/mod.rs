//! What a node's firmware loads: the image's kernel, and an initramfs with the agent and the
//! modules and firmware it needs to reach the master.

mod agent;
mod certificates;
pub mod cpio;
mod elf;
mod firmware;
mod kernel;
mod modprobe;
mod modules;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use rootstream::failure::Advise;
use rootstream::modules::unclaimed::NOT_PACKED;
use rootstream::modules::{Index, List, canonical};
use serde::{Deserialize, Serialize};

use crate::aside;
use crate::config::addresses::Name;
use crate::config::site::Site;
use crate::image::built::Built;
use crate::keys;
use crate::progress::{Progress, megabytes};
use cpio::Archive;
use kernel::{Contents, Kernel};

/// The list of modules that comes with rootstream.
pub const MODULES_TXT: &str = include_str!("../../../initramfs/modules.txt");

/// What goes into the initramfs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The agent; the one built with this program when absent.
    pub init: Option<PathBuf>,
    /// The list of modules; [`MODULES_TXT`] when absent.
    pub modules: Option<PathBuf>,
    /// A static shell for `rootstream.onfail=shell`.
    pub shell: Option<PathBuf>,
}

/// `tftp/NAME/bootstrap.json`: what the boot menus name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The kernel's release.
    pub release: String,
    /// The kernel's file, next to this one.
    pub kernel: String,
    /// The initramfs's file, next to this one.
    pub initramfs: String,
    /// The public keys in it, by the names of their files: nodes that boot it ask for a signature of one of them.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
}

impl Bootstrap {
    /// What was made for `name`; nothing when it never was.
    ///
    /// # Errors
    /// Its record is unreadable.
    pub fn of(site: &Site, name: &Name) -> Result<Option<Self>> {
        let file = site.tftp().join(name.as_str()).join("bootstrap.json");
        if !file.exists() {
            return Ok(None);
        }
        let read = || -> Result<Self> { Ok(serde_json::from_slice(&fs::read(&file)?)?) };
        read()
            .map(Some)
            .advise(format!("reading {}", file.display()), format!("make it again: rootstream bootstrap {name}"))
    }
}

/// Makes kernel and initramfs for the image `name` in `tftp/NAME/`. The same inputs give the same bytes.
///
/// # Errors
/// The image is not built or holds no kernel, the agent is missing, or the disk refuses.
pub fn bootstrap(site: &Site, name: &Name, options: &Options) -> Result<Bootstrap> {
    let built = Built::of(site, name)?;
    let init = agent::find(options.init.as_deref())?;
    let modules_txt = match &options.modules {
        Some(file) => fs::read_to_string(file).advise(
            format!("reading the list of modules {}", file.display()),
            "name an existing file with --modules, or leave it out",
        )?,
        None => MODULES_TXT.to_owned(),
    };
    let progress = Progress::spinner(format!("bootstrap {name}"));
    progress.step("looking for the kernel");
    let kernel = kernel::find(&built)?;
    let release = &kernel.release;
    if kernel.releases.len() > 1 {
        log::info!("{name} holds the kernels {}; taking {release}", kernel.releases.join(", "));
    }
    let modprobe = &kernel.modprobe;
    let list = modules::with_patterns(List::parse(&modules_txt), &List::parse(MODULES_TXT));
    let softdep = [&kernel.softdep, &modprobe.softdep, &list.softdep].map(String::as_str).concat();
    let alias = [kernel.alias.as_str(), &modprobe.alias].concat();
    let index = Index::parse(&kernel.dep, &kernel.builtin, &alias, &softdep);
    let closure = modules::closure(&index, &list, modprobe);
    if !closure.missing.is_empty() {
        log::warn!("the kernel {release} has no modules {}", closure.missing.join(" "));
    }
    if !closure.blacklisted.is_empty() {
        log::info!("blacklisted, and so left out of `auto`: {}", closure.blacklisted.join(" "));
    }
    progress.step("reading kernel and modules");
    let (vmlinuz, modules) = kernel::load(&built, release, &closure.files)?;
    let (firmware, without) = firmware_of(&kernel, &modules);
    if !without.is_empty() {
        log::info!(
            "the image has none of the firmware of {}; where nodes have such a card, add the package with its files to \
             the recipe (firmware-bnx2x, say)",
            without.join(" ")
        );
    }
    let firmware = kernel::load_firmware(&built, &firmware)?;

    let mut archive = Archive::default();
    let folder = format!("lib/modules/{release}");
    archive.file("init", 0o755, init);
    // Rust's runtime aborts without them when the kernel could open no console.
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.character_device("dev/null", 0o666, 1, 3);
    for mount_point in ["proc", "run", "sys"] {
        archive.folder(mount_point);
    }
    archive.file("modules.txt", 0o644, modules_txt.into_bytes());
    let (aliases, not_packed) = modules::aliases_of(&index, &closure.files, &list, modprobe);
    let given = modprobe.options.iter().map(String::as_str);
    for (name, text) in [
        ("modules.dep", modules::dep_of(&index, &closure.files)),
        ("modules.builtin", kernel.builtin.clone()),
        ("modules.alias", aliases),
        ("modules.softdep", modules::lines_of(softdep.lines(), &closure.files)),
        ("modules.options", modules::lines_of(given, &closure.files)),
        (NOT_PACKED, not_packed),
    ] {
        archive.file(&format!("{folder}/{name}"), 0o644, text.into_bytes());
    }
    let keys = keys::trusted(site)?;
    for (name, text) in &keys {
        archive.file(&format!("keys/{name}"), 0o644, text.clone().into_bytes());
    }
    let count = modules.len();
    for (path, content) in modules {
        archive.file(&format!("{folder}/{path}"), 0o644, content);
    }
    let firmware_count = firmware.len();
    for (name, content) in firmware {
        archive.file(&format!("{}/{name}", firmware::FOLDER), 0o644, content);
    }
    if let Some(shell) = &options.shell {
        let (content, dynamic) = agent::program(shell).advise(
            format!("reading the shell {}", shell.display()),
            "name a static shell with --shell, such as /bin/busybox of the package busybox-static",
        )?;
        if dynamic {
            log::warn!("{} is not static and will not run in the initramfs", shell.display());
        }
        archive.file("bin/sh", 0o755, content);
    }
    let certificates = certificates::pack(&mut archive, site, built.path())?;
    if certificates > 0 {
        log::info!("https:// servers are known by {certificates} files in {}", site.root().join("tls").display());
    }
    progress.step("packing the initramfs");
    let packed = pack(&archive.bytes()?, &kernel.config)?;

    let target = site.folder(&format!("tftp/{name}"))?;
    let _claim = aside::claim(&target)?;
    let made = Bootstrap {
        release: release.clone(),
        kernel: format!("vmlinuz-{release}"),
        initramfs: format!("initramfs-{release}.img"),
        keys,
    };
    aside::write(&target.join(&made.kernel), &vmlinuz)?;
    aside::write(&target.join(&made.initramfs), &packed)?;
    let record = serde_json::to_vec_pretty(&made).context("writing the record")?;
    aside::write(&target.join("bootstrap.json"), &record)?;
    progress.done(&format!(
        "kernel {release} {}, initramfs {} with {count} modules and {firmware_count} firmware files{}",
        megabytes(vmlinuz.len() as u64),
        megabytes(packed.len() as u64),
        if made.keys.is_empty() {
            ", no key: images need no signature".to_owned()
        } else {
            let names: Vec<&str> = made.keys.keys().map(String::as_str).collect();
            format!(", images must be signed for {}", names.join(" or "))
        }
    ));
    Ok(made)
}

/// The firmware that modules name and the image has, by name, with its places in the image; and the modules that name
/// some and find none of it.
fn firmware_of(kernel: &Kernel, modules: &Contents) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut found, mut without) = (BTreeMap::new(), Vec::new());
    for (path, content) in modules {
        let names = firmware::named_by(content);
        let here: BTreeMap<String, String> =
            names.iter().flat_map(|name| kernel.firmware.find(&kernel.release, name)).collect();
        if here.is_empty() && !names.is_empty() {
            without.push(canonical(path));
        }
        found.extend(here);
    }
    (found, without)
}

/// Compressed with what the kernel is known to decompress.
fn pack(bytes: &[u8], config: &str) -> Result<Vec<u8>> {
    let zstd = config.lines().any(|line| line == "CONFIG_RD_ZSTD=y");
    let packed = if zstd {
        zstd::encode_all(bytes, 15)
    } else {
        let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        encoder.write_all(bytes).and_then(|()| encoder.finish())
    };
    packed.context("compressing the initramfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_gets_what_it_can_decompress() {
        assert!(pack(b"x", "CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n").unwrap().starts_with(b"\x28\xb5\x2f\xfd"));
        for config in ["", "# CONFIG_RD_ZSTD is not set\n"] {
            let packed = pack(b"x", config).unwrap();
            assert!(packed.starts_with(b"\x1f\x8b\x08"));
            assert_eq!(packed[4..8], [0; 4], "no time, so that the bytes are the same tomorrow");
        }
    }
}
