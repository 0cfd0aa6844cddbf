//! Sites: making one.

mod command;
mod interfaces;
mod questions;
mod starter;

pub(crate) use command::Command;
