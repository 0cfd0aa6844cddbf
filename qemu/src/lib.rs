//! The lab: private network namespaces, real servers in them, and virtual nodes that boot from them.
//!
//! Tests of the other crates use it too. Nothing in it ever touches the machine's own network.

pub mod bmc;
pub mod bound;
pub mod choices;
pub mod classic;
pub mod enclosure;
pub mod evidence;
pub mod faulty;
pub mod firmware;
pub mod generic;
pub mod hold;
pub mod machine;
pub mod namespace;
pub mod netboot;
pub mod network;
pub mod node;
pub mod packages;
pub mod patience;
mod plain;
pub mod qmp;
pub mod servers;
pub mod site;
pub mod sockets;
pub mod ssh;
pub mod switch;
pub mod timeline;
pub mod transcript;
pub mod tree;
pub mod tun;
