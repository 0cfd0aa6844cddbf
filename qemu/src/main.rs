//! The lab's command.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches};
use rootstream_lab::bmc::node;
use rootstream_lab::choices::allowed;
use rootstream_lab::enclosure::{Missing, run_enclosed, settle};
use rootstream_lab::firmware::Firmware;
use rootstream_lab::netboot::{self, Request};
use rootstream_lab::packages::build_dir;
use rootstream_lab::servers::Servers;
use rootstream_lab::site::{Order, Site};

/// The options of `lab boot`, each a variable of `make boot` in lower case.
const VARIABLES: [&str; 9] = ["firmware", "servers", "nodes", "power", "trust", "image", "net", "accel", "hold"];

/// Set for the process that runs in the lab's namespaces: the id of the one that made them.
const OUTSIDE: &str = "ROOTSTREAM_LAB_OUTSIDE";

fn main() -> ExitCode {
    let matches = interface().get_matches();
    let outcome = match matches.subcommand() {
        Some(("site", arguments)) => site(arguments).map(|_| ExitCode::SUCCESS),
        Some(("boot", arguments)) => boot(arguments),
        _ => Ok(ExitCode::FAILURE),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::from(if error.downcast_ref::<Missing>().is_some() { 3 } else { 1 })
    })
}

fn interface() -> clap::Command {
    let init = Arg::new("init").long("init").value_name("FILE").value_parser(clap::value_parser!(PathBuf));
    let init = init.default_value("target/x86_64-unknown-linux-musl/release/init").help("The agent's binary");
    let mut boot = clap::Command::new("boot")
        .arg(&init)
        .about("Netboots a Debian compute node to its login prompt, prints a timeline, runs a command in it over ssh");
    for name in VARIABLES {
        let values = allowed(&name.to_uppercase());
        let default = values.first().copied().unwrap_or_default();
        let parser = PossibleValuesParser::new(values);
        boot = boot.arg(Arg::new(name).long(name).value_parser(parser).default_value(default));
    }
    let trust = PossibleValuesParser::new(allowed("TRUST"));
    let trust = Arg::new("trust").long("trust").value_parser(trust).default_value("signed");
    let image = PossibleValuesParser::new(allowed("IMAGE"));
    let image = Arg::new("image").long("image").value_parser(image).default_value("debian");
    let firmware = PossibleValuesParser::new(allowed("FIRMWARE"));
    let firmware = Arg::new("firmware").long("firmware").value_parser(firmware).default_value("bios");
    let site = clap::Command::new("site").args([init, trust, image, firmware]);
    let site = site.about("Brings build/lab/site up to date and boots nothing");
    clap::Command::new("lab")
        .about("The lab: nodes that netboot on this machine")
        .subcommand_required(true)
        .subcommands([boot, site])
}

/// The site, brought up to date. The companion's binary is beside this one.
fn site(arguments: &ArgMatches) -> Result<Site> {
    let site = known_site()?;
    let init: &PathBuf = arguments.get_one("init").context("no --init")?;
    let signed = arguments.get_one::<String>("trust").is_some_and(|trust| trust == "signed");
    let image = arguments.get_one::<String>("image").context("no --image")?;
    let init = &std::path::absolute(init).context("naming the agent's binary")?;
    let firmware = Firmware::named(arguments.get_one::<String>("firmware").context("no --firmware")?)?;
    site.prepare(&Order { init, signed, image, firmware })?;
    Ok(site)
}

fn known_site() -> Result<Site> {
    let own = std::env::current_exe().context("asking for this program's path")?;
    Ok(Site::at(&build_dir().join("lab"), &own.parent().unwrap_or(Path::new(".")).join("rootstream")))
}

/// Prepares the site where the network is, then boots where none is.
fn boot(arguments: &ArgMatches) -> Result<ExitCode> {
    if let Ok(outside) = std::env::var(OUTSIDE) {
        return boot_enclosed(arguments, outside.parse().with_context(|| format!("reading {OUTSIDE}"))?);
    }
    let asked = arguments.get_one::<String>("servers").context("no --servers")?;
    Servers::prepare(asked, &site(arguments)?)?;
    node::fetch(arguments.get_one::<String>("power").map_or("lab", String::as_str))?;
    let own = std::env::current_exe().context("asking for this program's path")?;
    let mut inside = Command::new(own);
    inside.args(std::env::args_os().skip(1)).env(OUTSIDE, std::process::id().to_string());
    let status = run_enclosed(&mut inside)?;
    // A death by signal has no code.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn boot_enclosed(arguments: &ArgMatches, outside: u32) -> Result<ExitCode> {
    settle()?;
    let asked = |name: &str| arguments.get_one::<String>(name).cloned().unwrap_or_default();
    let request = Request {
        firmware: Firmware::named(&asked("firmware"))?,
        nodes: asked("nodes").parse().context("reading --nodes")?,
        accel: asked("accel"),
        servers: asked("servers"),
        power: asked("power"),
        hold: asked("hold") == "1",
        outside,
    };
    let (evidence, login) = netboot::run(&known_site()?, &request)?;
    let observed = evidence.to_string();
    ensure!(evidence.image == asked("image"), "asked for image={}, observed {}", asked("image"), evidence.image);
    for name in ["firmware", "servers", "nodes", "power", "trust", "net", "accel"] {
        let expected = format!("{name}={}", asked(name));
        ensure!(observed.split(' ').any(|value| value == expected), "asked for {expected}, observed {observed}");
    }
    println!("boot: ok {observed} seconds={}", login.as_secs());
    Ok(ExitCode::SUCCESS)
}
