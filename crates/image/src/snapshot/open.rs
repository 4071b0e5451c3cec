//! From a directory that may hold anything to files that are known to be what was signed.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::error::{Part, Refusal, SnapshotError};
use super::{
    BootSums, DIRECTORY, MANIFEST, MAX_MANIFEST, MAX_SIGNATURE, MEMORY, PartRecord, SCRATCH, SIGNATURE,
    SIGNATURE_DOMAIN, STATE, Snapshot, SnapshotKey, SnapshotManifest,
};
use crate::digest::{Digested, Stamp};
use crate::guarded::{Access, Directory, Unsafe, try_lock};
use crate::signing::{Signature, SigningError, SigningKeys};
use crate::{Artefacts, ImageError};

/// A snapshot that may be restored, and is in use until this is dropped.
#[derive(Debug)]
pub struct VerifiedSnapshot {
    opened: Opened,
    memory: Digested,
    state: Digested,
    scratch: Digested,
}

impl VerifiedSnapshot {
    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &SnapshotManifest {
        &self.opened.manifest
    }

    /// The memory, opened for reading. Its offset is 0, and shared by all duplicates of the descriptor.
    #[must_use]
    pub fn memory(&self) -> &File {
        &self.opened.memory.file
    }

    /// The state of CPU and devices, opened as the memory.
    #[must_use]
    pub fn state(&self) -> &File {
        &self.opened.state.file
    }

    /// The scratch disk, opened as the memory.
    #[must_use]
    pub fn scratch(&self) -> &File {
        &self.opened.scratch.file
    }

    /// Where the scratch disk is.
    #[must_use]
    pub fn scratch_path(&self) -> &Path {
        &self.opened.scratch.path
    }

    /// Where the memory is, for a VMM that opens it itself.
    #[must_use]
    pub fn memory_path(&self) -> &Path {
        &self.opened.memory.path
    }

    /// Where the state is.
    #[must_use]
    pub fn state_path(&self) -> &Path {
        &self.opened.state.path
    }

    /// Whether no file had to be read, because all were found intact before and have not changed since.
    #[must_use]
    pub fn verified_from_cache(&self) -> bool {
        self.memory.remembered && self.state.remembered && self.scratch.remembered
    }

    /// That all files, and what the paths lead to, are still as they were when they were verified. Costs six system calls: for
    /// whoever keeps this open over many restores.
    ///
    /// # Errors
    /// When one of them has changed.
    pub fn check_unchanged(&self) -> Result<(), SnapshotError> {
        for (opened, digested) in [
            (&self.opened.memory, &self.memory),
            (&self.opened.state, &self.state),
            (&self.opened.scratch, &self.scratch),
        ] {
            let open = Stamp::of(&opened.file).ok();
            let named = opened.path.symlink_metadata().ok();
            if open != Some(digested.stamp) || named.as_ref().map(Stamp::from) != open {
                let template = Some(self.manifest().key.template.as_str());
                let reason = Refusal::Changed { part: opened.part };
                return Err(self.opened.snapshot.refused(template, reason));
            }
        }
        Ok(())
    }
}

impl Snapshot {
    /// Opens it for a restore on the machine that `expected` describes. Files that have not changed since they were last verified are
    /// not read again; all else is always checked. Never follows a symbolic link below the store.
    ///
    /// # Errors
    /// When it must not be used, with the reason, or a file cannot be read.
    pub fn open(
        &self,
        keys: &SigningKeys,
        expected: &SnapshotKey,
    ) -> Result<VerifiedSnapshot, SnapshotError> {
        self.verify(keys, expected, true)
            .map_err(|error| with_template(error, expected))
    }

    /// As [`Snapshot::open`], but reads every file, also those that the machine boots from.
    ///
    /// # Errors
    /// As [`Snapshot::open`].
    pub fn verify_all(
        &self,
        keys: &SigningKeys,
        expected: &SnapshotKey,
        artefacts: &Artefacts,
    ) -> Result<VerifiedSnapshot, SnapshotError> {
        let BootSums {
            kernel,
            initramfs,
            rootfs,
        } = self.snapshots.sums_of(artefacts, false)?;
        let expected = SnapshotKey {
            kernel,
            initramfs,
            rootfs,
            ..expected.clone()
        };
        self.verify(keys, &expected, false)
            .map_err(|error| with_template(error, &expected))
    }

    fn verify(
        &self,
        keys: &SigningKeys,
        expected: &SnapshotKey,
        reuse: bool,
    ) -> Result<VerifiedSnapshot, SnapshotError> {
        let opened = self.read(keys)?;
        let mismatches = opened.manifest.key.mismatches(expected);
        if !mismatches.is_empty() {
            return Err(self.refused(None, Refusal::Mismatch(mismatches)));
        }
        opened.check(keys)?;
        let memory = opened.digest(&opened.memory, reuse)?;
        let state = opened.digest(&opened.state, reuse)?;
        let scratch = opened.digest(&opened.scratch, reuse)?;
        // Another process may have accepted a newer one since.
        if !keys.accept_serial(&self.id.to_string(), self.serial)? {
            opened.check(keys)?;
        }
        Ok(VerifiedSnapshot {
            opened,
            memory,
            state,
            scratch,
        })
    }

    /// Opens all files and checks the signature, and that the manifest belongs here.
    pub(super) fn read(&self, keys: &SigningKeys) -> Result<Opened, SnapshotError> {
        let directory = self.directory()?;
        let locked = try_lock(&directory, FlockOperation::NonBlockingLockShared)
            .map_err(ImageError::io("lock", self.path()))?;
        if !locked || !directory.is_at(&self.path()) {
            // Only who removes it locks others out.
            return Err(SnapshotError::Gone { path: self.path() });
        }
        let manifest = self.manifest(&directory, keys)?;
        let open = |part, name, record| match directory.file(name, Access::Shared) {
            Ok(file) => Ok(OpenedPart {
                part,
                file,
                path: self.path().join(name),
                record,
            }),
            Err(reason) => Err(self.unsafe_part(part, reason)),
        };
        Ok(Opened {
            memory: open(Part::Memory, MEMORY, manifest.memory)?,
            state: open(Part::State, STATE, manifest.state)?,
            scratch: open(Part::Scratch, SCRATCH, manifest.scratch)?,
            snapshot: self.clone(),
            manifest,
            _in_use: directory,
        })
    }

    pub(super) fn directory(&self) -> Result<Directory, SnapshotError> {
        Directory::open(&self.snapshots.state.join(DIRECTORY), Access::Shared)
            .and_then(|directory| directory.directory(&self.id.to_string(), Access::Shared))
            .and_then(|directory| directory.directory(&self.serial.to_string(), Access::Shared))
            .map_err(|reason| match reason {
                Unsafe::Missing => SnapshotError::Gone { path: self.path() },
                reason => self.unsafe_part(Part::Directory, reason),
            })
    }

    fn manifest(&self, directory: &Directory, keys: &SigningKeys) -> Result<SnapshotManifest, SnapshotError> {
        let read = |part, name, limit| {
            directory
                .read(name, Access::Shared, limit)
                .map_err(|reason| self.unsafe_part(part, reason))
        };
        let text = read(Part::Manifest, MANIFEST, MAX_MANIFEST)?;
        let signature = read(Part::Signature, SIGNATURE, MAX_SIGNATURE)?;
        let signature: Signature = std::str::from_utf8(&signature)
            .ok()
            .and_then(|text| text.strip_suffix('\n')?.parse().ok())
            .ok_or_else(|| self.refused(None, Refusal::SignatureDamaged))?;
        keys.verify(SIGNATURE_DOMAIN, &text, &signature)
            .map_err(|error| match error {
                SigningError::NotTrusted { id: key } => self.refused(None, Refusal::UnknownSigner { key }),
                SigningError::BadSignature { id: key } => self.refused(None, Refusal::BadSignature { key }),
                error => error.into(),
            })?;
        let manifest = SnapshotManifest::parse(&text).map_err(|reason| self.refused(None, reason))?;
        let belongs_here = manifest.key.id() == self.id
            && manifest.serial == self.serial
            && manifest.signer == signature.key;
        if !belongs_here {
            return Err(self.refused(None, Refusal::Misplaced));
        }
        Ok(manifest)
    }

    fn unsafe_part(&self, part: Part, reason: Unsafe) -> SnapshotError {
        self.refused(None, Refusal::Unsafe { part, reason })
    }
}

/// Opened and signed, but its contents are not known to be those that were signed.
#[derive(Debug)]
pub(super) struct Opened {
    snapshot: Snapshot,
    manifest: SnapshotManifest,
    memory: OpenedPart,
    state: OpenedPart,
    scratch: OpenedPart,
    /// Holds the lock that keeps it from being removed.
    _in_use: Directory,
}

#[derive(Debug)]
struct OpenedPart {
    part: Part,
    file: File,
    path: PathBuf,
    record: PartRecord,
}

impl Opened {
    /// What can be told without reading the files: that nothing newer has been accepted, and the sizes.
    pub(super) fn check(&self, keys: &SigningKeys) -> Result<(), SnapshotError> {
        let serial = self.snapshot.serial;
        let newest = keys.newest_serial(&self.snapshot.id.to_string())?;
        if serial < newest {
            return Err(self.refused(Refusal::Replayed { serial, newest }));
        }
        self.check_size(&self.memory)?;
        self.check_size(&self.state)?;
        self.check_size(&self.scratch)
    }

    pub(super) fn into_manifest(self) -> SnapshotManifest {
        self.manifest
    }

    fn check_size(&self, opened: &OpenedPart) -> Result<(), SnapshotError> {
        let metadata = opened.file.metadata();
        let actual = metadata.map_err(ImageError::io("read", &opened.path))?.len();
        if actual != opened.record.bytes {
            return Err(self.refused(Refusal::Size {
                part: opened.part,
                actual,
                expected: opened.record.bytes,
            }));
        }
        Ok(())
    }

    fn digest(&self, opened: &OpenedPart, reuse: bool) -> Result<Digested, SnapshotError> {
        let part = opened.part;
        let digests = &self.snapshot.snapshots.digests;
        let digested = match digests.digest(&opened.file, &opened.path, reuse) {
            Err(ImageError::Invalid { .. }) => return Err(self.refused(Refusal::Changed { part })),
            digested => digested?,
        };
        if digested.sum != opened.record.sha256 {
            return Err(self.refused(Refusal::Digest {
                part,
                actual: digested.sum,
                expected: opened.record.sha256,
            }));
        }
        Ok(digested)
    }

    fn refused(&self, reason: Refusal) -> SnapshotError {
        self.snapshot.refused(None, reason)
    }
}

fn with_template(error: SnapshotError, expected: &SnapshotKey) -> SnapshotError {
    match error {
        SnapshotError::Refused { path, reason, .. } => SnapshotError::Refused {
            path,
            template: Some(expected.template.clone()),
            reason,
        },
        error => error,
    }
}
