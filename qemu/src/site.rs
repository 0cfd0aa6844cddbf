//! The lab's site: what an administrator would set up with the companion, set up by it here too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bound::Bound;
use crate::classic::FILES;
use crate::firmware::Firmware;
use crate::generic::run as quietly;
use crate::patience::Patience;
use crate::ssh;
use crate::transcript::{Line, Transcript};

/// The master's port in the lab.
pub const BRIDGE: &str = "br0";
/// The master's address.
pub const MASTER: &str = "172.16.0.254";
/// The master's addresses with their networks. QEMU's boot ROM waits 13 s for IPv6 where there is none.
pub const ADDRESSES: [&str; 2] = ["172.16.0.254/24", "fd00:ac10::1/64"];
/// The most nodes that the site has.
pub const MOST_NODES: u8 = 4;
/// The image's name.
pub const IMAGE: &str = "compute";

/// The public key that nodes trust, as `rootstream key new` names it.
const TRUST_KEY: &str = "site.pub";

const SITE_TOML: &str = include_str!("../site/site.toml");
const IMAGE_TOML: &str = include_str!("../site/compute.toml");
/// What `rootstream site new` writes, for a site that is older than this file too.
const DHCP_NETWORK: &str = include_str!("../../master/src/site/starter/20-dhcp.network");
const PATIENCE_CONF: &str = include_str!("../site/patience.conf");

/// A node of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: n1, n2 …
    pub name: String,
    /// Its MAC.
    pub mac: String,
    /// Its address.
    pub address: String,
    /// Its wire.
    pub tap: String,
}

impl Member {
    /// The node with this number, from 1.
    pub fn new(number: u8) -> Self {
        Self {
            name: format!("n{number}"),
            mac: format!("52:54:00:ac:10:{number:02x}"),
            address: format!("172.16.0.{number}"),
            tap: format!("tap{number}"),
        }
    }

    /// Its MAC with dashes, as names of files have it.
    pub fn dashed(&self) -> String {
        self.mac.replace(':', "-")
    }
}

/// What is asked of the site before a boot.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The agent's binary.
    pub init: &'a Path,
    /// Whether nodes trust a key, and then nothing without its signature.
    pub signed: bool,
    /// What the image is published as: a value of IMAGE.
    pub image: &'a str,
    /// How nodes boot.
    pub firmware: Firmware,
}

/// The lab's files and the companion that works on them.
#[derive(Debug)]
pub struct Site {
    /// Site, key and logs are in here.
    lab: PathBuf,
    rootstream: PathBuf,
}

impl Site {
    /// The site in `lab`, driven by the companion's binary.
    pub fn at(lab: &Path, rootstream: &Path) -> Self {
        Self { lab: lab.to_owned(), rootstream: rootstream.to_owned() }
    }

    /// The site's folder.
    pub fn folder(&self) -> PathBuf {
        self.lab.join("site")
    }

    /// The folder of the last run's logs.
    pub fn logs(&self) -> PathBuf {
        self.lab.join("log")
    }

    /// The private key that opens the nodes.
    pub fn key(&self) -> PathBuf {
        self.folder().join("keys").join("lab")
    }

    /// Brings the site up to date: configuration, image, kernel and initramfs with the agent in it, and the
    /// nodes. What has not changed is not built again.
    ///
    /// # Errors
    /// The companion fails; it has said why.
    pub fn prepare(&self, order: &Order) -> Result<()> {
        let Order { init, signed, image, firmware } = *order;
        fs::create_dir_all(&self.lab).with_context(|| format!("creating {}", self.lab.display()))?;
        let folder = self.folder();
        if !folder.join("site.toml").exists() {
            let [address, _] = ADDRESSES;
            let mut new = Command::new(&self.rootstream);
            run(new.args(["site", "new"]).arg(&folder).args(["--interface", BRIDGE, "--address", address]))?;
        }
        // Its last table is that of the defaults.
        let config = format!("{SITE_TOML}boot = \"{}\"\n", firmware.boot_path());
        write_changed(&folder.join("site.toml"), &config)?;
        write_changed(&folder.join("images").join(format!("{IMAGE}.toml")), IMAGE_TOML)?;
        let (files, recipe) = (folder.join("files"), folder.join("images").join(IMAGE));
        for folder in [&files, &recipe] {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        write_changed(&files.join("patience.conf"), PATIENCE_CONF)?;
        write_changed(&recipe.join("20-dhcp.network"), DHCP_NETWORK)?;
        ssh::make_key_pair(&self.key())?;
        let trusted = self.trust(signed)?;
        run(self.command().args(["image", "build", IMAGE]))?;
        let built = folder.join("built").join(format!("{IMAGE}.json"));
        let mut sources = vec![built.as_path()];
        sources.extend(trusted.as_deref());
        self.publish(&sources, if image == "debian" { "tar.zst" } else { image })?;
        sources.extend([init, self.rootstream.as_path()]);
        let bootstrap = folder.join("tftp").join(IMAGE).join("bootstrap.json");
        let has_key = fs::read_to_string(&bootstrap).is_ok_and(|record| record.contains(TRUST_KEY));
        if has_key != signed || !is_newer(&bootstrap, &sources) {
            run(self.command().args(["bootstrap", IMAGE, "--init"]).arg(init))?;
        }
        let nodes = self.command().args(["node", "list"]).output().context("listing the nodes")?;
        let nodes = String::from_utf8_lossy(&nodes.stdout).into_owned();
        for Member { name, mac, address, .. } in (1..=MOST_NODES).map(Member::new) {
            if !nodes.contains(&mac) {
                run(self.command().args(["node", "add", &name, "--mac", &mac, "--ip", &address, "--image", IMAGE]))?;
            }
        }
        Ok(())
    }

    /// Makes the key that nodes trust, or takes it away; returns it where there is to be one.
    fn trust(&self, signed: bool) -> Result<Option<PathBuf>> {
        let keys = self.folder().join("keys");
        let public = keys.join(TRUST_KEY);
        if signed && !public.exists() {
            run(self.command().args(["key", "new"]))?;
        }
        for file in [public.clone(), public.with_extension("key")] {
            if !signed && file.exists() {
                fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
            }
        }
        Ok(signed.then_some(public))
    }

    /// Publishes what was built, unless it is published already, and drops older builds: nobody boots
    /// them here.
    fn publish(&self, sources: &[&Path], format: &str) -> Result<()> {
        let store = self.folder().join("store").join(IMAGE);
        // A build of an earlier version of rootstream may be one that this one cannot read.
        let known = || self.command().args(["image", "show", IMAGE]).output().is_ok_and(|show| show.status.success());
        let is_published = fs::read_dir(&store).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().ends_with(&format!(".{format}"))))
        });
        if is_published && is_newer(&store.join("latest.json"), sources) && known() {
            return Ok(());
        }
        if store.exists() {
            fs::remove_dir_all(&store).with_context(|| format!("emptying {}", store.display()))?;
        }
        run(self.command().args(["image", "publish", IMAGE, "--format", format]))
    }

    /// Starts the master's servers and waits until they answer; what they log goes into the transcript
    /// as `up`, `dnsmasq` and `http`.
    ///
    /// # Errors
    /// They do not start; the end of their log is part of the error.
    pub fn up(&self, transcript: &Transcript) -> Result<Bound> {
        let logs = self.logs();
        fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let own = logs.join("up.log");
        let out = fs::File::create(&own).with_context(|| format!("creating {}", own.display()))?;
        let err = out.try_clone().context("sharing the log")?;
        for name in ["dnsmasq", "http"] {
            let log = self.folder().join("log").join(format!("{name}.log"));
            // Lines of an earlier run would be taken for this one's.
            if log.exists() {
                fs::remove_file(&log).with_context(|| format!("removing {}", log.display()))?;
            }
            transcript.follow(name, &log);
        }
        transcript.follow("up", &own);
        let rootstream = self.rootstream.display().to_string();
        let mut up =
            Bound::start(&rootstream, |c| c.arg("--site").arg(self.folder()).arg("up").stdout(out).stderr(err))?;
        let ready = |line: &Line| Ok((line.source == "up" && line.text.starts_with("up: ready")).then_some(()));
        let alive = || match up.ended()? {
            Some(status) => anyhow::bail!("it ended with {status}"),
            None => Ok(()),
        };
        let waited = transcript.wait(Patience::with(1), alive, ready);
        waited.with_context(|| format!("starting the master's servers; they said:\n{}", transcript.tail("up", 20)))?;
        Ok(up)
    }

    /// The folder of the configuration for servers of others.
    pub fn classic(&self) -> PathBuf {
        self.lab.join("classic")
    }

    /// Writes that configuration, and the loaders' menus to the boot files, as an administrator would.
    ///
    /// # Errors
    /// The companion fails; it has said why.
    pub fn configure_classic(&self) -> Result<()> {
        let menus = ["pxelinux", "grub", "ipxe"].map(|loader| (loader, self.folder().join("tftp")));
        let files = FILES.map(|(server, file)| (server, self.classic().join(file)));
        let folders = files.map(|(server, file)| (server, file.parent().unwrap_or(Path::new(".")).to_owned()));
        for (server, folder) in folders.into_iter().chain(menus) {
            // What it says to administrators is no news here.
            quietly(self.command().args(["config", server, "--output"]).arg(folder))?;
        }
        Ok(())
    }

    /// The companion, told of this site.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.rootstream);
        command.arg("--site").arg(self.folder());
        command
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Whether `made` exists and is newer than all that it is made from, as make(1) sees it.
fn is_newer(made: &Path, from: &[&Path]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let made = time(made);
    made.is_some() && from.iter().all(|path| time(path) < made)
}

/// Leaves a file's time alone where its content is right: the companion builds again what is older.
fn write_changed(path: &Path, content: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_its_sources_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("source"), "").unwrap();
        assert!(!is_newer(&at("made"), &[&at("source")]));
        fs::write(at("made"), "").unwrap();
        let later = fs::metadata(at("source")).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(at("made")).unwrap().set_modified(later).unwrap();
        assert!(is_newer(&at("made"), &[&at("source")]));
        let still_later = later + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(at("source")).unwrap().set_modified(still_later).unwrap();
        assert!(!is_newer(&at("made"), &[&at("source")]));
    }

    #[test]
    fn unchanged_files_keep_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.toml");
        write_changed(&file, "a").unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        write_changed(&file, "a").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), time);
        write_changed(&file, "b").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "b");
    }
}
