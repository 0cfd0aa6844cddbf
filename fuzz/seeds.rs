//! Writes every target's seeds into its corpus.

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    for (target, _) in rootstream::image::fuzzing::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (index, seed) in rootstream::image::fuzzing::seeds(target).iter().enumerate() {
            fs::write(folder.join(format!("seed-{index}")), seed)?;
        }
    }
    Ok(())
}
