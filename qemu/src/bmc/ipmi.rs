//! An IPMI BMC: OpenIPMI's ipmi_sim.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::board::{self, Board};
use super::tools::Tools;
use super::{PASSWORD, USER};
use crate::bound::Bound;

/// What such a BMC is called in what it switches on.
pub const NAME: &str = "ipmi";
/// The cipher suite that ipmitool has to use with it.
pub const CIPHER: u8 = 3;

/// A BMC with no sensors and an event log.
const COMMANDS: &str = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                        sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";

/// A running BMC.
#[derive(Debug)]
pub struct IpmiBmc {
    _sim: Bound,
}

impl IpmiBmc {
    /// Starts the BMC of `board` at `address`, with its files in `folder`. `console` is where the board's serial port
    /// listens, or will.
    ///
    /// # Errors
    /// It does not start; what it said is part of the error.
    pub fn start(
        tools: &Tools,
        folder: &Path,
        board: &Board,
        address: SocketAddr,
        console: SocketAddr,
    ) -> Result<Self> {
        let file = |name: &str, text: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        let state = folder.join("state");
        fs::create_dir_all(&state).with_context(|| format!("creating {}", state.display()))?;
        let users = format!(
            "  user 1 true \"\" \"test\" user 10 none md2 md5 straight\n  user 2 true \"{USER}\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n"
        );
        let allowed: String = ["callback", "user", "operator", "admin"]
            .map(|who| format!("    allowed_auths_{who} none md2 md5 straight\n"))
            .concat();
        let lan = format!(
            "name \"node\"\n  startlan 1\n    addr {} {}\n    priv_limit admin\n{allowed}    guid a123456789abcdefa123456789abcdef\n  endlan\n  \
             chassis_control \"{} node\"\n  sol \"tcp:{console}\" 115200 history=4000\n{users}",
            address.ip(),
            address.port(),
            board.chassis().display(),
        );
        let (lan, commands) = (file("lan.conf", &lan)?, file("commands", COMMANDS)?);
        let said = folder.join("said");
        let (out, err) = (File::create(&said)?, File::options().append(true).open(&said)?);
        let mut sim = Bound::start("ipmi_sim", |c| {
            board::name(c, NAME);
            tools
                .lend(c)
                .arg("-n")
                .arg("-c")
                .arg(&lan)
                .arg("-f")
                .arg(&commands)
                .arg("-s")
                .arg(&state)
                .stdout(out)
                .stderr(err)
        })?;
        let start = Instant::now();
        // It answers as soon as its port is taken.
        while !listens(address) {
            let words = || fs::read_to_string(&said).unwrap_or_default();
            if let Some(status) = sim.ended()? {
                bail!("ipmi_sim ended with {status}: {}", words().trim());
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("ipmi_sim does not listen at {address}: {}", words().trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { _sim: sim })
    }
}

/// Whether somebody has the UDP port of this address.
fn listens(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind(address).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}
