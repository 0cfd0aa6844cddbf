//! The user's terminal on a node's console.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Ctrl-], as in telnet.
const ESCAPE: u8 = 0x1d;

/// Connects standard input and output with a console until Ctrl-], the input's end, or the node's.
///
/// # Errors
/// The console cannot be read or written.
pub fn attach(mut console: UnixStream) -> Result<()> {
    let saved = if io::stdin().is_terminal() { Some(raw()?) } else { None };
    let copied = copy(&mut console);
    if let Some(settings) = saved {
        tcsetattr(io::stdin(), SetArg::TCSANOW, &settings).context("giving the terminal back")?;
    }
    println!();
    copied
}

fn copy(console: &mut UnixStream) -> Result<()> {
    let mut screen = console.try_clone().context("reading the console")?;
    let typist = console.try_clone().context("writing the console")?;
    // Reading the keyboard cannot be interrupted: that thread is left behind when the node ends first.
    thread::spawn(move || {
        // Either end gone is the end of typing.
        let _ = type_on(&typist, &mut io::stdin().lock());
        let _ = typist.shutdown(std::net::Shutdown::Both);
    });
    let mut bytes = [0; 4096];
    loop {
        let count = screen.read(&mut bytes).context("reading the console")?;
        let Some(fresh) = bytes.get(..count).filter(|fresh| !fresh.is_empty()) else { return Ok(()) };
        io::stdout().write_all(fresh).and_then(|()| io::stdout().flush()).context("writing to the terminal")?;
    }
}

/// Copies keys until the escape or the end.
fn type_on(mut console: &UnixStream, keyboard: &mut impl Read) -> io::Result<()> {
    let mut bytes = [0; 256];
    loop {
        let count = keyboard.read(&mut bytes)?;
        let keys = bytes.get(..count).unwrap_or_default();
        let end = keys.iter().position(|key| *key == ESCAPE);
        console.write_all(keys.get(..end.unwrap_or(count)).unwrap_or_default())?;
        if end.is_some() || count == 0 {
            return Ok(());
        }
    }
}

/// Passes every key through, Ctrl-C too; returns how the terminal was.
fn raw() -> Result<Termios> {
    let saved = tcgetattr(io::stdin()).context("reading the terminal's settings")?;
    let mut settings = saved.clone();
    cfmakeraw(&mut settings);
    tcsetattr(io::stdin(), SetArg::TCSANOW, &settings).context("setting the terminal")?;
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_ends_at_the_escape() {
        let (console, mut node) = UnixStream::pair().unwrap();
        type_on(&console, &mut &b"root\r\x1dnot typed"[..]).unwrap();
        drop(console);
        let mut typed = String::new();
        node.read_to_string(&mut typed).unwrap();
        assert_eq!(typed, "root\r");
    }
}
