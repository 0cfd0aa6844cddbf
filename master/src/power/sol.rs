//! A session of serial over LAN: ipmitool on a terminal of its own, which it insists on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use rootstream::failure::Advise;

use super::access::Access;
use super::ipmi::{MISSING, end_console, ipmitool, is_missing};
use super::program;

/// What ipmitool says when the console is there.
pub(super) const OPERATIONAL: &str = "SOL Session operational";
/// What it says when somebody else has it.
pub(super) const TAKEN: &str = "SOL payload already active on another session";
/// How ipmitool ends a session, at the start of a line; as in ssh(1).
const END: &[u8] = b"~.";
/// How long ending one may take.
const GRACE: Duration = Duration::from_secs(3);

/// A running session.
#[derive(Debug)]
pub(super) struct Session {
    access: Access,
    child: Child,
    terminal: File,
}

impl Session {
    /// Starts one. Whether it comes about is in what it says.
    ///
    /// # Errors
    /// There is no ipmitool, or the system has no terminal left.
    pub(super) fn open(access: &Access) -> Result<Self> {
        let what = || format!("opening a terminal for the console of {}", access.node);
        // Ours alone: a copy in another child would keep it open.
        let own = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).with_context(what)?;
        grantpt(&own).and_then(|()| unlockpt(&own)).with_context(what)?;
        let path = ptsname_r(&own).with_context(what)?;
        let open = || File::options().read(true).write(true).open(&path).with_context(what);
        let mut command = ipmitool(&access.for_console());
        command.args(["sol", "activate"]).stdin(Stdio::from(open()?)).stdout(open()?).stderr(open()?);
        // Away from Ctrl-C at our terminal: a session that is not ended stays in the BMC.
        command.process_group(0);
        let child = match command.spawn().map_err(anyhow::Error::from) {
            Err(error) if is_missing(&error) => return Err(error).advise("starting ipmitool", MISSING),
            started => started.context("starting ipmitool")?,
        };
        Ok(Self { access: access.clone(), child, terminal: File::from(OwnedFd::from(own)) })
    }

    /// What the console says, in pieces, until the session ends.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(super) fn screen(&self) -> Result<Receiver<Vec<u8>>> {
        let mut terminal = self.terminal.try_clone().context("reading the console")?;
        let (pieces, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO is a terminal's end of file.
            while let Ok(count) = terminal.read(&mut bytes) {
                let piece = bytes.get(..count).unwrap_or_default();
                if piece.is_empty() || pieces.send(piece.to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(screen)
    }

    /// Something to type with.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(super) fn keyboard(&self) -> Result<File> {
        self.terminal.try_clone().context("writing to the console")
    }

    /// Ends the session, in the BMC too.
    pub(super) fn end(mut self) {
        // In the middle of a typed line the escape would be text. Then the BMC is told directly.
        let ended = self.terminal.write_all(END).map_err(anyhow::Error::from);
        let ended = ended.and_then(|()| program::wait(&mut self.child, GRACE));
        if !matches!(ended, Ok(Some(_)))
            && let Err(error) = end_console(&self.access.for_console(), GRACE)
        {
            log::warn!("{error:#}; the next session may have to take it over");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _: io::Result<_> = self.child.wait();
    }
}
