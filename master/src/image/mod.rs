//! Images: built from a recipe, checked, published into the store.

pub mod build;
pub mod built;
pub mod list;
pub mod manifest;
mod overlay;
pub mod publish;
mod secrets;
mod survey;

pub(crate) use survey::plain;
pub use survey::{Survey, survey};
