//! Writes the generated files: both CRDs and the reference pages. Run it after a change of the
//! types: `cargo run -p pannier-crds --bin crdgen`.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, content) in crds::generated::files() {
        fs::write(repository.join(&path), &content)?;
        println!("{path}: {} bytes", content.len());
    }
    Ok(())
}
