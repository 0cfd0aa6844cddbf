//! The kernel command line becomes one typed [`Config`].
//!
//! [`PARAMS`] is the only list of parameters: it drives the parser, the nearest-name hint and
//! `docs/BOOT_PARAMETERS.md`. Quoting follows the kernel's `next_arg()`: double quotes group
//! words and are removed; everything after a lone `--` is for the image's init.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::failure::Advise;
use crate::modules::Request;
use crate::mounts::TmpfsOptions;
use crate::{image, net};

mod date;
mod devices;
mod docs;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ip;
mod params;
mod route;
mod values;

pub use docs::boot_parameters_md;
pub use params::{PARAMS, Param};
pub(crate) use values::check_url;

/// Everything the kernel command line decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the image is and how patient to be with it.
    pub image: image::Settings,
    /// How the network is brought up.
    pub net: net::Settings,
    /// Mount options of the root's tmpfs.
    pub tmpfs: TmpfsOptions,
    /// Modules beside `modules.txt`.
    pub modules: Vec<Request>,
    /// Modules never to load.
    pub modules_deny: Vec<String>,
    /// What PID 1 does when the boot fails.
    pub onfail: OnFail,
    /// What is logged.
    pub log: log::LevelFilter,
    /// The step to stop before.
    pub break_before: Option<Step>,
    /// Path of init inside the image.
    pub init: PathBuf,
    /// Its arguments.
    pub init_args: Vec<String>,
}

/// What PID 1 does when the boot fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFail {
    /// Begin again with the modules, after a pause.
    Retry,
    /// Reboot after a pause, jittered so that a thousand nodes do not come back in one second.
    Reboot,
    /// Switch the node off.
    Poweroff,
    /// Stop the kernel, with the message left on the screen.
    Halt,
    /// Run the initramfs's `/bin/sh` on the console, then reboot.
    Shell,
}

/// A step that `rootstream.break=` can stop before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Loading modules.
    Modules,
    /// Bringing the network up.
    Net,
    /// Fetching and unpacking the image.
    Image,
    /// Switching to the image.
    Switch,
}

/// The outcome of reading a command line: the configuration, if there were no mistakes.
#[derive(Debug)]
pub struct Parsed {
    /// As far as it could be understood; to be used only where `mistakes` is empty, but for
    /// `onfail` and `log`, which count in any case.
    pub config: Config,
    /// Things that are odd but harmless, such as an unknown `rootstream.` name.
    pub warnings: Vec<String>,
    /// Every mistake, not the first only.
    pub mistakes: Vec<String>,
}

impl Parsed {
    /// The configuration, or all mistakes as one failure.
    ///
    /// # Errors
    /// There was a mistake.
    pub fn check(self) -> Result<Config> {
        if self.mistakes.is_empty() {
            return Ok(self.config);
        }
        Err(anyhow!("{}", self.mistakes.join("; "))).advise(
            "the kernel parameters cannot be used",
            "correct them in this node's boot menu (docs/BOOT_PARAMETERS.md describes each)",
        )
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image: image::Settings {
                urls: Vec::new(),
                from_lease: false,
                overlays: Vec::new(),
                sha256: None,
                unsigned: false,
                not_before: None,
                stall: Duration::from_secs(15),
                retry: Duration::from_secs(600),
            },
            net: net::Settings {
                ports: Vec::new(),
                bootif: None,
                client_id: net::ClientId::Mac,
                carrier: Duration::from_secs(60),
                dhcp: Duration::from_secs(120),
                nameservers: Vec::new(),
                ip: Vec::new(),
                routes: Vec::new(),
                names: Vec::new(),
                bonds: Vec::new(),
                vlans: Vec::new(),
                destination: net::Destination::default(),
            },
            tmpfs: TmpfsOptions::default(),
            modules: Vec::new(),
            modules_deny: Vec::new(),
            onfail: OnFail::Reboot,
            log: log::LevelFilter::Info,
            break_before: None,
            init: PathBuf::from("/sbin/init"),
            init_args: Vec::new(),
        }
    }
}

/// Reads a kernel command line.
pub fn parse(line: &str) -> Parsed {
    let mut parsed = Parsed { config: Config::default(), warnings: Vec::new(), mistakes: Vec::new() };
    let mut words = split(line).into_iter();
    for word in words.by_ref() {
        if word == "--" {
            break;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        match PARAMS.iter().find(|param| param.name == name) {
            Some(param) => {
                if let Err(why) = (param.set)(&mut parsed.config, value.unwrap_or_default()) {
                    parsed.mistakes.push(format!("{name}={}: {why}", value.unwrap_or_default()));
                }
            }
            None if params::PLANNED.contains(&name) => parsed.mistakes.push(format!(
                "{name}: this version of rootstream cannot do it; leaving it out would boot something else than asked"
            )),
            None if name.starts_with("rootstream.") => parsed.warnings.push(unknown(name)),
            None => {}
        }
    }
    parsed.config.init_args = words.collect();
    parsed.config.net.destination = net::Destination::of(&parsed.config.image);
    let image = &parsed.config.image;
    if image.urls.is_empty() && !image.from_lease && !parsed.mistakes.iter().any(|m| m.starts_with("rootstream.image="))
    {
        parsed.mistakes.push("rootstream.image= is missing: no image to boot".to_owned());
    }
    parsed
}

fn unknown(name: &str) -> String {
    let nearest = PARAMS
        .iter()
        .map(|param| (distance(name, param.name), param.name))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    match nearest {
        Some((_, nearest)) => format!("unknown parameter {name} is ignored; did you mean {nearest}?"),
        None => format!("unknown parameter {name} is ignored"),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for ((y, above), diagonal) in b.iter().zip(row.iter().skip(1)).zip(row.iter()) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(x != *y));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Words of a command line, as the kernel separates them.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_ascii_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests;
