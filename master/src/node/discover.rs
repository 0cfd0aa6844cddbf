//! Machines that nobody knows yet, and how they become nodes.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rootstream::failure::{Advise, refuse};

use super::change::{claim, counted};
use super::list::table;
use super::names::Names;
use super::sightings::{Sighting, Sightings};
use crate::config::addresses::{Mac, Name};
use crate::config::nodes::{Newcomer, Node, Nodes, Setting};
use crate::config::site::Site;
use crate::{ask, say};

/// How often the log is looked at.
const PAUSE: Duration = Duration::from_millis(300);

/// `node discover`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on with those who ask later, until all nodes have a MAC or Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Only those who ask from now on.
    #[arg(long, requires = "watch")]
    new: bool,
    /// The nodes that they become, in the order in which they first asked to boot.
    #[arg(long, value_name = "NODES")]
    add: Option<Names>,
    /// The address of the first of those; the others follow.
    #[arg(long, requires = "add")]
    ip: Option<Ipv4Addr>,
    /// They are the BMCs of those nodes.
    #[arg(long, requires = "add")]
    bmc: bool,
    /// Take machines that did not ask to boot, too.
    #[arg(long, requires = "add", conflicts_with = "bmc")]
    any: bool,
    /// Ask nothing.
    #[arg(long, requires = "add")]
    yes: bool,
    /// For machines.
    #[arg(long, conflicts_with_all = ["watch", "add"])]
    json: bool,
}

/// Lists who is unknown, or makes nodes of them.
///
/// # Errors
/// There is no log; a mistake in the configuration; with `--add`, a node that got no MAC.
pub(super) fn run(site: &Site, args: &Args) -> Result<()> {
    let nodes = Nodes::of(site)?;
    let mut log = Log::open(site, args.new)?;
    match &args.add {
        Some(names) => Adding::new(site, &nodes, names, args)?.run(site, &mut log),
        None => list(site, &nodes, &mut log, args),
    }
}

fn list(site: &Site, nodes: &Nodes, log: &mut Log, args: &Args) -> Result<()> {
    log.read()?;
    let unknown: Vec<&Sighting> = log.sightings.iter().filter(|sighting| !nodes.knows(sighting.mac)).collect();
    if args.json {
        return say::json(&unknown);
    }
    let heads = ["MAC", "FIRST ASKED", "LAST ASKED", "TIMES", "FIRMWARE", "VENDOR CLASS"].map(str::to_owned);
    table(&[heads].into_iter().chain(unknown.iter().map(|sighting| row(sighting))).collect::<Vec<_>>());
    if !args.watch {
        return Ok(());
    }
    loop {
        thread::sleep(PAUSE);
        let fresh = log.read()?;
        if fresh.is_empty() {
            continue;
        }
        // Some may be nodes by now.
        let nodes = Nodes::of(site)?;
        for sighting in fresh.into_iter().filter(|mac| !nodes.knows(*mac)).filter_map(|mac| log.sightings.get(mac)) {
            say::result(row(sighting).join("  ").trim_end());
        }
    }
}

fn row(sighting: &Sighting) -> [String; 6] {
    [
        sighting.mac.to_string(),
        sighting.first.clone(),
        sighting.last.clone(),
        sighting.count.to_string(),
        sighting.firmware().unwrap_or("-").to_owned(),
        sighting.vendor_class.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// dnsmasq's log, read as it grows.
struct Log {
    path: PathBuf,
    offset: u64,
    sightings: Sightings,
}

impl Log {
    fn open(site: &Site, only_new: bool) -> Result<Self> {
        let path = site.root().join("log/dnsmasq.log");
        let length = path.metadata().map(|meta| meta.len()).advise(
            format!("reading {}", path.display()),
            "start `rootstream up`, and switch the machines on: it logs who asks for an address",
        )?;
        Ok(Self { path, offset: if only_new { length } else { 0 }, sightings: Sightings::default() })
    }

    /// Reads what is new; returns who asked for the first time.
    fn read(&mut self) -> Result<Vec<Mac>> {
        let failed = || format!("reading {}", self.path.display());
        let mut file = File::open(&self.path).with_context(failed)?;
        if file.metadata().with_context(failed)?.len() < self.offset {
            // Another file, after a rotation.
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset)).with_context(failed)?;
        let mut reader = BufReader::new(file);
        let (mut fresh, mut line) = (Vec::new(), Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).with_context(failed)?;
            // The rest of a line that is being written comes next time.
            if line.last() != Some(&b'\n') {
                return Ok(fresh);
            }
            self.offset += u64::try_from(length).context("counting")?;
            fresh.extend(self.sightings.line(&String::from_utf8_lossy(&line)));
        }
    }
}

/// Nodes that are to get a MAC.
struct Adding<'a> {
    args: &'a Args,
    /// With the address of each, where one was given.
    waiting: VecDeque<(Name, Option<Ipv4Addr>)>,
    /// Who was offered already.
    offered: HashSet<Mac>,
}

/// What became of an offer.
enum Answer {
    Yes,
    No,
    Stop,
}

impl<'a> Adding<'a> {
    fn new(site: &Site, nodes: &Nodes, names: &Names, args: &'a Args) -> Result<Self> {
        if !args.yes && !ask::is_possible() {
            return Err(refuse(
                "each machine is to be confirmed, and there is no terminal to ask on",
                "say --yes to take them in the order in which they asked",
            ));
        }
        let mut waiting = VecDeque::new();
        // What cannot be is to be said before the first machine is switched on.
        let mut rehearsal = nodes.edit()?;
        for (at, name) in names.fresh()?.into_iter().enumerate() {
            let ip = args.ip.map(|first| counted(first, at)).transpose()?;
            let node = nodes.get(name.as_str());
            refuse_unfit(node, &name, ip, args.bmc)?;
            if let (None, Some(ip)) = (node, ip) {
                let new = Newcomer { name: name.clone(), mac: None, ip, bmc: None };
                nodes.refuse_taken(&new)?;
                rehearsal.add(&new, &[])?;
            }
            waiting.push_back((name, ip));
        }
        nodes.write(&rehearsal, site, true)?;
        Ok(Self { args, waiting, offered: HashSet::new() })
    }

    fn run(mut self, site: &Site, log: &mut Log) -> Result<()> {
        if self.args.watch {
            say::note("waiting for machines that ask; switch them on one after the other, Ctrl-C ends it");
        }
        loop {
            log.read()?;
            while let (Some(sighting), Some((name, ip))) = (self.next(site, log)?, self.waiting.front().cloned()) {
                self.offered.insert(sighting.mac);
                match self.offer(&sighting, &name)? {
                    Answer::Yes => {
                        give(site, &name, ip, sighting.mac, self.args.bmc)?;
                        self.waiting.pop_front();
                    }
                    Answer::No => {}
                    Answer::Stop => return self.end(),
                }
            }
            if self.waiting.is_empty() || !self.args.watch {
                return self.end();
            }
            thread::sleep(PAUSE);
        }
    }

    /// The unknown machine that asked first.
    fn next(&self, site: &Site, log: &Log) -> Result<Option<Sighting>> {
        // Read again: somebody else may have added it meanwhile.
        let nodes = Nodes::of(site)?;
        let fits = |s: &&Sighting| {
            let is_wanted = self.args.any || s.boots != self.args.bmc;
            is_wanted && !self.offered.contains(&s.mac) && !nodes.knows(s.mac)
        };
        Ok(log.sightings.iter().find(fits).cloned())
    }

    fn offer(&self, sighting: &Sighting, name: &Name) -> Result<Answer> {
        if self.args.yes {
            return Ok(Answer::Yes);
        }
        let whose = if self.args.bmc { "the BMC of " } else { "" };
        let kind = sighting.firmware().or(sighting.vendor_class.as_deref()).unwrap_or("no vendor class");
        let question = format!(
            "{} ({kind}, first asked {}) is {whose}{name}? yes, no or quit [Y/n/q]",
            sighting.mac, sighting.first
        );
        loop {
            match ask::line(&question)?.as_deref() {
                Some("" | "y" | "Y" | "yes") => return Ok(Answer::Yes),
                Some("n" | "N" | "no") => return Ok(Answer::No),
                None | Some("q" | "Q" | "quit") => return Ok(Answer::Stop),
                Some(_) => {}
            }
        }
    }

    fn end(self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.waiting.iter().map(|(name, _)| name.as_str()).collect();
        let kind = if self.args.bmc { "that did not ask to boot" } else { "that asked to boot" };
        Err(refuse(
            format!("{} got no MAC: there was no further unknown machine {kind}", names.join(", ")),
            "switch them on while `rootstream up` runs, and look at `rootstream node discover`; --watch waits for them",
        ))
    }
}

/// Refuses a node that has a MAC already, or that could not be made.
fn refuse_unfit(node: Option<&Node>, name: &Name, ip: Option<Ipv4Addr>, bmc: bool) -> Result<()> {
    let (had, key) = match (node, bmc) {
        (None, false) if ip.is_some() => return Ok(()),
        (None, false) => {
            return Err(refuse(format!("there is no node {name}"), "say its address with --ip, and it is added"));
        }
        (None, true) => return Err(refuse(format!("there is no node {name}"), "add the nodes before their BMCs")),
        (Some(node), false) => (node.mac, "mac"),
        (Some(node), true) => (node.bmc.as_ref().and_then(|bmc| bmc.mac), "bmc.mac"),
    };
    if let Some(mac) = had {
        return Err(refuse(
            format!("{name} has the {key} {mac} already"),
            format!("where that is no longer true: rootstream node set {name} {key}="),
        ));
    }
    if bmc && ip.is_none() && node.is_some_and(|node| node.bmc.is_none()) {
        return Err(refuse(format!("{name} has no BMC yet"), "say its BMC's address with --ip"));
    }
    Ok(())
}

/// Gives the node its MAC, or its BMC's; where there is no such node, adds it. An address that a node has stays.
fn give(site: &Site, name: &Name, ip: Option<Ipv4Addr>, mac: Mac, bmc: bool) -> Result<()> {
    let _claim = claim(site, false)?;
    let nodes = Nodes::of(site)?;
    let mut edit = nodes.edit()?;
    let setting = |key: &str, text: String| Setting::new(key, &text).map_err(anyhow::Error::msg);
    match (nodes.get(name.as_str()), ip) {
        (Some(node), ip) => {
            edit.set(name, &setting(if bmc { "bmc.mac" } else { "mac" }, mac.to_string())?)?;
            if let Some(ip) = ip.filter(|_| bmc && node.bmc.is_none()) {
                edit.set(name, &setting("bmc.ip", ip.to_string())?)?;
            }
        }
        (None, Some(ip)) => {
            let new = Newcomer { name: name.clone(), mac: Some(mac), ip, bmc: None };
            nodes.refuse_taken(&new)?;
            edit.add(&new, &[])?;
        }
        (None, None) => return Err(refuse(format!("{name} was removed meanwhile"), "say its address with --ip")),
    }
    let after = nodes.write(&edit, site, false)?;
    let ip = after
        .get(name.as_str())
        .map(|node| if bmc { node.bmc.as_ref().map_or(node.ip, |bmc| bmc.ip) } else { node.ip });
    let whose = if bmc { ", the BMC" } else { "" };
    say::result(format_args!("{name}: {mac}{whose} {}", ip.map(|ip| ip.to_string()).unwrap_or_default()));
    Ok(())
}
