//! Questions on the terminal.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result};

/// Whether somebody is there who can answer.
pub(crate) fn is_possible() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks, on stderr, and returns the answer without the space around it; nothing where the input has ended.
///
/// # Errors
/// The terminal cannot be read.
pub(crate) fn line(question: &str) -> Result<Option<String>> {
    let mut stderr = std::io::stderr();
    // Whoever cannot see the question will not answer it.
    let _ = write!(stderr, "{question} ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let length = std::io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    Ok((length > 0).then(|| answer.trim().to_owned()))
}
