//! Kernel modules: files and their order in the initramfs, loaded by set, and only the sets that are needed.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::system::finit_module;

use crate::failure::{Doing as _, Failure, Result};

const DIRECTORY: &str = "/modules";

/// The modules of the initramfs. Holds the directory open, so that it outlives a change of root.
pub(crate) struct Modules {
    directory: Option<OwnedFd>,
    order: Vec<Entry>,
    loaded: Mutex<Vec<String>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    set: String,
    pub(crate) file: String,
}

impl Modules {
    /// Reads the order; there are none where the kernel has everything built in.
    pub(crate) fn open() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match openat(CWD, DIRECTORY, flags, Mode::empty()) {
            Ok(directory) => Some(directory),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => return Err(error).doing(|| format!("open {DIRECTORY}")),
        };
        let order = match std::fs::read_to_string(format!("{DIRECTORY}/order")) {
            Ok(text) => parse_order(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).doing(|| format!("read {DIRECTORY}/order")),
        };
        Ok(Self {
            directory,
            order,
            loaded: Mutex::default(),
        })
    }

    /// Loads the modules of `sets`, in the order of the file, each once.
    pub(crate) fn load(&self, sets: &[&str]) -> Result<()> {
        let mut loaded = self
            .loaded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for entry in &self.order {
            if sets.contains(&entry.set.as_str()) && !loaded.contains(&entry.file) {
                self.insert(&entry.file)?;
                loaded.push(entry.file.clone());
            }
        }
        Ok(())
    }

    fn insert(&self, file: &str) -> Result<()> {
        let directory = self
            .directory
            .as_ref()
            .ok_or_else(|| Failure::new(format!("load the module {file}"), "there is no module directory"))?;
        let module = openat(directory, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .doing(|| format!("open the module {file}"))?;
        match finit_module(module, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(error).doing(|| format!("load the module {file}")),
        }
    }
}

pub(crate) fn parse_order(text: &str) -> Vec<Entry> {
    text.lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(set, file)| Entry {
            set: set.to_owned(),
            file: file.trim().to_owned(),
        })
        .filter(|entry| !entry.file.contains('/'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_paths_are_not_followed() {
        let order =
            parse_order("core virtio_ring.ko\ncore virtio.ko\n\nserial virtio_console.ko\nx ../evil.ko\n");
        let files: Vec<_> = order
            .iter()
            .map(|entry| (entry.set.as_str(), entry.file.as_str()))
            .collect();
        assert_eq!(
            files,
            [
                ("core", "virtio_ring.ko"),
                ("core", "virtio.ko"),
                ("serial", "virtio_console.ko")
            ]
        );
    }
}
