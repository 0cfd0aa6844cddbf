//! Sizes of what a node loads before the image, and what looking at every byte costs.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::images::Workshop;

/// About as many bytes as a chunk has in the file.
const PIECE: usize = 512 << 10;

/// Bytes of what is baked before any image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// The agent.
    pub init: u64,
    /// An initramfs with the agent and no kernel module.
    pub initramfs: u64,
}

impl Sizes {
    /// Measures the agent, and an initramfs that the companion makes for the image `name`.
    ///
    /// # Errors
    /// The companion fails.
    pub fn of(workshop: &Workshop, name: &str, init: &Path) -> Result<Self> {
        let none = tempfile::NamedTempFile::new().context("making an empty list of modules")?;
        let mut bootstrap = workshop.companion();
        bootstrap.args(["bootstrap", name, "--init"]).arg(init).arg("--modules").arg(none.path());
        let status = bootstrap.stdin(Stdio::null()).status().with_context(|| format!("starting {bootstrap:?}"))?;
        ensure!(status.success(), "{bootstrap:?} ended with {status}");
        let folder = workshop.site().join("tftp").join(name);
        let record = fs::read(folder.join("bootstrap.json")).context("reading what bootstrap made")?;
        let record: Value = serde_json::from_slice(&record).context("reading what bootstrap made")?;
        let initramfs = record.get("initramfs").and_then(Value::as_str).context("bootstrap made no initramfs")?;
        Ok(Self { init: length(init)?, initramfs: length(&folder.join(initramfs))? })
    }
}

fn length(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("measuring {}", file.display()))?.len())
}

/// CPU seconds that the sha256 of a file takes, of two pieces at a time as the agent does it, without reading it: the
/// least of three times.
///
/// # Errors
/// The file cannot be read.
pub fn digest_seconds(file: &Path) -> Result<f64> {
    let once = || -> Result<Duration> {
        let mut open = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        let (mut block, mut took) = (vec![0; 2 * PIECE], Duration::ZERO);
        loop {
            let count = open.read(&mut block).with_context(|| format!("reading {}", file.display()))?;
            if count == 0 {
                return Ok(took);
            }
            let start = clock()?;
            let halves = block.get(..count).unwrap_or_default().split_at(count / 2);
            std::hint::black_box(sha256x2::of_two([halves.0, halves.1]));
            took += clock()? - start;
        }
    };
    Ok(once()?.min(once()?).min(once()?).as_secs_f64())
}

/// CPU time of the calling thread.
fn clock() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("asking for the thread's CPU time")?.into())
}
