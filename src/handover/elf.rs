//! What a program's ELF header says about where and how it runs (elf(5)).

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

/// Bytes of the file header.
const HEADER: usize = 64;
/// The program header that names the interpreter.
const PT_INTERP: u64 = 3;

/// A 64-bit little-endian program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// The architecture that it is made for, as uname(2) calls it.
    pub arch: &'static str,
    /// The dynamic loader that runs it; none when it is static.
    pub interpreter: Option<PathBuf>,
}

impl Elf {
    /// Reads the file's header and its program header PT_INTERP. The file's offset stays.
    ///
    /// # Errors
    /// It is no such program, is cut short or odd, or is made for an architecture unknown here.
    pub fn read(file: &File) -> Result<Self> {
        let mut head = [0; HEADER];
        let length = file.read_at(&mut head, 0).context("reading the ELF header")?;
        let head = head.get(..length).unwrap_or_default();
        ensure!(head.starts_with(b"\x7fELF"), "not an ELF program");
        let class = (field(head, 4, 1)?, field(head, 5, 1)?);
        ensure!(class == (2, 1), "not a 64-bit little-endian program");
        let arch = match field(head, 18, 2)? {
            62 => "x86_64",
            183 => "aarch64",
            21 => "ppc64le",
            243 => "riscv64",
            machine => bail!("made for an unknown architecture (ELF machine {machine})"),
        };
        let (table, size, count) = (field(head, 32, 8)?, field(head, 54, 2)?, field(head, 56, 2)?);
        ensure!(size >= 56 && count <= 512, "an odd program header table");
        for index in 0..count {
            let mut header = [0; 56];
            let at = table.checked_add(index * size).context("an odd program header table")?;
            file.read_exact_at(&mut header, at).context("cut short")?;
            if field(&header, 0, 4)? != PT_INTERP {
                continue;
            }
            let length = usize::try_from(field(&header, 32, 8)?)?;
            ensure!((2..=4096).contains(&length), "an odd interpreter");
            let mut name = vec![0; length];
            file.read_exact_at(&mut name, field(&header, 8, 8)?).context("cut short")?;
            name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(length));
            return Ok(Self { arch, interpreter: Some(PathBuf::from(OsString::from_vec(name))) });
        }
        Ok(Self { arch, interpreter: None })
    }
}

/// The number in `size` bytes from `at` on.
fn field(bytes: &[u8], at: usize, size: usize) -> Result<u64> {
    let bytes = bytes.get(at..at + size).context("cut short")?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Elf> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, content).unwrap();
        Elf::read(&File::open(path).unwrap())
    }

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // This very test is dynamic where the toolchain's own libc is.
        let this = Elf::read(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap();
        assert_eq!(this.arch, std::env::consts::ARCH);
        assert_eq!(this.interpreter.is_some(), cfg!(target_env = "gnu"));
    }

    #[test]
    fn what_is_no_program_is_said() {
        for (content, why) in [
            (b"#!/bin/sh\n".as_slice(), "not an ELF program"),
            (b"", "not an ELF program"),
            (b"\x7fELF\x01\x01", "64-bit"),
            (b"\x7fELF\x02\x01", "cut short"),
        ] {
            let error = read(content).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let mut header = std::fs::read("/bin/true").unwrap();
        header.truncate(HEADER);
        assert!(read(&header).unwrap_err().to_string().contains("cut short"));
        header[18] = 255;
        assert!(read(&header).unwrap_err().to_string().contains("unknown architecture"));
    }
}
