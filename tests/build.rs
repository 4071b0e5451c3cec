//! Puts scripts into the test binary, which also runs where the source tree is not.

#[path = "../build/embed.rs"]
mod embed;

use std::env;
use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
    for name in ["corpus", "tours"] {
        let directory = variable("CARGO_MANIFEST_DIR").join("functional").join(name);
        embed::directory(&directory, &variable("OUT_DIR").join(format!("{name}.rs")))?;
    }
    Ok(())
}
