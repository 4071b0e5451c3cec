//! Puts scripts into the test binary, which also runs where the source tree is not.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    embed("corpus")?;
    embed("tours")
}

/// Every file of that directory, with its path in it.
fn embed(name: &str) -> io::Result<()> {
    let variable = |name| PathBuf::from(env::var_os(name).expect("cargo sets it"));
    let directory = variable("CARGO_MANIFEST_DIR").join("functional").join(name);
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut files = Vec::new();
    collect(&directory, &mut files)?;
    files.sort();
    let mut text = "&[\n".to_owned();
    for file in files {
        let name = file.strip_prefix(&directory).expect("it is in there");
        let _ = writeln!(text, "    ({name:?}, include_bytes!({file:?})),");
    }
    fs::write(variable("OUT_DIR").join(format!("{name}.rs")), text + "]\n")
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
