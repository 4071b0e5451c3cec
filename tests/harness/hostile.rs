//! An initramfs with the hostile guest in place of the guest-runner.
//!
//! The kernel unpacks archives one after the other, and a later file replaces an earlier one: ours follows the real archive, whose
//! modules the hostile guest needs too. Its shared libraries are those of the running test.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use image::Cpio;

use crate::env_vars;
use crate::host::build_directory;

/// `real` with the hostile guest as `/init`, its libraries, and the file that tells it what to do.
///
/// # Panics
/// A file cannot be read.
pub fn initramfs(real: &Path, behaviour: &str) -> Vec<u8> {
    let program = program();
    let init = fs::read(&program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let mut archive = Cpio::default();
    archive.executable("init", &init);
    archive.file("behaviour", behaviour.as_bytes());
    let mut directories = BTreeSet::new();
    for library in libraries() {
        let content = fs::read(&library).expect("the libraries that run this test can be read");
        with_parents(&mut archive, &mut directories, &library, &content);
        let name = library.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with("ld-linux") {
            with_parents(
                &mut archive,
                &mut directories,
                &Path::new("/lib64").join(name),
                &content,
            );
        }
    }
    let mut bytes = fs::read(real).unwrap_or_else(|error| panic!("cannot read {}: {error}", real.display()));
    bytes.extend(archive.finish());
    bytes
}

fn with_parents(archive: &mut Cpio, made: &mut BTreeSet<PathBuf>, path: &Path, content: &[u8]) {
    let path = path.strip_prefix("/").expect("an absolute path");
    let mut parents: Vec<_> = path.ancestors().skip(1).collect();
    parents.pop(); // the root
    for parent in parents.into_iter().rev() {
        if made.insert(parent.to_owned()) {
            archive.directory(&parent.to_string_lossy());
        }
    }
    archive.executable(&path.to_string_lossy(), content);
}

/// The hostile guest: cargo builds it before the tests.
fn program() -> PathBuf {
    env::var_os(env_vars::HOSTILE_GUEST)
        .map_or_else(|| build_directory().join("hostile-guest"), PathBuf::from)
}

/// The shared libraries of this process.
fn libraries() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").expect("a process can read its own map");
    maps.lines()
        .filter_map(|line| Some(line[line.find('/')?..].into()))
        .filter(|path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().contains(".so"))
        })
        .collect()
}
