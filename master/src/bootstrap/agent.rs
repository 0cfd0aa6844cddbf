//! The agent's binary, `/init` of the initramfs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rootstream::failure::{Advise, refuse};
use rootstream::handover::Elf;

/// The bytes of the agent: of `chosen`, or of the one that was built with this program.
///
/// # Errors
/// `chosen` cannot be read, or no static agent is where one is expected.
pub(super) fn find(chosen: Option<&Path>) -> Result<Vec<u8>> {
    if let Some(path) = chosen {
        let (content, dynamic) = program(path)
            .advise(format!("reading the agent {}", path.display()), "name the static binary with --init PATH")?;
        if dynamic {
            log::warn!("{} is not static: the kernel cannot run it as /init", path.display());
        }
        return Ok(content);
    }
    let candidates = candidates();
    for path in &candidates {
        if let Ok((content, false)) = program(path) {
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

/// The bytes of the program at `path`, and whether it asks for a dynamic loader, which an initramfs
/// does not have.
///
/// # Errors
/// It cannot be read.
pub(super) fn program(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut file = File::open(path)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let dynamic = Elf::read(&file).is_ok_and(|elf| elf.interpreter.is_some());
    Ok((content, dynamic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // This very test is dynamic where the toolchain's own libc is.
        let this = std::env::current_exe().unwrap();
        let (content, dynamic) = program(&this).unwrap();
        assert_eq!(content, std::fs::read(&this).unwrap());
        assert_eq!(dynamic, cfg!(target_env = "gnu"));
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        assert_eq!(program(script.path()).unwrap(), (b"#!/bin/sh\n".to_vec(), false));
    }
}
