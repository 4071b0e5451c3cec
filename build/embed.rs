//! A directory's files as Rust, for programs that run where the source tree is not.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Writes `&[("relative/path", include_bytes!("…")), …]` to `to`, sorted by path, and has cargo watch the directory.
pub(crate) fn directory(directory: &Path, to: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    files.sort();
    let mut text = "&[\n".to_owned();
    for file in files {
        let name = file.strip_prefix(directory).expect("it is in there");
        let _ = writeln!(text, "    ({name:?}, include_bytes!({file:?})),");
    }
    fs::write(to, text + "]\n")
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
