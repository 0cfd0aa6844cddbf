//! The hand-over to the image: its init is found, the files for stage 2 are left, and PID 1 becomes
//! that init, as util-linux's switch_root(8) does it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cmdline::Config;
use crate::dhcp::Lease;
use crate::image::VerifiedRoot;
use crate::report::Record;

mod elf;
mod files;
mod find;
mod switch;

pub use elf::Elf;
pub use find::check_init;
pub(crate) use find::resolve;
pub use switch::switch_root;

/// A root that can be switched to. Made from a [`VerifiedRoot`] whose init was found, in the process
/// that verified it, and sent from there to PID 1.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    root: PathBuf,
    init: PathBuf,
    args: Vec<String>,
}

impl Ready {
    /// Where the root is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image's init, as a path in the image.
    pub fn init(&self) -> &Path {
        &self.init
    }
}

/// Paths of the files that hand-over adds to the image.
pub fn additions(root: &VerifiedRoot, lease: Option<&Lease>) -> Vec<String> {
    files::for_stage_2(root.path(), lease).into_iter().map(|file| file.path).collect()
}

/// Leaves the files for stage 2: those that the image leaves open in its root, the record and the
/// lease in `run`, which moves to stage 2.
///
/// # Errors
/// A file cannot be written.
pub fn prepare(root: VerifiedRoot, config: &Config, lease: &Lease, record: &mut Record, run: &Path) -> Result<Ready> {
    for file in files::for_stage_2(root.path(), Some(lease)) {
        let path = root.path().join(file.path.trim_start_matches('/'));
        std::fs::write(&path, &file.content).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(name) = &lease.hostname {
        nix::unistd::sethostname(name).with_context(|| format!("setting the host name {name}"))?;
    }
    record.ok = true;
    files::leave_record(run, record, lease)?;
    Ok(Ready { root: root.path().to_owned(), init: config.init.clone(), args: config.init_args.clone() })
}
