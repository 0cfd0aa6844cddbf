//! The companion of rootstream: what an administrator does on the master.
//!
//! One command per verb ([`cli`]), each a module with one job: [`config`] is what the administrator
//! writes, [`image`] and [`overlay`] build and publish, [`bootstrap`] makes kernel and initramfs, [`up`] serves them.

mod aside;
mod ask;
pub mod bootstrap;
pub mod cli;
mod clock;
pub mod config;
mod export;
pub mod image;
pub mod keys;
mod logger;
mod menu;
mod node;
pub mod overlay;
mod power;
mod progress;
mod say;
mod site;
pub mod up;
