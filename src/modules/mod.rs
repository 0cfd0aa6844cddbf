//! Kernel modules: what modules.txt names, what the machine has, and what the kernel asks for.
//!
//! - `list`: modules.txt.
//! - `index`, `alias`, `softdep`: what depmod(8) wrote about a kernel's modules. No I/O.
//! - [`pattern`]: the patterns in modules.alias.
//! - [`loader`]: puts modules into the kernel, each once, with what they need.
//! - `devices`, `uevent`: what the machine has, and what appears later.
//! - [`auto`]: loads what serves it.
//! - [`helper`]: the kernel's own requests, as modprobe(8) would answer them.
//! - [`unclaimed`]: network cards that no module serves.
//!
//! A module that cannot be loaded does not end the boot: whether it can do without shows when a port is looked for.

mod alias;
pub mod auto;
mod devices;
pub mod helper;
mod index;
mod list;
pub mod loader;
pub mod pattern;
mod softdep;
mod uevent;
pub mod unclaimed;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

pub use alias::Aliases;
pub use index::{Index, Item};
pub use list::{List, Request};
pub use softdep::{Around, Softdeps};

/// Release of the running kernel, as `uname -r`.
pub(crate) fn kernel_release() -> Result<String> {
    Ok(uname().context("asking the kernel's release")?.release().to_string_lossy().into_owned())
}

/// `kernel/drivers/net/virtio-net.ko.xz` and `virtio-net` are both `virtio_net`.
pub fn canonical(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}
