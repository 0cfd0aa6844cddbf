//! The agent's binary, `/init` of the initramfs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rootstream::failure::{Advise, refuse};

/// The bytes of the agent: of `chosen`, or of the one that was built with this program.
///
/// # Errors
/// `chosen` cannot be read, or no static agent is where one is expected.
pub(super) fn find(chosen: Option<&Path>) -> Result<Vec<u8>> {
    if let Some(path) = chosen {
        let content = fs::read(path)
            .advise(format!("reading the agent {}", path.display()), "name the static binary with --init PATH")?;
        if needs_interpreter(&content) {
            log::warn!("{} is not static: the kernel cannot run it as /init", path.display());
        }
        return Ok(content);
    }
    let candidates = candidates();
    for path in &candidates {
        if let Ok(content) = fs::read(path)
            && !needs_interpreter(&content)
        {
            return Ok(content);
        }
    }
    let places: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(refuse(
        format!("the agent is missing: no static binary at {}", places.join(" or ")),
        "build it with `make init`, or name it with --init PATH",
    ))
}

/// Next to this program, or in the checkout that this program was built from.
fn candidates() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("init")));
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(|top| top.join("target/x86_64-unknown-linux-musl/release/init"));
    beside.into_iter().chain(checkout).collect()
}

/// Whether the ELF program asks for a dynamic loader (a PT_INTERP header, elf(5)), which an
/// initramfs does not have.
pub(super) fn needs_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let headers = || -> Option<bool> {
        if !elf.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let table = usize::try_from(number(32, 8)?).ok()?;
        let (size, count) = (usize::try_from(number(54, 2)?).ok()?, usize::try_from(number(56, 2)?).ok()?);
        Some((0..count).any(|n| table.checked_add(n * size).and_then(|at| number(at, 4)) == Some(PT_INTERP)))
    };
    headers().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // This very test is dynamic where the toolchain's own libc is.
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(needs_interpreter(&this), cfg!(target_env = "gnu"));
        assert!(!needs_interpreter(b"#!/bin/sh\n"));
        assert!(!needs_interpreter(b"\x7fELF\x02\x01"));
    }
}
