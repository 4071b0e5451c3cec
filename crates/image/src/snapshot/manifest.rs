//! What a snapshot is of and what is in it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::error::{Mismatch, Refusal};
use crate::Sha256Sum;
use crate::initramfs::hex;
use crate::signing::KeyId;
use crate::sum::{NotHexadecimal, unhex};

/// All that must be equal for a machine to be restored instead of booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotKey {
    /// The template's name.
    pub template: String,
    /// Of the ELF kernel.
    pub kernel: Sha256Sum,
    /// Of the root filesystem.
    pub rootfs: Sha256Sum,
    /// Of the archive with guest-runner and modules.
    pub initramfs: Sha256Sum,
    /// Processors.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// The network that it was built with: `none`.
    pub network: String,
    /// `firecracker` or `qemu`.
    pub backend: String,
    /// Name and version of the VMM, to the letter.
    pub vmm: String,
    /// Model and flags of the CPU.
    pub cpu: String,
    /// Version of the guest-runner.
    pub runner: String,
}

impl SnapshotKey {
    /// The name of such a machine's snapshots.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        // The fields are always written in the same order, and no two keys are written alike.
        let text = serde_json::to_vec(self).expect("a plain structure");
        let digest = Sha256Sum::of(&[b"runner-codes snapshot key v1\n", text.as_slice()].concat());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        SnapshotId(id)
    }

    /// Where this one, a snapshot's, differs from `here`.
    #[must_use]
    pub fn mismatches(&self, here: &Self) -> Vec<Mismatch> {
        let facts: [(&'static str, &dyn fmt::Display, &dyn fmt::Display); 11] = [
            ("template", &self.template, &here.template),
            ("kernel", &self.kernel, &here.kernel),
            ("root filesystem", &self.rootfs, &here.rootfs),
            ("initramfs", &self.initramfs, &here.initramfs),
            ("number of vCPUs", &self.vcpus, &here.vcpus),
            ("memory size in MiB", &self.memory_mib, &here.memory_mib),
            ("network", &self.network, &here.network),
            ("backend", &self.backend, &here.backend),
            ("VMM version", &self.vmm, &here.vmm),
            ("CPU", &self.cpu, &here.cpu),
            ("guest-runner version", &self.runner, &here.runner),
        ];
        facts
            .into_iter()
            .map(|(fact, snapshot, here)| Mismatch {
                fact,
                snapshot: snapshot.to_string(),
                here: here.to_string(),
            })
            .filter(|mismatch| mismatch.snapshot != mismatch.here)
            .collect()
    }
}

/// The name of the snapshots of one machine: the first 32 hexadecimal digits of its key's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId([u8; 16]);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SnapshotId {
    type Err = NotHexadecimal;

    fn from_str(text: &str) -> Result<Self, NotHexadecimal> {
        unhex(text).map(Self).ok_or(NotHexadecimal { digits: 32 })
    }
}

/// One file of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// Of all its contents, holes included.
    pub sha256: Sha256Sum,
    /// Its size.
    pub bytes: u64,
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotManifest {
    /// [`SnapshotManifest::FORMAT`].
    pub format: u32,
    /// Rises with every snapshot of a machine.
    pub serial: u64,
    /// Seconds since 1970.
    pub created_unix: u64,
    /// Whose signature it has.
    pub signer: KeyId,
    /// What it is of.
    pub key: SnapshotKey,
    /// The machine's memory.
    pub memory: PartRecord,
    /// The state of CPU and devices.
    pub state: PartRecord,
    /// The scratch disk, which the machine may have mounted.
    pub scratch: PartRecord,
    /// The languages whose interpreters are started and wait, by their names on the wire.
    pub parked: Vec<String>,
    /// What the guest-runner said of itself when it was built.
    pub hello: serde_json::Value,
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

impl SnapshotManifest {
    /// The only format so far.
    pub const FORMAT: u32 = 1;
    /// The age at which a snapshot is to be built anew, so that what its clones have in common does not last.
    pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

    /// Of bytes whose signature is good.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let malformed = |error: serde_json::Error| Refusal::ManifestMalformed {
            reason: error.to_string(),
        };
        let Format { format } = serde_json::from_slice(text).map_err(malformed)?;
        if format != u64::from(Self::FORMAT) {
            return Err(Refusal::UnsupportedFormat { format });
        }
        serde_json::from_slice(text).map_err(malformed)
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(self.created_unix))
            .unwrap_or(UNIX_EPOCH)
    }

    /// Whether it is older than `max_age`, usually [`SnapshotManifest::MAX_AGE`], or from the future, so that its age cannot be told.
    #[must_use]
    pub fn is_stale(&self, now: SystemTime, max_age: Duration) -> bool {
        now.duration_since(self.created())
            .map_or(true, |age| age > max_age)
    }
}
