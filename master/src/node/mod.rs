//! The machines that boot from a site.

mod command;

pub(crate) use command::Command;
