//! What the administrator writes: site.toml, nodes.toml and images/NAME.toml.
//!
//! Every refusal names the file and the line.

pub mod addresses;
mod document;
pub mod facts;
pub mod groups;
pub mod nodes;
pub mod recipe;
pub mod site;

pub use document::{Document, Misconfigured};
