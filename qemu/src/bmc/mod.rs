//! BMCs for tests and the lab: simulators of IPMI and of Redfish that switch a program on and off, which may be a
//! virtual node.

pub mod board;
pub mod ipmi;
pub mod node;
pub mod redfish;
pub mod tools;

/// Who may do everything.
pub const USER: &str = "admin";
/// With which password.
pub const PASSWORD: &str = "s3cret-bmc";
