//! Images: built from a recipe, checked, published into the store.

pub mod build;
pub mod built;
mod canon;
pub mod choose;
mod command;
mod filesystem;
pub mod import;
pub mod list;
mod overlay;
mod pack;
pub mod publish;
pub mod remove;
pub(crate) mod secrets;
pub mod shell;
pub mod store;
mod survey;
mod unpacked;
pub mod verify;

pub(crate) use command::{Command, Secrets, image_name};
pub use survey::Survey;
pub(crate) use survey::plain;
