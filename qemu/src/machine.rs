//! A virtual node that is powered on.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::bound::Bound;
use crate::patience::Patience;
use crate::qmp::Qmp;
use crate::transcript::{Line, Transcript};

/// Lines of console in an error message.
const TAIL: usize = 40;

/// A running QEMU; dropping it pulls the plug.
#[derive(Debug)]
pub struct Machine {
    pub(crate) name: String,
    pub(crate) log: PathBuf,
    pub(crate) sockets: TempDir,
    pub(crate) process: Process,
    pub(crate) qmp: Qmp,
    pub(crate) transcript: Transcript,
    pub(crate) powered: Instant,
}

/// A QEMU.
#[derive(Debug)]
pub(crate) enum Process {
    /// It ends with us.
    Own(Bound),
    /// A BMC started it, and ends it.
    OfBmc(u32),
}

impl Process {
    fn id(&self) -> u32 {
        match self {
            Self::Own(qemu) => qemu.id(),
            Self::OfBmc(process) => *process,
        }
    }

    fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        match self {
            Self::Own(qemu) => qemu.ended(),
            // How it ended is between it and its BMC.
            Self::OfBmc(process) => Ok((!Path::new(&format!("/proc/{process}")).exists()).then(ExitStatus::default)),
        }
    }
}

impl Machine {
    /// When the first instruction ran.
    pub fn powered(&self) -> Instant {
        self.powered
    }

    /// The QEMU's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until a console line contains `marker` and returns that line.
    ///
    /// # Errors
    /// The machine ended or patience ran out first; the error ends with the console's last lines.
    pub fn wait_for(&mut self, marker: &str) -> Result<String> {
        let name = self.name.clone();
        let transcript = self.transcript.clone();
        let matching = |line: &Line| Ok((line.source == name && line.text.contains(marker)).then(|| line.text.clone()));
        let found = transcript.wait(Patience::with(1), || self.alive(), matching);
        found.map_err(|error| anyhow!("waiting for {marker:?}: {error}; {}", self.last_words()))
    }

    /// Waits until the machine has powered itself off.
    ///
    /// # Errors
    /// Patience ran out first; the error ends with the console's last lines.
    pub fn wait_for_end(&mut self) -> Result<()> {
        let transcript = self.transcript.clone();
        let waited = transcript.wait(Patience::with(1), || self.alive(), |_| Ok(None::<()>));
        match (self.process.ended()?, waited) {
            (Some(status), _) if status.success() => Ok(()),
            (Some(status), _) => bail!("QEMU ended with {status}; {}", self.last_words()),
            (None, waited) => {
                waited.map_err(|error| anyhow!("waiting for the power to go off: {error}; {}", self.last_words()))
            }
        }
    }

    /// Fails once the machine has ended.
    ///
    /// # Errors
    /// It has.
    pub fn alive(&mut self) -> Result<()> {
        match self.process.ended().context("asking for QEMU's end")? {
            Some(status) => bail!("{} went off (QEMU: {status})", self.name),
            None => Ok(()),
        }
    }

    /// The console's last lines, for an error message.
    pub fn last_words(&self) -> String {
        format!("the last lines of {}'s console:\n{}", self.name, self.transcript.tail(&self.name, TAIL))
    }

    /// Connects to the serial port: what is written into it is typed on the console.
    ///
    /// # Errors
    /// QEMU has gone.
    pub fn attach(&self) -> Result<UnixStream> {
        UnixStream::connect(self.sockets.path().join("console"))
            .with_context(|| format!("attaching to {}'s console", self.name))
    }

    /// Presses one of the kernel's SysRq keys: a serial BREAK, then the key.
    ///
    /// # Errors
    /// QEMU has gone.
    pub fn sysrq(&mut self, key: u8) -> Result<()> {
        let mut console = self.attach()?;
        self.qmp.execute("chardev-send-break", json!({ "id": "console" }))?;
        console.write_all(&[key]).context("typing on the console")
    }

    /// Gives the card with this number, from 0 in the order in which the node got them, carrier or takes it away.
    ///
    /// # Errors
    /// QEMU has gone, or has no such card.
    pub fn set_carrier(&mut self, card: usize, carrier: bool) -> Result<()> {
        self.qmp.execute("set_link", json!({ "name": format!("net{card}"), "up": carrier }))?;
        Ok(())
    }

    /// The accelerator in use, as QEMU says.
    ///
    /// # Errors
    /// QEMU has gone.
    pub fn accel(&mut self) -> Result<&'static str> {
        let answer = self.qmp.execute("query-kvm", json!({}))?;
        let enabled = answer.get("enabled").and_then(serde_json::Value::as_bool);
        Ok(if enabled.context("QEMU does not say whether KVM is on")? { "kvm" } else { "tcg" })
    }

    /// The file that holds all the console has said, escape sequences too.
    pub fn console_log(&self) -> &Path {
        &self.log
    }
}
