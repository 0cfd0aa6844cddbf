//! Nodes' power, consoles and BMCs.
//!
//! IPMI goes through ipmitool(1), whose serial over LAN is the console for both protocols; Redfish over HTTPS. Every
//! command is for named nodes, does many at once, and has a result for each.

mod access;
mod bmc;
mod boot;
mod command;
mod conlog;
mod console;
mod info;
mod ipmi;
mod many;
mod outcome;
mod program;
mod redfish;
mod sol;
mod stagger;
mod switch;
mod watch;

pub(crate) use command::{BmcCommand, BootArgs, ConsoleArgs, PowerCommand};
