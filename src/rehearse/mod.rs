//! `init rehearse`: the boot's own code as an ordinary process. No modules, no mounts, no switch_root;
//! nothing outside the folder is touched and the failure policy is ignored.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::boot;
use crate::checks::Checks;
use crate::cmdline::{self, Config};
use crate::facts::{Fact, NodeFacts, debian_arch};
use crate::failure::{Advise, Failure, refuse};
use crate::handover::{self, Port};
use crate::image::tls::Certificates;
use crate::image::trust::Keys;
use crate::image::{self, Anchors, Installed, Machine, Resolve, Sources, Unpack};
use crate::log::StderrLog;
use crate::net::{self, Network};
use crate::report::Record;

mod hosts;
mod options;
mod privileges;
mod text;

use hosts::HostNames;
use options::Options;

/// The image or the network was refused, or it was not finished.
const REFUSED: u8 = 1;
/// Usage, or bad parameters.
const USAGE: u8 = 2;
/// Complete and verified, but no usable init; the tree stays.
const NO_INIT: u8 = 3;
/// This user cannot do it.
const NOT_PERMITTED: u8 = 4;

/// An error together with the exit code that it leads to.
struct Stop {
    exit: u8,
    error: anyhow::Error,
}

/// Tags the errors of a step with an exit code.
trait Exits<T> {
    fn or_exit(self, exit: u8) -> Result<T, Stop>;
}

impl<T> Exits<T> for Result<T> {
    fn or_exit(self, exit: u8) -> Result<T, Stop> {
        self.map_err(|error| Stop { exit, error })
    }
}

/// Runs `init rehearse` with these arguments and returns its exit code. The record goes to stdout, all
/// else to stderr.
pub fn run(args: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let args: Vec<_> = args.collect();
    let json = args.iter().any(|arg| arg == "--json");
    let mut record = Record::default();
    let options = match Options::parse(args.into_iter()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            say(&mut io::stdout(), options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(&mut io::stderr(), &format!("init rehearse: {error:#}\n\n{}\n", options::USAGE));
            if json {
                record.exit = USAGE;
                record.error = Some(Failure::from_error(&error));
                say(&mut io::stdout(), &(record.json() + "\n"));
            }
            return ExitCode::from(USAGE);
        }
    };
    match rehearse(&options, &mut record) {
        Ok(()) => record.ok = true,
        Err(Stop { exit, error }) => {
            record.exit = exit;
            record.error = Some(Failure::from_error(&error));
        }
    }
    let text = if options.json { record.json() + "\n" } else { text::of(&record) };
    say(&mut io::stdout(), &text);
    ExitCode::from(record.exit)
}

/// A reader that has gone away, such as head(1), does not change how the rehearsal went.
fn say(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

fn rehearse(options: &Options, record: &mut Record) -> Result<(), Stop> {
    let parsed = cmdline::parse(&options.cmdline);
    StderrLog::start(parsed.config.log);
    parsed.warnings.iter().for_each(|warning| record.warn(warning.clone()));
    let config = parsed.check().or_exit(USAGE)?;
    check_folder(&options.root, options.force).or_exit(USAGE)?;
    privileges::check(options).or_exit(NOT_PERMITTED)?;
    let mut network = if options.net { Some(start_network(options, &config, record)?) } else { None };
    let rehearsed = install(options, &config, network.as_ref(), record);
    if let Some(network) = &mut network {
        network.settle().or_exit(REFUSED)?;
        record.set_network(network);
    }
    let left = network.map_or(Ok(()), |network| network.leave().context("leaving the ports as they were found"));
    rehearsed?;
    left.or_exit(REFUSED)
}

fn install(options: &Options, config: &Config, network: Option<&Network>, record: &mut Record) -> Result<(), Stop> {
    let resolver: Arc<dyn Resolve> = network.map_or_else(|| Arc::new(HostNames) as _, Network::resolver);
    let workers = options.workers.unwrap_or_else(boot::workers);
    let unpack = Unpack { owners: !options.no_owners, workers, mount: None };
    let anchors = Anchors {
        keys: Keys::read(&options.keys).or_exit(USAGE)?,
        certificates: Certificates::read(&options.ca).or_exit(USAGE)?,
    };
    let settings = image::located(&config.image, &anchors, network.map(|network| &network.lease)).or_exit(REFUSED)?;
    let node = node_facts(options, network);
    let sources = Sources { settings: &settings, anchors: &anchors, resolver: &resolver, node: &node };
    let machine = Machine { release: options.kernel.clone(), arch: options.arch.clone() };
    let installed = record
        .step("image", |record| {
            let plan = boot::plan(sources, &machine, record)?;
            boot::install(&plan, unpack, &options.root, record)
        })
        .or_exit(REFUSED)?;
    let root = match installed {
        Installed::Root(root) => root,
        Installed::File(facts) => {
            let media = facts.media;
            record.warn(format!(
                "the image is a {media} file, verified and stored; what is in it is not checked without mounting it"
            ));
            if !settings.overlays.is_empty() {
                let count = settings.overlays.len();
                record.warn(format!("the overlays ({count}) go on top of the mounted image and were not fetched"));
            }
            return Ok(());
        }
    };
    let image_arch = handover::check_init(root.path(), &config.init, &root.facts().url).or_exit(NO_INIT)?;
    handover::check_mount_points(root.path(), &root.facts().url).or_exit(REFUSED)?;
    record.checks = Checks::compare(root.path(), image_arch, options.kernel.as_deref(), options.arch.as_deref());
    let port = network.map(|network| Port::of(network, &config.net.client_id, Path::new("/sys")));
    record.handover = handover::additions(&root, port.as_ref());
    let mismatches = record.checks.mismatches();
    if mismatches.is_empty() {
        return Ok(());
    }
    Err(anyhow::anyhow!("{}", mismatches.join("; ")))
        .advise(
            format!("the image {} does not fit that machine", root.facts().url),
            "make image and bootstrap anew so that both have one kernel and one architecture",
        )
        .or_exit(REFUSED)
}

/// What is known of the node that this is a rehearsal of. This machine is another one, so it is not asked.
fn node_facts(options: &Options, network: Option<&Network>) -> NodeFacts {
    let mut node = NodeFacts::default();
    if let Some(arch) = &options.arch {
        node.set(Fact::Arch, debian_arch(arch));
    }
    if let Some(network) = network {
        node = node.with_network(network.mac.mac(), &network.lease);
    }
    for (fact, text) in &options.facts {
        node.set(*fact, text);
    }
    node
}

fn start_network(options: &Options, config: &Config, record: &mut Record) -> Result<Network, Stop> {
    let own = net::namespace::is_machines_own().context("asking which network namespace this is").or_exit(REFUSED)?;
    if own && !options.this_host {
        return Err(refuse(
            "--net would take the ports of this machine's own network",
            "run it in a network namespace (ip netns exec …), or say --this-host",
        ))
        .or_exit(USAGE);
    }
    record
        .step("network", |record| {
            let network = net::bring_up(&config.net)?;
            record.set_network(&network);
            Ok(network)
        })
        .or_exit(REFUSED)
}

/// The folder must exist and be empty, or its owner must have said that he does not mind.
fn check_folder(root: &Path, force: bool) -> Result<()> {
    let mut entries = std::fs::read_dir(root)
        .advise(format!("--root {} cannot be read", root.display()), "name a folder that exists")?;
    if entries.next().is_some() && !force {
        return Err(refuse(format!("--root {} is not empty", root.display()), "empty it, or say --force"));
    }
    Ok(())
}
