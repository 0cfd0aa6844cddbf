//! A virtual node that its BMC powers on, because `rootstream boot` says so.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::board::Board;
use super::ipmi::{self, IpmiBmc};
use super::redfish::{self, RedfishBmc};
use super::tools::{Tools, emulator};
use super::{PASSWORD, USER};
use crate::bound::Bound;
use crate::machine::{Machine, Process};
use crate::namespace::ip;
use crate::node::Node;
use crate::patience::Patience;
use crate::qmp::Qmp;
use crate::site::Site;
use crate::transcript::Transcript;

/// The address of the node's BMC; on loopback, so that no server of the master's is on it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 101);
/// Where the node's serial port listens.
const SERIAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9003);
/// The port of IPMI, which has the console for both kinds of BMC.
const IPMI: u16 = 623;
/// The port of Redfish.
const REDFISH: u16 = 443;

/// Gets what the BMC of `power`, a value of POWER, is made of. To be called where the network is.
///
/// # Errors
/// It cannot be downloaded.
pub fn fetch(power: &str) -> Result<()> {
    if power != "lab" {
        Tools::unpack()?;
    }
    if power == redfish::NAME {
        emulator()?;
    }
    Ok(())
}

/// The BMC of a node, and the command that boots it.
#[derive(Debug)]
pub struct Powered {
    board: Arc<Board>,
    boot: Bound,
    said: PathBuf,
    console: PathBuf,
    _bmcs: (Option<RedfishBmc>, IpmiBmc),
}

/// Has the node powered on by its BMC: `power` says of which kind. Its logs go where [`Node::power_on`] puts them.
///
/// # Errors
/// The BMC does not start, or the node is not powered on.
pub fn power_on(
    power: &str,
    node: Node,
    mac: &str,
    site: &Site,
    transcript: &Transcript,
) -> Result<(Machine, Powered)> {
    let (tools, folder) = (Tools::unpack()?, site.logs().join("bmc"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    ip(&format!("address add {ADDRESS}/32 dev lo"))?;
    let name = node.name().to_owned();
    let log = site.logs().join(format!("{name}.console"));
    File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let sockets = tempfile::tempdir().context("making a folder for QEMU's sockets")?;
    let arguments = node.serial_at(SERIAL.into()).arguments(sockets.path(), &log);
    let board = Arc::new(Board::new(&folder.join("board"), "qemu-system-x86_64", &arguments)?);
    let at = |port| SocketAddr::from((ADDRESS, port));
    let (of_ipmi, of_redfish) = (folder.join("ipmi"), folder.join("redfish"));
    for folder in [&of_ipmi, &of_redfish] {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let console = IpmiBmc::start(&tools, &of_ipmi, &board, at(IPMI), SERIAL.into())?;
    let service = match power {
        redfish::NAME => Some(RedfishBmc::start(&emulator()?, &of_redfish, &board, at(REDFISH), (&name, mac))?),
        _ => None,
    };
    let password = folder.join("password");
    fs::write(&password, format!("{PASSWORD}\n")).context("writing the BMC's password")?;
    fs::set_permissions(&password, Permissions::from_mode(0o600))?;
    let settings = [
        format!("bmc.ip={ADDRESS}"),
        format!("bmc.protocol={power}"),
        format!("bmc.user={USER}"),
        format!("bmc.password_file={}", password.display()),
        format!("bmc.cipher={}", ipmi::CIPHER),
        format!("bmc.insecure={}", power == redfish::NAME),
    ];
    let status = site.command().args(["node", "set", &name]).args(&settings).status().context("setting the BMC")?;
    ensure!(status.success(), "rootstream node set ended with {status}");
    let console_log = site.folder().join("log/console").join(format!("{name}.log"));
    if console_log.exists() {
        fs::remove_file(&console_log).context("removing an earlier console's log")?;
    }
    let said = folder.join("boot");
    let (out, err) = (File::create(&said)?, File::options().append(true).open(&said)?);
    let command = site.command();
    let program = command.get_program().to_string_lossy().into_owned();
    let mut boot = Bound::start(&program, |c| {
        tools.lend(c).args(command.get_args()).args(["boot", &name]).stdout(out).stderr(err)
    })?;
    let (pid, qmp) = connect(&mut boot, &board, &sockets.path().join("qmp"))
        .with_context(|| format!("powering {name} on: {}", fs::read_to_string(&said).unwrap_or_default().trim()))?;
    transcript.follow(&name, &log);
    let (powered, process) = (Instant::now(), Process::OfBmc(pid));
    let machine = Machine { name, log, sockets, process, qmp, transcript: transcript.clone(), powered };
    Ok((machine, Powered { board, boot, said, console: console_log, _bmcs: (service, console) }))
}

/// Waits until the BMC has started QEMU, and QEMU has begun.
fn connect(boot: &mut Bound, board: &Board, socket: &Path) -> Result<(u32, Qmp)> {
    let start = Instant::now();
    loop {
        if let (Some(pid), Ok(qmp)) = (board.pid(), Qmp::connect(socket)) {
            return Ok((pid, qmp));
        }
        if let Some(status) = boot.ended()? {
            bail!("rootstream boot ended with {status}");
        }
        if let Some(reason) = Patience::with(1).exhausted(Duration::ZERO, start.elapsed()) {
            bail!("no QEMU: {reason}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Powered {
    /// Waits until `rootstream boot` has seen the login prompt too.
    ///
    /// # Errors
    /// It has not, its log of the console has none, or the BMC has not switched the power on.
    pub fn finish(&mut self) -> Result<()> {
        let start = Instant::now();
        let said = || fs::read_to_string(&self.said).unwrap_or_default();
        let status = loop {
            if let Some(status) = self.boot.ended()? {
                break status;
            }
            if let Some(reason) = Patience::with(1).exhausted(Duration::ZERO, start.elapsed()) {
                bail!("rootstream boot: {reason}: {}", said());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        ensure!(status.success(), "rootstream boot ended with {status}: {}", said());
        let console = fs::read(&self.console).with_context(|| format!("reading {}", self.console.display()))?;
        ensure!(String::from_utf8_lossy(&console).contains(" login: "), "no login in {}", self.console.display());
        ensure!(self.board.log().contains("set power 1"), "the BMC switched nothing on: {}", self.board.log());
        eprint!("{}", said());
        Ok(())
    }
}
