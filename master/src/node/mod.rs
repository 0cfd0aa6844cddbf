//! The machines that boot from a site.

mod change;
mod command;
mod discover;
mod export;
mod list;
mod macs;
pub(crate) mod names;
mod sightings;

pub(crate) use command::Command;
