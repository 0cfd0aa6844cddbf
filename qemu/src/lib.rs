//! The lab: private network namespaces, real servers in them, and virtual nodes that boot from them.
//!
//! Tests of the other crates use it too. Nothing in it ever touches the machine's own network.

pub mod faulty;
pub mod namespace;
pub mod packages;
pub mod tree;
