//! The boot, step by step.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

use crate::checks::Checks;
use crate::cmdline::{Config, Step};
use crate::handover::{self, Ready};
use crate::image::{self, Unpack};
use crate::modules::Loaded;
use crate::report::Record;
use crate::{modules, mounts, net, rescue};

/// Where the image is unpacked.
pub const NEW_ROOT: &str = "/newroot";
/// The list of modules that `rootstream bootstrap` packed.
const MODULES_TXT: &str = "/modules.txt";

/// From bare kernel to a verified root that PID 1 can switch to.
///
/// # Errors
/// A step failed; the chain says which, why and what to do.
pub fn boot(config: &Config, record: &mut Record) -> Result<Ready> {
    stop_before(config, Step::Modules);
    let loaded = record.step("modules", |_| load_modules(config))?;

    stop_before(config, Step::Net);
    let network = record.step("network", |record| {
        let network = net::bring_up(&config.net).inspect_err(|_| say_missing(&loaded))?;
        record.set_network(&network);
        Ok(network)
    })?;

    stop_before(config, Step::Image);
    let root = record.step("image", |record| {
        let new_root = Path::new(NEW_ROOT);
        mounts::root_tmpfs(new_root, &config.tmpfs)?;
        let root = image::install(&config.image, Unpack { owners: true }, &network.resolver(), new_root)?;
        record.set_image(root.facts());
        Ok(root)
    })?;

    record.step("hand-over", |record| {
        let image_arch = handover::check_init(root.path(), &config.init, &root.facts().url)?;
        let checks = Checks::compare(root.path(), image_arch, Some(&kernel_release()?), Some(std::env::consts::ARCH));
        checks.refuse_arch(&root.facts().url)?;
        // A site may well boot a kernel that needs no modules from the image.
        checks.mismatches().into_iter().for_each(|mismatch| record.warn(mismatch));
        record.checks = checks;
        record.handover = handover::additions(&root, Some(&network.lease));
        handover::prepare(root, config, &network.lease, record, Path::new("/run"))
    })
}

fn load_modules(config: &Config) -> Result<Loaded> {
    let list = fs::read_to_string(MODULES_TXT).unwrap_or_default();
    let mut requests = modules::parse_list(&list);
    requests.extend(config.modules.iter().cloned());
    let folder = Path::new("/lib/modules").join(kernel_release()?);
    let loaded = modules::load(&folder, &requests, &config.modules_deny);
    log::info!("modules: {} loaded, {} of {} not here", loaded.count, loaded.missing.len(), requests.len());
    for missing in &loaded.missing {
        log::debug!("modules: not loaded: {missing}");
    }
    Ok(loaded)
}

/// Without a network the modules that are missing are the first suspects (F63).
fn say_missing(loaded: &Loaded) {
    for missing in &loaded.missing {
        log::warn!("modules: not loaded: {missing}");
    }
}

/// Release of the running kernel, as `uname -r`.
fn kernel_release() -> Result<String> {
    Ok(uname().context("asking the kernel's release")?.release().to_string_lossy().into_owned())
}

fn stop_before(config: &Config, step: Step) {
    if config.break_before == Some(step) {
        rescue::stop_before(step);
    }
}
