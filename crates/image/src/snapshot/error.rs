//! Why a snapshot is not used, and how that reaches a user.

use std::fmt;
use std::path::PathBuf;

use protocol::{ErrorCode, HostError};
use thiserror::Error;

use crate::error::full_cause;
use crate::guarded::Unsafe;
use crate::signing::{KeyId, SigningError};
use crate::{ImageError, Sha256Sum};

/// Why there is no snapshot to restore from.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// None has been built for this template.
    #[error("There is no snapshot of template '{template}' for this machine")]
    Missing {
        /// The template.
        template: String,
    },
    /// It was removed in the meantime.
    #[error("The snapshot {path} is no longer there")]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// It is there, but it must not be used.
    #[error("The snapshot {path} is refused: {reason}")]
    Refused {
        /// Its directory.
        path: PathBuf,
        /// The template, where that is known for sure.
        template: Option<String>,
        /// What is wrong with it.
        reason: Box<Refusal>,
    },
    /// What the VMM or the guest left cannot be made a snapshot.
    #[error("No snapshot could be made: {reason}")]
    Unbuildable {
        /// What is wrong.
        reason: String,
    },
    /// Somebody uses it or builds it, so it cannot be removed.
    #[error("The snapshot {path} is in use")]
    InUse {
        /// Its directory.
        path: PathBuf,
    },
    /// A key is unusable.
    #[error(transparent)]
    Key(SigningError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] ImageError),
}

/// What is wrong with a snapshot.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A file is missing, a link, or open to others.
    #[error("its {part} cannot be used: {reason}")]
    Unsafe {
        /// Which one.
        part: Part,
        /// What is wrong with it.
        reason: Unsafe,
    },
    /// The signature file holds no signature.
    #[error("its signature is damaged")]
    SignatureDamaged,
    /// It is signed by a key that is not trusted here.
    #[error("it is signed by the key {key}, which is not trusted here")]
    UnknownSigner {
        /// The signer's.
        key: KeyId,
    },
    /// The manifest is not what was signed.
    #[error("its manifest is not what the key {key} has signed")]
    BadSignature {
        /// The alleged signer's.
        key: KeyId,
    },
    /// It was made by a later version of this program.
    #[error("its format {format} is not supported")]
    UnsupportedFormat {
        /// What it says it is.
        format: u64,
    },
    /// The manifest is properly signed, but lacks something.
    #[error("its manifest is malformed: {reason}")]
    ManifestMalformed {
        /// The parser's answer.
        reason: String,
    },
    /// The manifest belongs to another snapshot.
    #[error("its manifest is that of another snapshot")]
    Misplaced,
    /// A newer snapshot has been accepted before.
    #[error("it is a replay: its serial number is {serial}, and {newest} has been accepted before")]
    Replayed {
        /// Its serial number.
        serial: u64,
        /// The highest one accepted.
        newest: u64,
    },
    /// It was made for another machine.
    #[error("{}", list(.0))]
    Mismatch(Vec<Mismatch>),
    /// A file is too short or too long.
    #[error("its {part} is {actual} bytes, not {expected}")]
    Size {
        /// Which one.
        part: Part,
        /// Its size.
        actual: u64,
        /// The size that was signed.
        expected: u64,
    },
    /// A file has other contents than those that were signed.
    #[error("its {part} has the SHA-256 {actual}, not {expected}")]
    Digest {
        /// Which one.
        part: Part,
        /// Its digest.
        actual: Sha256Sum,
        /// The digest that was signed.
        expected: Sha256Sum,
    },
    /// Somebody writes to a file.
    #[error("its {part} has changed while it was in use")]
    Changed {
        /// Which one.
        part: Part,
    },
}

/// One way in which the machine that a snapshot was made for is not this one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("it was made for the {fact} {snapshot}, and here it is {here}")]
pub struct Mismatch {
    /// What it is about, as a noun: `VMM version`.
    pub fact: &'static str,
    /// What the snapshot was made for.
    pub snapshot: String,
    /// What there is.
    pub here: String,
}

fn list(mismatches: &[Mismatch]) -> String {
    let texts: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
    texts.join("; ")
}

/// A piece of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The directory that the others are in.
    Directory,
    /// What the guest had in memory.
    Memory,
    /// The state of CPU and devices.
    State,
    /// The scratch disk.
    Scratch,
    /// What is signed.
    Manifest,
    /// The manifest's signature.
    Signature,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::Memory => "memory",
            Self::State => "state",
            Self::Scratch => "scratch",
            Self::Manifest => "manifest",
            Self::Signature => "signature",
        })
    }
}

impl From<SigningError> for SnapshotError {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::File(error) => Self::File(error),
            error => Self::Key(error),
        }
    }
}

impl SnapshotError {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Missing { template } => Some(format!("run `host-agent template build {template}`")),
            Self::Refused { template, reason, .. } => {
                let name = template.as_deref().unwrap_or("NAME");
                let rebuild = format!("run `host-agent template build --force {name}`");
                Some(match **reason {
                    Refusal::UnknownSigner { .. } => {
                        format!("{rebuild}, or trust the key with `host-agent signing-key trust KEY`")
                    }
                    _ => rebuild,
                })
            }
            Self::InUse { .. } => Some("try again when the machines that use it have ended".to_owned()),
            _ => None,
        }
    }
}

impl From<SnapshotError> for HostError {
    fn from(error: SnapshotError) -> Self {
        let (remedy, cause) = (error.remedy(), full_cause(&error));
        let code = match error {
            SnapshotError::Key(error) => return error.into(),
            SnapshotError::File(error) => return error.into(),
            SnapshotError::Missing { .. } | SnapshotError::Gone { .. } => ErrorCode::SnapshotMissing,
            SnapshotError::Refused { .. } => ErrorCode::SnapshotInvalid,
            SnapshotError::Unbuildable { .. } => ErrorCode::VmmFailed,
            SnapshotError::InUse { .. } => ErrorCode::StateUnusable,
        };
        let host = Self::new(code, cause);
        match remedy {
            Some(remedy) => host.remedy(remedy),
            None => host,
        }
    }
}
