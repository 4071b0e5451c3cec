//! An initramfs with the hostile guest in place of the guest-runner.
//!
//! The kernel unpacks archives one after the other, and a later file replaces an earlier one: ours follows the real archive, whose
//! modules the hostile guest needs too. Its shared libraries are those of the running test.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::env_vars;
use crate::host::build_directory;

/// `real` with the hostile guest as `/init`, its libraries, and the file that tells it what to do.
///
/// # Panics
/// A file cannot be read.
pub fn initramfs(real: &Path, behaviour: &str) -> Vec<u8> {
    let mut archive = Archive::default();
    let program = program();
    archive.file(
        "init",
        &fs::read(&program).unwrap_or_else(|error| panic!("{}: {error}", program.display())),
    );
    archive.file("behaviour", behaviour.as_bytes());
    for library in libraries() {
        let content = fs::read(&library).expect("the libraries that run this test can be read");
        archive.file_with_parents(&library, &content);
        let name = library.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with("ld-linux") {
            archive.file_with_parents(&Path::new("/lib64").join(name), &content);
        }
    }
    let mut bytes = fs::read(real).unwrap_or_else(|error| panic!("cannot read {}: {error}", real.display()));
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(archive.finish());
    bytes
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

/// A newc archive (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, content);
    }

    fn file_with_parents(&mut self, path: &Path, content: &[u8]) {
        let path = path.strip_prefix("/").expect("an absolute path");
        let mut parents: Vec<_> = path.ancestors().skip(1).collect();
        parents.pop(); // the root
        for parent in parents.into_iter().rev() {
            if self.directories.insert(parent.to_owned()) {
                self.entry(&parent.to_string_lossy(), 0o040_755, &[]);
            }
        }
        self.entry(&path.to_string_lossy(), 0o100_755, content);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: usize, content: &[u8]) {
        let mut fields = [0_usize; 13];
        fields[1] = mode;
        fields[4] = 1; // links
        fields[6] = content.len();
        fields[11] = name.len() + 1;
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        for part in [format!("{name}\0").as_bytes(), content] {
            self.bytes.extend(part);
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }
    }
}
