//! The companion of rootstream: what an administrator does on the master.
//!
//! One command per verb ([`cli`]), each a module with one job: [`config`] is what the administrator
//! writes, [`image`] builds and publishes, [`bootstrap`] makes kernel and initramfs, [`up`] serves them.

mod aside;
pub mod bootstrap;
pub mod cli;
mod clock;
pub mod config;
pub mod image;
pub mod keys;
mod logger;
mod progress;
mod say;
mod starter;
pub mod up;
