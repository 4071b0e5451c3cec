//! What the fuzz targets call of the guest-runner: files, output, and what it is told at its start. With the feature `fuzzing`
//! only; without it this library is empty.
#![cfg(feature = "fuzzing")]
#![expect(dead_code, reason = "the rest of these modules is for the program")]

mod cmdline;
mod failure;
mod files;
mod modules;
mod output;

use std::path::Path;

use protocol::job::Chunk;
use protocol::{FileSpec, HostError};

/// Writes the files that have content, below `directory` where their paths are relative.
///
/// # Errors
/// One cannot be written.
pub fn write_files(files: &[FileSpec], directory: &Path) -> Result<(), HostError> {
    files::write_all(files, directory)
}

/// Reads back what is to be collected.
#[must_use]
pub fn collect_files(files: &[FileSpec], directory: &Path) -> Vec<FileSpec> {
    files::collect(files, directory)
}

/// What is kept of a stream that comes in these pieces, with `cap` bytes at most: as text, as base64 where that is not exact, whether it was
/// cut, and the events that were sent.
pub fn output<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    cap: u64,
) -> (String, Option<String>, bool, Vec<Chunk>) {
    let mut capture = output::Capture::new(cap);
    let mut splitter = output::Splitter::default();
    let mut chunks = Vec::new();
    for piece in pieces {
        chunks.extend(splitter.push(capture.push(piece)));
    }
    chunks.extend(splitter.finish());
    let truncated = capture.truncated();
    let (text, exact) = capture.into_text();
    (text, exact, truncated, chunks)
}

/// Reads the kernel's command line.
pub fn command_line(line: &str) {
    let _ = cmdline::parse(line);
}

/// The names of the modules' files that a list says are to be loaded.
#[must_use]
pub fn modules(order: &str) -> Vec<String> {
    let entries = modules::parse_order(order);
    entries.into_iter().map(|entry| entry.file).collect()
}
