//! Puts the corpus into the test binary, which also runs where the source tree is not.

#[path = "../build/embed.rs"]
mod embed;

use std::env;
use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
    let corpus = variable("CARGO_MANIFEST_DIR").join("functional/corpus");
    embed::directory(&corpus, &variable("OUT_DIR").join("corpus.rs"))
}
