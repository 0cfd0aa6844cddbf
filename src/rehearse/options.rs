//! The arguments of `init rehearse`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail, ensure};
use lexopt::prelude::*;

use crate::facts::{Fact, NodeFacts};

pub(super) const USAGE: &str =
    "usage: init rehearse --root DIR --cmdline 'rootstream.image=URL …' [--net] [--json] [--help]";

pub(super) const HELP: &str = "\
Fetches, verifies and unpacks an image exactly as a node would, as an ordinary process.

usage: init rehearse --root DIR --cmdline 'PARAMETERS' [OPTIONS]

  --root DIR       an existing, empty folder; only the image's entries are written into it
  --cmdline TEXT   the node's kernel parameters
  --force          DIR need not be empty; what an image has too must not be in it
  --no-owners      unpack what an unprivileged user can; the rest is counted in the record
  --net            take DHCP on the ports of this network namespace first, and leave them as found
  --this-host      with --net: also in the machine's own network namespace
  --kernel RELEASE refuse an image without modules for this kernel
  --arch ARCH      refuse an image for another architecture than this (x86_64, aarch64, …)
  --key FILE       a public key that the initramfs would hold; may be given several times
  --ca FILE        certificates (PEM) that the initramfs would know https:// servers by; may be given several times
  --fact NAME=TEXT what ${NAME} in rootstream.overlay= stands for on that node: mac, uuid, serial, hostname, ip, arch;
                   with --net the lease says mac, ip and hostname, and --arch says arch
  --workers N      threads that unpack a published image, instead of one for each processor up to 8
  --json           the record as one JSON object
  --help           this text

exit: 0 would boot, 1 refused or not finished, 2 usage or parameters, 3 no usable init, 4 not permitted

example:
  mkdir /tmp/root && init rehearse --root /tmp/root \\
    --cmdline 'rootstream.image=http://172.16.0.254/images/compute/1.tar.zst'
";

/// The arguments, as given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) root: PathBuf,
    pub(super) cmdline: String,
    pub(super) force: bool,
    pub(super) no_owners: bool,
    pub(super) net: bool,
    pub(super) this_host: bool,
    pub(super) kernel: Option<String>,
    pub(super) arch: Option<String>,
    pub(super) keys: Vec<PathBuf>,
    pub(super) ca: Vec<PathBuf>,
    pub(super) facts: Vec<(Fact, String)>,
    pub(super) workers: Option<usize>,
    pub(super) json: bool,
}

impl Options {
    /// Reads the arguments after `rehearse`; `None` when help was asked for.
    pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>> {
        let mut parser = lexopt::Parser::from_args(args);
        let mut options = Self::default();
        let mut root = None;
        let mut cmdline = None;
        while let Some(arg) = parser.next()? {
            match arg {
                Long("root") => root = Some(PathBuf::from(parser.value()?)),
                Long("cmdline") => cmdline = Some(parser.value()?.string()?),
                Long("force") => options.force = true,
                Long("no-owners") => options.no_owners = true,
                Long("net") => options.net = true,
                Long("this-host") => options.this_host = true,
                Long("kernel") => options.kernel = Some(parser.value()?.string()?),
                Long("arch") => options.arch = Some(parser.value()?.string()?),
                Long("key") => options.keys.push(PathBuf::from(parser.value()?)),
                Long("ca") => options.ca.push(PathBuf::from(parser.value()?)),
                Long("fact") => options.facts.push(fact(&parser.value()?.string()?)?),
                Long("workers") => {
                    let count: usize = parser.value()?.parse()?;
                    ensure!((1..=16).contains(&count), "--workers takes 1 to 16");
                    options.workers = Some(count);
                }
                Long("json") => options.json = true,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        let (Some(root), Some(cmdline)) = (root, cmdline) else { bail!("--root and --cmdline are both needed") };
        Ok(Some(Self { root, cmdline, ..options }))
    }
}

/// `NAME=TEXT`, with a text that a node could have there.
fn fact(text: &str) -> Result<(Fact, String)> {
    let Some((name, text)) = text.split_once('=') else { bail!("--fact {text}: write NAME=TEXT") };
    let fact = Fact::named(name).map_err(|why| anyhow!("--fact {name}: {why}"))?;
    if fact == Fact::Build {
        bail!("--fact build: the image's manifest says that");
    }
    if !NodeFacts::default().set(fact, text) {
        bail!("--fact {name}={text}: no machine is told from others by that");
    }
    Ok((fact, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Option<Options>> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn what_is_given_is_taken() {
        let options =
            parse(&["--root", "/x", "--cmdline=a b", "--net", "--kernel", "6.1", "--key", "k"]).unwrap().unwrap();
        assert_eq!(options.root, PathBuf::from("/x"));
        assert_eq!(options.cmdline, "a b");
        assert_eq!(options.kernel.as_deref(), Some("6.1"));
        assert_eq!(options.keys, [PathBuf::from("k")]);
        assert!(options.net && !options.json && !options.force);
        let words = ["--root", "/x", "--cmdline=a", "--fact", "serial=a=b", "--fact", "mac=52:54:00:AC:10:01"];
        let facts = parse(&words).unwrap().unwrap().facts;
        assert_eq!(facts[0], (Fact::Serial, "a=b".to_owned()));
        assert_eq!(facts[1].0, Fact::Mac);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |words: &[&str]| format!("{:#}", parse(words).unwrap_err());
        assert!(message(&["--root", "/x"]).contains("both needed"));
        assert!(message(&["--workers", "0"]).contains("1 to 16"));
        assert!(message(&["--rot", "/x"]).contains("--rot"));
        assert!(message(&["--fact", "serial"]).contains("NAME=TEXT"));
        assert!(message(&["--fact", "seriel=1"]).contains("\"seriel\" is none of mac, uuid, serial"));
        assert!(message(&["--fact", "serial=.."]).contains("no machine"));
        assert!(message(&["--fact", "build=1"]).contains("manifest"));
        assert_eq!(parse(&["--help"]).unwrap(), None);
    }
}
