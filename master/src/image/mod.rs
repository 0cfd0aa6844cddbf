//! Images: built from a recipe, checked, published into the store.

pub mod build;
pub mod built;
mod canon;
pub mod list;
mod overlay;
mod pack;
pub mod publish;
mod secrets;
pub mod store;
mod survey;

pub use survey::Survey;
pub(crate) use survey::{plain, secrets_in};
