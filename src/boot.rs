//! The boot, step by step.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

use crate::checks::Checks;
use crate::cmdline::{Config, OnFail, Step};
use crate::facts::NodeFacts;
use crate::handover::{self, Ready};
use crate::image::{self, Anchors, Installed, Machine, Mounting, Plan, Sources, Tally, Unpack};
use crate::modules::Loaded;
use crate::net::Network;
use crate::report::Record;
use crate::{modules, mounts, net, rescue};

/// Where the image is unpacked.
pub const NEW_ROOT: &str = "/newroot";
/// The tmpfs that moves to stage 2.
pub(crate) const RUN: &str = "/run";
/// The list of modules that `rootstream bootstrap` packed.
const MODULES_TXT: &str = "/modules.txt";

/// The most threads that unpack a published image.
const MOST_WORKERS: usize = 8;

/// From bare kernel to a verified root that PID 1 can switch to.
///
/// # Errors
/// A step failed; the chain says which, why and what to do.
pub fn boot(config: &Config, record: &mut Record) -> Result<Ready> {
    stop_before(config, Step::Modules);
    let loaded = record.step("modules", |_| load_modules(config))?;

    stop_before(config, Step::Net);
    let mut network = record.step("network", |record| {
        let network = net::bring_up(&config.net).inspect_err(|_| say_missing(&loaded))?;
        record.set_network(&network);
        Ok(network)
    })?;

    let ready = from_image(config, &mut network, record);
    match ready {
        Ok(ready) => {
            handover::leave_record(Path::new(RUN), record, &network.lease)?;
            Ok(ready)
        }
        Err(error) => {
            // A shell is of more use with the network up; anything else begins from nothing.
            if config.onfail != OnFail::Shell {
                network.leave().unwrap_or_else(|error| log::warn!("network: {error:#}"));
            }
            Err(error)
        }
    }
}

/// The part of the boot that has a network.
fn from_image(config: &Config, network: &mut Network, record: &mut Record) -> Result<Ready> {
    stop_before(config, Step::Image);
    let root = record.step("image", |record| {
        let new_root = Path::new(NEW_ROOT);
        let anchors = Anchors::baked(Path::new("/"))?;
        let settings = image::located(&config.image, &anchors, Some(&network.lease))?;
        let node = NodeFacts::of_machine(Path::new("/")).with_network(network.mac, &network.lease);
        let sources = Sources { settings: &settings, anchors: &anchors, resolver: &network.resolver(), node: &node };
        let machine = Machine { release: Some(kernel_release()?), arch: Some(std::env::consts::ARCH.to_owned()) };
        let plan = plan(sources, &machine, record)?;
        mounts::root_tmpfs(new_root, &config.tmpfs, plan.needs())?;
        let mounting = Mounting { run: Path::new(RUN), options: &config.tmpfs };
        let unpack = Unpack { owners: true, workers: workers(), mount: Some(mounting) };
        install(&plan, unpack, new_root, record)?.root().context("the image was not mounted")
    })?;

    record.step("hand-over", |record| {
        // Stage 2 is told of the lease as it is now.
        network.settle()?;
        record.set_network(network);
        let url = root.facts().url.clone();
        let image_arch = handover::check_init(root.path(), &config.init, &url)?;
        handover::check_mount_points(root.path(), &url)?;
        let checks = Checks::compare(root.path(), image_arch, Some(&kernel_release()?), Some(std::env::consts::ARCH));
        checks.refuse_arch(&url)?;
        // A site may well boot a kernel that needs no modules from the image.
        checks.mismatches().into_iter().for_each(|mismatch| record.warn(mismatch));
        record.checks = checks;
        record.handover = handover::additions(&root, Some(&network.lease));
        handover::prepare(root, config, &network.lease)
    })
}

/// Finds out what is to be installed, with what that cost in the record.
///
/// # Errors
/// Those of [`image::plan`].
pub(crate) fn plan<'a>(sources: Sources<'a>, machine: &Machine, record: &mut Record) -> Result<Plan<'a>> {
    let mut tally = Tally::default();
    let plan = image::plan(sources, machine, &mut tally);
    record.set_tally(tally);
    plan
}

/// As many threads as there are processors, within reason: each takes memory, whose speed is the limit in the end.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS)
}

/// Streams the image into `root`, with what it was and what it cost in the record.
///
/// # Errors
/// Those of [`Plan::install`]; the record says what was received nevertheless.
pub(crate) fn install(plan: &Plan<'_>, unpack: Unpack, root: &Path, record: &mut Record) -> Result<Installed> {
    let mut tally = Tally::default();
    let installed = plan.install(unpack, root, &mut tally);
    record.set_tally(tally);
    let installed = installed?;
    record.set_image(&installed);
    Ok(installed)
}

fn load_modules(config: &Config) -> Result<Loaded> {
    let list = fs::read_to_string(MODULES_TXT).unwrap_or_default();
    let mut requests = modules::parse_list(&list);
    requests.extend(config.modules.iter().cloned());
    let folder = Path::new("/lib/modules").join(kernel_release()?);
    let loaded = modules::load(&folder, &requests, &config.modules_deny);
    log::info!(
        "modules: {} loaded; {} of the {} asked for are not here",
        loaded.count,
        loaded.absent.len(),
        requests.len()
    );
    for failed in &loaded.failed {
        log::warn!("modules: {failed}");
    }
    Ok(loaded)
}

/// Without a network the modules that are missing are the first suspects (F63).
fn say_missing(loaded: &Loaded) {
    if !loaded.absent.is_empty() {
        log::warn!("modules: asked for and not in this initramfs: {}", loaded.absent.join(" "));
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
