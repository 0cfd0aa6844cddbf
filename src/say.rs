//! The agent's own messages: `say::info!` and its like, for whatever logger the `log` crate has.
//!
//! The macros of `log` itself can be compiled out, for the libraries: what they would say, all of netlink's messages
//! among it, weighs a tenth of the agent (the feature `lean`). These cannot.

use std::fmt::Arguments;

use log::{Level, Record};

/// Logs a message of this level, if the level is on.
pub(crate) fn at(level: Level, message: Arguments<'_>) {
    if level <= log::max_level() {
        log::logger().log(&Record::builder().level(level).target("rootstream").args(message).build());
    }
}

/// Something that an administrator has to mend.
macro_rules! error {
    ($($message:tt)+) => { $crate::say::at(::log::Level::Error, format_args!($($message)+)) };
}

/// Something that went otherwise than it was meant to.
macro_rules! warning {
    ($($message:tt)+) => { $crate::say::at(::log::Level::Warn, format_args!($($message)+)) };
}

/// What a boot does.
macro_rules! info {
    ($($message:tt)+) => { $crate::say::at(::log::Level::Info, format_args!($($message)+)) };
}

/// What only somebody asks for who looks for a fault.
macro_rules! debug {
    ($($message:tt)+) => { $crate::say::at(::log::Level::Debug, format_args!($($message)+)) };
}

pub(crate) use warning as warn; // `warn` is also an attribute's name
pub(crate) use {debug, error, info};
