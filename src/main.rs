//! `/init` of the initramfs; also `init rehearse`.

fn main() {}
