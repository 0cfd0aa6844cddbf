//! The boot, step by step.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

use crate::checks::Checks;
use crate::cmdline::{Config, Step};
use crate::facts::NodeFacts;
use crate::failure::Advise;
use crate::handover::{self, Port, Ready};
use crate::image::{self, Anchors, Installed, Machine, Mounting, Plan, Sources, Tally, Unpack};
use crate::modules::loader::{Loaded, Loader};
use crate::modules::{Aliases, auto, helper, kernel_release, unclaimed};
use crate::net::Network;
use crate::report::Record;
use crate::say;
use crate::{mounts, net, rescue};

/// Where the image is unpacked.
pub const NEW_ROOT: &str = "/newroot";
/// The tmpfs that moves to stage 2.
pub(crate) const RUN: &str = "/run";

/// The most threads that unpack a published image.
const MOST_WORKERS: usize = 8;

/// From bare kernel to a verified root that PID 1 can switch to.
///
/// # Errors
/// A step failed; the chain says which, why and what to do.
pub fn boot(config: &Config, record: &mut Record) -> Result<Ready> {
    stop_before(config, Step::Modules);
    let loader = record.step("modules", |_| load_modules(config))?;

    stop_before(config, Step::Net);
    let mut network = record.step("network", |record| {
        let network = net::bring_up(&config.net).map_err(|error| explain(error, &loader))?;
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
            // A shell is of more use with a network that works; anything else begins from nothing.
            if rescue::ends_in_shell(config.onfail) {
                network.keep();
            } else {
                network.leave().unwrap_or_else(|error| say::warn!("network: {error:#}"));
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
        let node = NodeFacts::of_machine(Path::new("/")).with_network(network.mac.mac(), &network.lease);
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
        let port = Port::of(network, &config.net.client_id, Path::new("/sys"));
        let (ready, written) = handover::prepare(root, config, &port, Path::new(RUN))?;
        record.handover = written;
        Ok(ready)
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

/// Loads what modules.txt names and, where it says `auto`, what the machine has; that goes on until the boot ends.
fn load_modules(config: &Config) -> Result<auto::Shared> {
    let (mut loader, list) = Loader::of_initramfs(config)?;
    if list.auto {
        helper::install(Path::new("/")).unwrap_or_else(|error| say::warn!("modules: {error:#}"));
    }
    let requests: Vec<&str> =
        list.requests.iter().chain(&config.modules).map(|request| request.name.as_str()).collect();
    for name in &requests {
        loader.load(name);
    }
    let loader = Arc::new(Mutex::new(loader));
    if list.auto {
        auto::start(Path::new("/sys"), &loader);
    }
    let Loaded { names, absent, .. } = auto::lock(&loader).loaded().clone();
    say::info!("modules: {} loaded; {} of the {} asked for are not here", names.len(), absent.len(), requests.len());
    Ok(loader)
}

/// Adds to the failure of the network what the modules have to do with it (F63).
fn explain(error: anyhow::Error, loader: &auto::Shared) -> anyhow::Error {
    let loader = auto::lock(loader);
    let sys = Path::new("/sys");
    let not_packed = fs::read_to_string(loader.folder().join(unclaimed::NOT_PACKED)).unwrap_or_default();
    let cards = unclaimed::cards(sys, loader.index(), &Aliases::parse(&not_packed));
    let Loaded { absent, failed, .. } = loader.loaded();
    let mut lines: Vec<String> = cards.iter().map(ToString::to_string).collect();
    lines.extend(failed.iter().cloned());
    if !absent.is_empty() {
        lines.push(format!("asked for and not in this initramfs: {}", absent.join(" ")));
    }
    if cards.is_empty() || unclaimed::has_port(sys) {
        lines.iter().for_each(|line| say::warn!("modules: {line}"));
        return error;
    }
    let what = format!(
        "no network card of this machine has a driver in the kernel {}",
        loader.folder().file_name().unwrap_or_default().to_string_lossy()
    );
    let Err(error) = Err::<Infallible, _>(error.context(lines.join("; "))).advise(what, unclaimed::remedy(&cards));
    error
}

fn stop_before(config: &Config, step: Step) {
    if config.break_before == Some(step) {
        rescue::stop_before(step);
    }
}
