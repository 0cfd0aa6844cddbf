//! `rootstream boot`: a node from the network, once, followed on its console to the login prompt or to what it says
//! instead.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rootstream::failure::refuse;
use serde::Serialize;

use super::access::Access;
use super::bmc::{Order, State};
use super::conlog::ConsoleLog;
use super::console::refusal;
use super::ipmi::end_console;
use super::sol::{OPERATIONAL, Session};
use super::stagger::Turns;
use super::switch::{Limits, reach};
use super::watch::{Verdict, Watch};

/// A BMC that drops its console while the power changes gives it back after this long.
const AGAIN: Duration = Duration::from_secs(2);
/// What a console that was just opened repeats of the past comes within this time.
const PAST: Duration = Duration::from_millis(500);

/// A node that showed its login prompt.
#[derive(Debug, Serialize)]
pub(super) struct Booted {
    login: String,
    /// From power-on.
    boot_seconds: f64,
}

impl fmt::Display for Booted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {} s after power-on", self.login, self.boot_seconds)
    }
}

/// How it is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// The firmware is to boot from the network as UEFI.
    pub(super) efi: bool,
    /// From power-on to the login prompt.
    pub(super) patience: Duration,
    /// For what the BMC does.
    pub(super) limits: Limits,
}

/// Boots a node: off where it is on, network boot once, console, its turn, power on, follow.
///
/// # Errors
/// The BMC fails, the console says that the boot failed, or patience ends; the error names the console's log.
pub(super) fn boot(access: &Access, mut log: ConsoleLog, turns: &Turns, plan: Plan) -> Result<Booted> {
    let bmc = access.connect(plan.limits.exchange)?;
    if bmc.state()? == State::On {
        bmc.order(Order::Off)?;
        reach(&*bmc, access, State::Off, plan.limits.effect)?;
    }
    // Who had it would miss nothing: what it says is in the same log.
    end_console(&access.for_console(), plan.limits.exchange)?;
    let mut console = Console::open(access, &mut log, plan.limits.exchange)?;
    turns.wait();
    // As late as can be: BMCs forget it after a minute.
    bmc.network_boot_once(plan.efi)?;
    log.note("network boot once, power on")?;
    let powered = Instant::now();
    bmc.order(Order::On)?;
    let followed = follow(&mut console, &mut log, powered, plan.patience, || {
        // A Redfish service may do what it was told only when it is asked again.
        bmc.state().map(drop)
    });
    let path = log.path().display().to_string();
    console.session.end();
    let seen = powered.elapsed();
    log.note("followed to here")?;
    match followed? {
        Seen::End(Verdict::Login(login)) => {
            Ok(Booted { login, boot_seconds: (seen.as_secs_f64() * 10.0).round() / 10.0 })
        }
        Seen::End(Verdict::Failed(why)) => Err(refuse(
            format!("{} did not boot, after {} s its console said: {why}", access.node, seen.as_secs()),
            format!("what came before that is in {path}"),
        )),
        Seen::Silence(last) => Err(refuse(
            format!(
                "{} showed no login prompt within {} s; its console's last line: {}",
                access.node,
                plan.patience.as_secs(),
                if last.is_empty() { "none" } else { &last }
            ),
            format!(
                "read {path}; a console that stays empty wants its kernel on the BMC's serial port (console=ttyS0,115200, \
                 perhaps ttyS1) and redirection in the firmware; --timeout waits longer"
            ),
        )),
    }
}

/// How following ended.
enum Seen {
    End(Verdict),
    /// The last line that came.
    Silence(String),
}

/// A session whose screen is read.
struct Console<'a> {
    access: &'a Access,
    session: Session,
    screen: Receiver<Vec<u8>>,
}

impl<'a> Console<'a> {
    /// Opens it, and reads away what it repeats of the past.
    fn open(access: &'a Access, log: &mut ConsoleLog, limit: Duration) -> Result<Self> {
        let session = Session::open(access)?;
        let screen = session.screen()?;
        let (start, mut said) = (Instant::now(), String::new());
        loop {
            let is_open = said.contains(OPERATIONAL);
            match screen.recv_timeout(PAST) {
                Ok(piece) => {
                    log.add(&piece)?;
                    said.push_str(&String::from_utf8_lossy(&piece));
                }
                Err(RecvTimeoutError::Timeout) if is_open => return Ok(Self { access, session, screen }),
                Err(RecvTimeoutError::Timeout) if start.elapsed() < limit => {}
                Err(_) => return Err(refusal(access, &said)),
            }
            if is_open && start.elapsed() >= limit {
                bail!("the console of {} does not stop talking though it has no power", access.node);
            }
        }
    }
}

fn follow(
    console: &mut Console<'_>,
    log: &mut ConsoleLog,
    powered: Instant,
    patience: Duration,
    mut nudge: impl FnMut() -> Result<()>,
) -> Result<Seen> {
    let mut watch = Watch::default();
    let mut nudged = Instant::now();
    let mut heard = false;
    loop {
        let left = patience.saturating_sub(powered.elapsed());
        if left.is_zero() {
            return Ok(watch.ended().map_or_else(|| Seen::Silence(watch.last()), Seen::End));
        }
        match console.screen.recv_timeout(left.min(AGAIN)) {
            Ok(piece) => {
                heard = true;
                log.add(&piece)?;
                if let Some(verdict) = watch.see(&piece) {
                    return Ok(Seen::End(verdict));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                log.note("the BMC ended the console; opening it again")?;
                std::thread::sleep(AGAIN.min(left));
                // Until patience ends: a BMC may be without a console while its node starts.
                match Session::open(console.access).and_then(|session| Ok((session.screen()?, session))) {
                    Ok((screen, session)) => (console.screen, console.session) = (screen, session),
                    Err(error) => return Err(error.context(format!("following {}", console.access.node))),
                }
            }
        }
        if !heard && nudged.elapsed() >= AGAIN {
            nudge()?;
            nudged = Instant::now();
        }
    }
}
