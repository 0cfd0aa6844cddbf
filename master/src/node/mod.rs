//! The machines that boot from a site.

mod change;
mod command;
mod export;
mod list;
mod macs;
pub(crate) mod names;

pub(crate) use command::Command;
