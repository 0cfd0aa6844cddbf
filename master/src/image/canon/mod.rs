//! The canonical archive of a published image: one entry a path, parents before children, nothing below a
//! symlink, hard links after their targets, cut into pieces that an agent can unpack in any order. The
//! contract is in docs/ARCHITECTURE.md, "The published image". Same tree, same bytes, on every machine.

pub(super) mod check;
pub(super) mod cuts;
pub(super) mod entry;
pub(super) mod tree;

pub(super) use cuts::Cut;
pub(super) use entry::Entry;
pub(super) use tree::{Kind, Node, Tree};

/// Blocks of which archives are made.
pub(super) const BLOCK: u64 = 512;
/// Pages of which files in memory are made.
pub(super) const PAGE: u64 = 4096;
/// What ends an archive: two blocks of zeros.
pub(super) const END: u64 = 2 * BLOCK;

/// How many pages of a file's bytes, which begin at a page's beginning, are not all zeros: those that the
/// agent writes.
pub(super) fn filled_pages(bytes: &[u8]) -> u64 {
    const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
    bytes.chunks(ZEROS.len()).map(|page| u64::from(ZEROS.get(..page.len()) != Some(page))).sum()
}
