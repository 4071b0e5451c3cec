//! From the files that a VMM wrote to a signed snapshot in its place.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, fchown, fsync};
use rustix::process::geteuid;

use super::error::SnapshotError;
use super::{
    DIRECTORY, MANIFEST, MAX_MANIFEST, MEMORY, PART_MODE, PartRecord, SCRATCH, SIGNATURE, SIGNATURE_DOMAIN,
    STATE, Snapshot, SnapshotId, SnapshotKey, SnapshotManifest, Snapshots, names,
};
use crate::digest::measure;
use crate::fresh::{self, FreshDirectory, TEMPORARY};
use crate::guarded::{Access, Directory, lock_exclusive, private_directory, try_lock};
use crate::progress::{Progress, Report};
use crate::signing::{KeyId, SigningKeys};
use crate::{ImageError, Unsafe};

/// What [`Snapshots::begin`] found.
#[derive(Debug)]
pub enum Begun {
    /// Nothing: build it.
    Build(Box<SnapshotBuild>),
    /// Another one has built it.
    Exists(Snapshot),
}

/// What is recorded of a snapshot beside its [`SnapshotKey`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotDetails {
    /// The languages whose interpreters are started and wait, by their names on the wire.
    pub parked: Vec<String>,
    /// What the guest-runner said of itself.
    pub hello: serde_json::Value,
}

impl Snapshots {
    /// Begins to build a snapshot for that machine, after waiting for whoever is building one. Then any that is there will do, or with
    /// `replacing` any with a higher serial number: of several that want to replace the same one, only the first builds.
    ///
    /// What an interrupted build left is removed.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn begin(
        &self,
        key: &SnapshotKey,
        replacing: Option<u64>,
        report: &dyn Fn(Progress<'_>),
    ) -> Result<Begun, SnapshotError> {
        let id = key.id();
        let lock = self.lock(id, report)?;
        if let Some(found) = self.versions(id)?.pop()
            && replacing.is_none_or(|serial| found.serial > serial)
        {
            return Ok(Begun::Exists(found));
        }
        let parent = self.directory_of(id);
        remove_temporary(&parent)?;
        let fresh = FreshDirectory::private(&parent).map_err(|error| self.lasting(error))?;
        Ok(Begun::Build(Box::new(SnapshotBuild {
            memory: fresh.path().join(MEMORY),
            state: fresh.path().join(STATE),
            scratch: fresh.path().join(SCRATCH),
            fresh,
            key: key.clone(),
            snapshots: self.clone(),
            lock,
        })))
    }

    /// Waits until nobody else builds or removes that machine's snapshots.
    fn lock(&self, id: SnapshotId, report: Report<'_>) -> Result<Directory, ImageError> {
        let path = self.directory_of(id);
        loop {
            private_directory(&self.state, &[DIRECTORY, &id.to_string()])?;
            let Ok(directory) = self.open_directory(id) else {
                return Err(ImageError::invalid(
                    &path,
                    "it is not a directory of this user alone",
                ));
            };
            let lock_error = |error| ImageError::from_io("lock", &path, error);
            if !try_lock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(lock_error)? {
                report(Progress::Waiting { lock: &path });
                lock_exclusive(&directory).map_err(lock_error)?;
            }
            // Whoever had it may have removed the directory.
            if directory.is_at(&path) {
                return Ok(directory);
            }
        }
    }

    /// As [`Snapshots::lock`], without waiting; nothing when it is not there or somebody holds the lock.
    pub(super) fn try_lock(&self, id: SnapshotId) -> Result<Option<Directory>, ImageError> {
        let path = self.directory_of(id);
        let Ok(directory) = self.open_directory(id) else {
            return Ok(None);
        };
        let locked = try_lock(&directory, FlockOperation::NonBlockingLockExclusive)
            .map_err(ImageError::io("lock", &path))?;
        Ok((locked && directory.is_at(&path)).then_some(directory))
    }

    fn open_directory(&self, id: SnapshotId) -> Result<Directory, Unsafe> {
        Directory::open(&self.directory(), Access::Shared)?.directory(&id.to_string(), Access::Shared)
    }

    /// The error without the name of a temporary directory, which is gone by the time that it is read.
    fn lasting(&self, error: ImageError) -> ImageError {
        match error {
            ImageError::DiskFull { .. } => ImageError::DiskFull {
                path: self.state.clone(),
            },
            error => error,
        }
    }
}

/// Removes what was being built or removed in a machine's directory. Only under its lock.
pub(super) fn remove_temporary(directory: &Path) -> Result<(), ImageError> {
    for name in names(directory)? {
        if name.starts_with(TEMPORARY) {
            tracing::info!(path = %directory.join(&name).display(), "removing what an interrupted build left");
            fresh::remove(&directory.join(name))?;
        }
    }
    Ok(())
}

/// A snapshot under way. Dropped unpublished, it leaves nothing.
#[derive(Debug)]
pub struct SnapshotBuild {
    memory: PathBuf,
    state: PathBuf,
    scratch: PathBuf,
    // Before the lock, so that it is removed before the next one builds.
    fresh: FreshDirectory,
    key: SnapshotKey,
    snapshots: Snapshots,
    lock: Directory,
}

impl SnapshotBuild {
    /// Where the VMM is to write the memory. Its directory is for this user only.
    #[must_use]
    pub fn memory(&self) -> &Path {
        &self.memory
    }

    /// Where the VMM is to write the state of CPU and devices.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where the scratch disk is to be kept as it was then.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Signs all files and puts them in their place, read-only. The VMM must have ended: what it wrote to its memory afterwards would
    /// show in every clone. Makes the signing key if there is none.
    ///
    /// # Errors
    /// When a file is missing or not a file, the disk is full, or there is no usable key. Then nothing is left.
    pub fn publish(self, details: SnapshotDetails, keys: &SigningKeys) -> Result<Snapshot, SnapshotError> {
        let snapshots = self.snapshots.clone();
        self.sign_and_move(details, keys).map_err(|error| match error {
            SnapshotError::File(error) => snapshots.lasting(error).into(),
            error => error,
        })
    }

    fn sign_and_move(self, details: SnapshotDetails, keys: &SigningKeys) -> Result<Snapshot, SnapshotError> {
        let snapshot = Snapshot {
            id: self.key.id(),
            serial: self.next_serial(keys)?,
            snapshots: self.snapshots.clone(),
        };
        let manifest = self.manifest(&snapshot, details, keys.ensure()?.id())?;
        let mut text = serde_json::to_vec_pretty(&manifest).expect("a plain structure");
        text.push(b'\n');
        if text.len() as u64 > MAX_MANIFEST {
            let reason = format!(
                "its manifest would be {} bytes, more than {MAX_MANIFEST}",
                text.len()
            );
            return Err(SnapshotError::Unbuildable { reason });
        }
        let signature = keys.sign(SIGNATURE_DOMAIN, &text)?;
        write(&self.fresh.path().join(MANIFEST), &text)?;
        write(
            &self.fresh.path().join(SIGNATURE),
            format!("{signature}\n").as_bytes(),
        )?;
        self.fresh.publish(&snapshot.path())?;
        fsync(&self.lock).map_err(|error| ImageError::from_io("write", &snapshot.path(), error.into()))?;
        if let Err(error) = keys.accept_serial(&snapshot.id.to_string(), snapshot.serial) {
            let _ = fresh::remove(&snapshot.path());
            return Err(error.into());
        }
        Ok(snapshot)
    }

    /// Above all that there are, and all that have been accepted.
    fn next_serial(&self, keys: &SigningKeys) -> Result<u64, SnapshotError> {
        let id = self.key.id();
        let newest = self.snapshots.versions(id)?.last().map_or(0, Snapshot::serial);
        let accepted = keys.newest_serial(&id.to_string())?;
        newest.max(accepted).checked_add(1).ok_or_else(|| {
            let path = self.snapshots.directory_of(id);
            ImageError::invalid(&path, "there is no higher serial number; remove it").into()
        })
    }

    fn manifest(
        &self,
        snapshot: &Snapshot,
        details: SnapshotDetails,
        signer: KeyId,
    ) -> Result<SnapshotManifest, SnapshotError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(SnapshotManifest {
            format: SnapshotManifest::FORMAT,
            serial: snapshot.serial,
            created_unix: now.as_secs(),
            signer,
            key: self.key.clone(),
            memory: self.seal(MEMORY)?,
            state: self.seal(STATE)?,
            scratch: self.seal(SCRATCH)?,
            parked: details.parked,
            hello: details.hello,
        })
    }

    /// Makes a file read-only, this user's, and hashes it. That is not remembered: the first one to open it reads it again, and would see
    /// what a VMM wrote that had not ended.
    fn seal(&self, name: &str) -> Result<PartRecord, SnapshotError> {
        let path = self.fresh.path().join(name);
        let unbuildable = |reason: &dyn fmt::Display| SnapshotError::Unbuildable {
            reason: format!("the VMM's {name} file cannot be used: {reason}"),
        };
        let directory =
            Directory::open(self.fresh.path(), Access::Private).map_err(|error| unbuildable(&error))?;
        let file = directory.plain_file(name).map_err(|error| unbuildable(&error))?;
        take_over(&file).map_err(ImageError::io("change", &path))?;
        file.sync_all().map_err(ImageError::io("write", &path))?;
        let digested = measure(&file, &path)?;
        if digested.stamp.bytes == 0 {
            return Err(unbuildable(&"it is empty"));
        }
        Ok(PartRecord {
            sha256: digested.sum,
            bytes: digested.stamp.bytes,
        })
    }
}

/// A jailed VMM writes files as a user of its own.
fn take_over(file: &File) -> std::io::Result<()> {
    let user = geteuid();
    if file.metadata()?.uid() != user.as_raw() {
        fchown(file, Some(user), None)?;
    }
    file.set_permissions(fs::Permissions::from_mode(PART_MODE))
}

fn write(path: &Path, contents: &[u8]) -> Result<(), ImageError> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(PART_MODE)
        .open(path)
        .map_err(ImageError::io("create", path))?;
    file.write_all(contents).map_err(ImageError::io("write", path))
}
