//! Lines on stderr and stdout. That nobody reads them any more is no reason to stop: a pipe's
//! reader may be `head`, and the services outlive the terminal that they were started from.

use std::fmt::Display;
use std::io::Write;

use anyhow::{Context as _, Result};

/// A line beside the result, on stderr.
pub(crate) fn note(line: impl Display) {
    // In one piece: other processes write to the same terminal or log.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A line of the result, on stdout.
pub(crate) fn result(line: impl Display) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints a value for machines.
///
/// # Errors
/// It cannot be JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<()> {
    result(serde_json::to_string_pretty(value).context("writing JSON")?);
    Ok(())
}
