//! What goes on top of the image.

use crate::facts::Template;

/// An archive that is unpacked over the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Where it is, with what differs from node to node.
    pub url: Template,
    /// Whether a node may be without it.
    pub optional: bool,
}
