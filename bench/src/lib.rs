//! Side-by-side runs: one image, from nginx into a fresh tmpfs, by the agent and by the programs that clusters use
//! today. [`comparison::Comparison`] runs them in turn, [`page`] writes what came out.

pub mod comparison;
pub mod images;
pub mod machine;
pub mod measure;
pub mod page;
pub mod sizes;
pub mod targets;
pub mod ways;

mod server;
mod stats;
mod tables;
