//! What the figures were taken with: the machine, and every program's version.

use std::fs;
use std::process::{Command, Stdio};

use rootstream_lab::packages::unpacked;

/// A name and what it is.
pub type Fact = (&'static str, String);

/// Processor, cores, memory, kernel, and how busy others keep it.
pub fn machine() -> Vec<Fact> {
    let first = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("unknown").to_owned();
        line.trim_start_matches([' ', '\t', ':']).to_owned()
    };
    let whole = |file: &str| fs::read_to_string(file).unwrap_or_default().trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = whole("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    vec![
        ("processor", format!("{}, {cores} cores", first("/proc/cpuinfo", "model name"))),
        ("memory", first("/proc/meminfo", "MemTotal")),
        ("kernel", whole("/proc/sys/kernel/osrelease")),
        ("others' load before the first run", load),
    ]
}

/// The version of every program that takes part, as it tells it.
pub fn programs() -> Vec<Fact> {
    let nginx = unpacked("nginx").map(|folder| folder.join("usr/sbin/nginx").display().to_string()).unwrap_or_default();
    vec![
        ("rootstream", format!("{} ({})", env!("CARGO_PKG_VERSION"), commit())),
        ("busybox", version("busybox", &[])),
        ("curl", version("curl", &["--version"])),
        ("gzip", version("gzip", &["--version"])),
        ("pigz", version("pigz", &["--version"])),
        ("zstd", version("zstd", &["--version"])),
        ("GNU tar", version("tar", &["--version"])),
        ("bsdtar", version("bsdtar", &["--version"])),
        ("nginx", version(&nginx, &["-v"])),
    ]
}

/// The commit that this was built from, as far as git knows.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]).stderr(Stdio::null());
    let output = git.output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "no commit".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The first line that a program says about itself, on either output.
fn version(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next().unwrap_or("unknown").trim_matches(['*', ' ']);
    // Some go on with every library that they were built with.
    let words: Vec<&str> = line.split(' ').take(4).collect();
    words.join(" ").trim_end_matches(',').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_tells_its_version() {
        for (name, version) in programs() {
            assert!(version.contains(|c: char| c.is_ascii_digit()), "{name}: {version}");
        }
        let facts = machine();
        assert!(facts.iter().all(|(_, value)| !value.is_empty() && !value.contains("unknown")), "{facts:?}");
    }
}
