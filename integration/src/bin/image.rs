//! `make image`: builds the static binary, packs it as an OCI archive, and prints where the archive is.

use std::io::{self, Write};

fn main() -> anyhow::Result<()> {
    let archive = integration::image::build()?;
    writeln!(io::stdout(), "{}", archive.display())?;
    Ok(())
}
