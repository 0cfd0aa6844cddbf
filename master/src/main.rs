//! The companion.

fn main() {}
