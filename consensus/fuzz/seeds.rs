//! Writes the seed corpus: `cargo run --example seeds` in this folder.

use brolga_consensus::fuzzing::seeds;
use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    for (target, inputs) in seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target);
        fs::create_dir_all(&folder)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:02}")), input)?;
        }
    }
    Ok(())
}
