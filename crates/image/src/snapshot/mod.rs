//! Snapshots on disk: what a VMM saved of a machine that had started its interpreters, signed, so that a restore can tell that it
//! restores what this host, or one that it trusts, has made for just this machine.
//!
//! ```text
//!  begin ──► SnapshotBuild ── the VMM writes its files ── publish ──► snapshots/<id>/<serial>/
//!                                                                           │
//!  find ───► Snapshot ── open: signature, expectations, serial, digests ────┴──► VerifiedSnapshot, in use until dropped
//! ```
//!
//! ```text
//! snapshots/<id>/                  <id> is the digest of the SnapshotKey; locked by who builds or removes
//! snapshots/<id>/<serial>/         memory, state, scratch, manifest.json, manifest.sig; locked (shared) by who uses it
//! snapshots/<id>/.new-…            what is being built or removed
//! verified/                        digests of files that have not changed since they were read
//! keys/                            see the module `signing`
//! ```
//!
//! Nothing is believed of a manifest before its signature is found good, and nothing in it says where a file is. Whoever can write to
//! `snapshots/` alone can make snapshots unusable, but no other one usable. Whoever can also write to `keys/` is the owner.

mod build;
mod collect;
mod error;
mod manifest;
mod open;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

pub use build::{Begun, SnapshotBuild, SnapshotDetails};
pub use collect::{Collected, GcPolicy, GcReason, Removed};
pub use error::{Mismatch, Part, Refusal, SnapshotError};
pub use manifest::{PartRecord, SnapshotId, SnapshotKey, SnapshotManifest};
pub use open::VerifiedSnapshot;

use crate::digest::DigestCache;
use crate::fresh;
use crate::kernel::KernelManifest;
use crate::signing::SigningKeys;
use crate::{Artefacts, ImageError, Sha256Sum, Store};

const DIRECTORY: &str = "snapshots";
const MEMORY: &str = "memory";
const STATE: &str = "state";
const SCRATCH: &str = "scratch";
const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.sig";
/// Nobody writes to a snapshot. Only its owner gets into the directory that it is in; a VMM that runs as a user of its own is shown the
/// files of one.
const PART_MODE: u32 = 0o444;
/// The largest manifest that is written or read, in bytes.
pub const MAX_MANIFEST: u64 = 1024 * 1024;
const MAX_SIGNATURE: u64 = 1024;
pub(crate) const SIGNATURE_DOMAIN: &str = "runner-codes snapshot manifest v1";

/// The digests of what a machine boots from, beside its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootSums {
    /// Of the ELF kernel.
    pub kernel: Sha256Sum,
    /// Of the archive with guest-runner and modules.
    pub initramfs: Sha256Sum,
    /// Of the root filesystem.
    pub rootfs: Sha256Sum,
}

/// The snapshots in a store.
#[derive(Debug, Clone)]
pub struct Snapshots {
    state: PathBuf,
    digests: DigestCache,
}

impl Snapshots {
    /// Opening them touches nothing.
    #[must_use]
    pub fn open(store: &Store) -> Self {
        Self {
            state: store.root().to_owned(),
            digests: DigestCache::new(store.root()),
        }
    }

    /// The digests of kernel, initramfs and root filesystem, for a [`SnapshotKey`]. Files that have not changed since the last time are
    /// not read.
    ///
    /// # Errors
    /// When one cannot be read, or is no longer what the store recorded when it was made.
    pub fn sums(&self, artefacts: &Artefacts) -> Result<BootSums, ImageError> {
        self.sums_of(artefacts, true)
    }

    fn sums_of(&self, artefacts: &Artefacts, reuse: bool) -> Result<BootSums, ImageError> {
        let boot = &artefacts.boot;
        let sums = BootSums {
            kernel: self.sum(&boot.kernel, reuse)?,
            initramfs: self.sum(&boot.initramfs, reuse)?,
            rootfs: self.sum(&artefacts.rootfs, reuse)?,
        };
        check_recorded(&artefacts.rootfs, sums.rootfs, &artefacts.template.rootfs_sha256)?;
        // A user's own kernel has no record.
        if let Some(Ok(manifest)) = boot.kernel.parent().map(KernelManifest::read) {
            check_recorded(&boot.kernel, sums.kernel, &manifest.sha256)?;
        }
        Ok(sums)
    }

    fn sum(&self, path: &Path, reuse: bool) -> Result<Sha256Sum, ImageError> {
        let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // A user's own kernel may well be a link.
        if path.starts_with(&self.state) {
            flags |= OFlags::NOFOLLOW;
        }
        let file = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| ImageError::from_io("open", path, error.into()))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(ImageError::io("read", path))?;
        if !metadata.is_file() {
            return Err(ImageError::invalid(path, "it is not a file"));
        }
        Ok(self.digests.digest(&file, path, reuse)?.sum)
    }

    /// The newest snapshot for that machine, unopened.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, SnapshotError> {
        Ok(self.versions(key.id())?.pop())
    }

    /// Why [`Snapshots::find`] finds none: the newest of the template is for another machine, with the differences, or there is none.
    #[must_use]
    pub fn why_missing(&self, key: &SnapshotKey, keys: &SigningKeys) -> SnapshotError {
        let listed = self.list(keys).unwrap_or_default();
        let nearest = listed
            .into_iter()
            .filter_map(|info| Some((info.manifest?, info.snapshot)))
            .filter(|(manifest, _)| manifest.key.template == key.template)
            .max_by_key(|(manifest, _)| manifest.created_unix);
        match nearest {
            Some((manifest, snapshot)) if manifest.key != *key => snapshot.refused(
                Some(&key.template),
                Refusal::Mismatch(manifest.key.mismatches(key)),
            ),
            _ => SnapshotError::Missing {
                template: key.template.clone(),
            },
        }
    }

    /// All that there are, also damaged and superseded ones, by id and serial number. Reads no memory: see [`Snapshot::verify_all`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self, keys: &SigningKeys) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let mut list = Vec::new();
        for id in self.ids()? {
            let versions = self.versions(id)?;
            let newest = versions.last().map(Snapshot::serial);
            for snapshot in versions {
                let superseded = Some(snapshot.serial) != newest;
                list.push(SnapshotInfo::of(snapshot, superseded, keys));
            }
        }
        Ok(list)
    }

    fn ids(&self) -> Result<Vec<SnapshotId>, ImageError> {
        let names = names(&self.directory())?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// All of one machine, oldest first.
    fn versions(&self, id: SnapshotId) -> Result<Vec<Snapshot>, ImageError> {
        let mut serials: Vec<u64> = names(&self.directory_of(id))?
            .iter()
            .filter_map(|name| {
                name.parse()
                    .ok()
                    .filter(|serial: &u64| serial.to_string() == *name)
            })
            .collect();
        serials.sort_unstable();
        let snapshot = |serial| Snapshot {
            snapshots: self.clone(),
            id,
            serial,
        };
        Ok(serials.into_iter().map(snapshot).collect())
    }

    fn directory(&self) -> PathBuf {
        self.state.join(DIRECTORY)
    }

    fn directory_of(&self, id: SnapshotId) -> PathBuf {
        self.directory().join(id.to_string())
    }
}

fn check_recorded(path: &Path, actual: Sha256Sum, recorded: &str) -> Result<(), ImageError> {
    match recorded.parse::<Sha256Sum>() {
        Ok(recorded) if recorded != actual => Err(ImageError::invalid(
            path,
            format!("its SHA-256 is {actual}, but {recorded} when it was made"),
        )),
        _ => Ok(()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, ImageError> {
    let paths = fresh::entries(directory)?;
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    Ok(paths.iter().filter_map(name).collect())
}

/// A snapshot in the store that nobody has looked into yet.
#[derive(Debug, Clone)]
pub struct Snapshot {
    snapshots: Snapshots,
    id: SnapshotId,
    serial: u64,
}

impl Snapshot {
    /// Which machine it is for.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// Which one of that machine's: a later one has a higher number.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.snapshots.directory_of(self.id).join(self.serial.to_string())
    }

    fn refused(&self, template: Option<&str>, reason: Refusal) -> SnapshotError {
        SnapshotError::Refused {
            path: self.path(),
            template: template.map(str::to_owned),
            reason: Box::new(reason),
        }
    }
}

/// A line of `template list`.
#[derive(Debug)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Which one.
    pub snapshot: Snapshot,
    /// What it says of itself, when its signature is good.
    pub manifest: Option<SnapshotManifest>,
    /// Why it cannot be used, as far as can be told without reading all of it.
    pub problem: Option<SnapshotError>,
    /// There is a newer one.
    pub superseded: bool,
    /// What it takes up on the disk, in bytes. Memory has holes, so this is less than its size.
    pub disk_bytes: u64,
}

impl SnapshotInfo {
    fn of(snapshot: Snapshot, superseded: bool, keys: &SigningKeys) -> Self {
        let (manifest, problem) = match snapshot.read(keys) {
            Ok(opened) => {
                let problem = opened.check(keys).err();
                (Some(opened.into_manifest()), problem)
            }
            Err(error) => (None, Some(error)),
        };
        Self {
            disk_bytes: disk_bytes(&snapshot.path()),
            snapshot,
            manifest,
            problem,
            superseded,
        }
    }
}

/// What the files in a directory take up.
fn disk_bytes(directory: &Path) -> u64 {
    let paths = fresh::entries(directory).unwrap_or_default();
    let blocks = |path: &PathBuf| path.symlink_metadata().map_or(0, |metadata| metadata.blocks());
    paths.iter().map(blocks).sum::<u64>() * 512
}
