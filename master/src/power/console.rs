//! `rootstream console`: the user's terminal on a node's serial port, or only its screen.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rootstream::failure::refuse;

use super::access::Access;
use super::conlog::ConsoleLog;
use super::ipmi::{Trouble, end_console};
use super::sol::{OPERATIONAL, Session, TAKEN};
use crate::say;

/// How long ending another's session may take.
const TAKING: Duration = Duration::from_secs(30);

/// How the user wants it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Nothing is typed, only shown.
    pub(super) screen_only: bool,
    /// End the session of whoever has the console.
    pub(super) take: bool,
}

/// Connects the terminal with the console of a node until the escape, a signal, or the session's end.
///
/// # Errors
/// The session does not come about.
pub(super) fn console(access: &Access, mut log: ConsoleLog, manner: Manner) -> Result<()> {
    access.password()?;
    if manner.take {
        end_console(&access.for_console(), TAKING)?;
    }
    // Before the threads, which have the same mask: a signal ends the session, and then the program.
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("watching for signals")?;
    let session = Session::open(access)?;
    let screen = session.screen()?;
    let how = if manner.screen_only { "Ctrl-C ends it" } else { "`~.` at the start of a line ends it, `~?` says more" };
    say::note(format_args!("console of {}, kept in {}: {how}", access.node, log.path().display()));
    let _raw = if !manner.screen_only && io::stdin().is_terminal() { Some(Raw::enter()?) } else { None };
    let (ends, events) = mpsc::channel();
    let signalled = ends.clone();
    thread::spawn(move || {
        if signals.wait().is_ok() {
            let _ = signalled.send(None);
        }
    });
    thread::spawn(move || {
        for piece in screen {
            if ends.send(Some(piece)).is_err() {
                break;
            }
        }
        let _ = ends.send(None);
    });
    if !manner.screen_only {
        let mut keyboard = session.keyboard()?;
        // Reading the keyboard cannot be interrupted: the thread is left behind.
        thread::spawn(move || type_on(&mut keyboard));
    }
    let mut said = String::new();
    for piece in events.iter().map_while(|event| event) {
        log.add(&piece)?;
        // Nobody reading is the end of showing, not of the log.
        let _ = io::stdout().write_all(&piece).and_then(|()| io::stdout().flush());
        if !said.contains(OPERATIONAL) && said.len() < 4096 {
            said.push_str(&String::from_utf8_lossy(&piece));
        }
    }
    session.end();
    if said.contains(OPERATIONAL) { Ok(()) } else { Err(refusal(access, &said)) }
}

/// Why no session came about.
pub(super) fn refusal(access: &Access, said: &str) -> anyhow::Error {
    let what = format!("opening the console of {} at {}", access.node, access.for_console().place());
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
    let todo = if said.contains(TAKEN) {
        format!("someone else has it, or a session was left behind: rootstream console --take {}", access.node)
    } else if said.contains("SOL payload disabled") {
        "switch serial over LAN on in the BMC: ipmitool sol set enabled true".to_owned()
    } else {
        Trouble::of(said).todo(&access.for_console())
    };
    refuse(format!("{what}: {last}"), todo)
}

fn type_on(keyboard: &mut impl Write) {
    let mut bytes = [0; 256];
    while let Ok(count) = io::stdin().read(&mut bytes) {
        // Neither end of the input nor of the session is an error here: the screen goes on until that ends.
        let Some(keys) = bytes.get(..count).filter(|keys| !keys.is_empty()) else { break };
        if keyboard.write_all(keys).is_err() {
            break;
        }
    }
}

/// The user's terminal while every key goes to the node, Ctrl-C too.
struct Raw {
    saved: Termios,
}

impl Raw {
    fn enter() -> Result<Self> {
        let saved = tcgetattr(io::stdin()).context("reading the terminal's settings")?;
        let mut settings = saved.clone();
        cfmakeraw(&mut settings);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &settings).context("setting the terminal")?;
        Ok(Self { saved })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.saved) {
            log::warn!("giving the terminal back: {error}; `reset` does it");
        }
    }
}
