//! What may go: superseded snapshots, old ones, those of artefacts that are no longer in the store, and what interrupted builds left.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::build::remove_temporary;
use super::error::SnapshotError;
use super::{Snapshot, SnapshotId, SnapshotInfo, SnapshotManifest, Snapshots, disk_bytes};
use crate::fresh::{self, TEMPORARY};
use crate::guarded::{Directory, try_lock};
use crate::signing::SigningKeys;
use crate::{ImageError, Sha256Sum};

/// What [`Snapshots::gc`] keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcPolicy {
    /// How many of each machine's, the newest ones; at least 1. Only the newest can be opened.
    pub keep: usize,
    /// Nothing that is older; without it age does not matter.
    pub max_age: Option<Duration>,
    /// Digests of kernels and root filesystems that are not in the store, but still used.
    pub present: BTreeSet<Sha256Sum>,
}

impl Default for GcPolicy {
    fn default() -> Self {
        Self {
            keep: 1,
            max_age: None,
            present: BTreeSet::new(),
        }
    }
}

/// Why something was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GcReason {
    /// There are enough newer ones.
    Superseded,
    /// It is older than the policy allows.
    TooOld,
    /// Its kernel, initramfs or root filesystem is no longer there.
    Orphaned,
}

/// A snapshot that [`Snapshots::gc`] removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Where it was.
    pub path: PathBuf,
    /// Why.
    pub reason: GcReason,
    /// What it took up on the disk, in bytes.
    pub bytes: u64,
}

/// What [`Snapshots::gc`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// What is gone.
    pub removed: Vec<Removed>,
    /// What would be gone if it were not in use.
    pub in_use: Vec<PathBuf>,
}

impl Snapshots {
    /// Removes what the policy does not keep, but nothing that is in use, and no snapshots of a machine that are being built.
    ///
    /// # Errors
    /// When the store cannot be read or written. What was removed before stays so.
    pub fn gc(
        &self,
        keys: &SigningKeys,
        policy: &GcPolicy,
        now: SystemTime,
    ) -> Result<Collected, SnapshotError> {
        let mut collected = Collected::default();
        let mut present = self.present()?;
        present.extend(&policy.present);
        for id in self.ids()? {
            let Some(lock) = self.try_lock(id)? else {
                continue;
            };
            remove_temporary(&self.directory_of(id))?;
            let versions = self.versions(id)?;
            let first_kept = versions.len().saturating_sub(policy.keep.max(1));
            for (at, snapshot) in versions.into_iter().enumerate() {
                let info = SnapshotInfo::of(snapshot, at < first_kept, keys);
                if let Some(reason) = reason(&info, policy, &present, now) {
                    collected.note(info, reason)?;
                }
            }
            self.remove_if_empty(id, lock);
        }
        self.digests.sweep()?;
        Ok(collected)
    }

    /// Removes all snapshots of a machine; says how many.
    ///
    /// # Errors
    /// When one is in use or being built; then none is removed. When the store cannot be written.
    pub fn remove(&self, id: SnapshotId) -> Result<usize, SnapshotError> {
        let path = self.directory_of(id);
        if path.symlink_metadata().is_err() {
            return Ok(0);
        }
        let Some(lock) = self.try_lock(id)? else {
            return Err(SnapshotError::InUse { path });
        };
        remove_temporary(&path)?;
        let mut unused = Vec::new();
        for snapshot in self.versions(id)? {
            let lock = snapshot.lock_unused()?;
            unused.push((
                lock.ok_or(SnapshotError::InUse {
                    path: snapshot.path(),
                })?,
                snapshot,
            ));
        }
        for (lock, snapshot) in &unused {
            snapshot.discard(lock)?;
        }
        self.remove_if_empty(id, lock);
        Ok(unused.len())
    }

    /// The digests of all that machines boot from in the store.
    fn present(&self) -> Result<BTreeSet<Sha256Sum>, ImageError> {
        let mut paths = Vec::new();
        for (directory, file) in [("kernels", "vmlinux"), ("templates", "rootfs.squashfs")] {
            for path in fresh::entries(&self.state.join(directory))? {
                paths.push(path.join(file));
            }
        }
        paths.extend(fresh::entries(&self.state.join("initramfs"))?);
        let mut present = BTreeSet::new();
        for path in paths.iter().filter(|path| path.is_file()) {
            present.insert(self.sum(path, true)?);
        }
        Ok(present)
    }

    /// The lock is held until it is gone: whoever waits for it sees that.
    fn remove_if_empty(&self, id: SnapshotId, _lock: Directory) {
        let _ = fs::remove_dir(self.directory_of(id));
    }
}

fn reason(
    info: &SnapshotInfo,
    policy: &GcPolicy,
    present: &BTreeSet<Sha256Sum>,
    now: SystemTime,
) -> Option<GcReason> {
    if info.superseded {
        return Some(GcReason::Superseded);
    }
    if let Some(manifest) = &info.manifest
        && !is_present(manifest, present)
    {
        return Some(GcReason::Orphaned);
    }
    let created = match &info.manifest {
        Some(manifest) => Some(manifest.created()),
        // Damaged, or not signed by anybody known: the directory says how long it has been there.
        None => fs::symlink_metadata(info.snapshot.path())
            .and_then(|metadata| metadata.modified())
            .ok(),
    };
    let age = now.duration_since(created?).ok()?;
    (age > policy.max_age?).then_some(GcReason::TooOld)
}

fn is_present(manifest: &SnapshotManifest, present: &BTreeSet<Sha256Sum>) -> bool {
    let key = &manifest.key;
    [key.kernel, key.initramfs, key.rootfs]
        .iter()
        .all(|sum| present.contains(sum))
}

impl Collected {
    fn note(&mut self, info: SnapshotInfo, reason: GcReason) -> Result<(), SnapshotError> {
        let (snapshot, path) = (&info.snapshot, info.snapshot.path());
        let Some(lock) = snapshot.lock_unused()? else {
            self.in_use.push(path);
            return Ok(());
        };
        let bytes = disk_bytes(&path);
        snapshot.discard(&lock)?;
        self.removed.push(Removed { path, reason, bytes });
        Ok(())
    }
}

/// That nobody uses a snapshot, nor can begin to.
struct Unused {
    _lock: Option<Directory>,
}

impl Snapshot {
    /// Locks everybody out, unless somebody uses it. A snapshot that is no directory of this user's is nobody's, and not locked.
    fn lock_unused(&self) -> Result<Option<Unused>, SnapshotError> {
        let Ok(directory) = self.directory() else {
            return Ok(Some(Unused { _lock: None }));
        };
        let locked = try_lock(&directory, FlockOperation::NonBlockingLockExclusive)
            .map_err(ImageError::io("lock", self.path()))?;
        let unused = Unused {
            _lock: Some(directory),
        };
        Ok(locked.then_some(unused))
    }

    /// Removes it, at once for everybody else. Only under its lock and that of its machine.
    fn discard(&self, _unused: &Unused) -> Result<(), ImageError> {
        let path = self.path();
        let doomed = path.with_file_name(format!("{TEMPORARY}{}", self.serial));
        fresh::remove(&doomed)?;
        fs::rename(&path, &doomed).map_err(ImageError::io("remove", &path))?;
        fresh::remove(&doomed)
    }
}
