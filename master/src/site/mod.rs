//! Sites: making one.

mod command;
mod starter;

pub(crate) use command::Command;
