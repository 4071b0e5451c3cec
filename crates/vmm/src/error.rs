//! What can go wrong with a machine, and what a user is told about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::{ErrorCode, HostError};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::jail::Layer;
use crate::machine::BackendKind;
use crate::probe;
use crate::process::VmmExit;

/// Why a machine could not be made, reached or kept.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The machine asked for cannot exist.
    #[error("The machine cannot be made: {0}")]
    Config(String),
    /// No such VMM on this host.
    #[error("{kind} is not installed (looked for {looked_for})")]
    Missing {
        /// Which VMM.
        kind: BackendKind,
        /// Names and paths that were tried.
        looked_for: String,
    },
    /// A VMM that this crate cannot drive.
    #[error("{path} is not a {kind} that can be used: {reason}", path = path.display())]
    Unsupported {
        /// Which VMM.
        kind: BackendKind,
        /// The executable.
        path: PathBuf,
        /// What it said of itself, or the versions that would do.
        reason: String,
    },
    /// The VMM needs KVM, and KVM runs no guest here.
    #[error("KVM cannot be used: {0}")]
    Kvm(String),
    /// The guest kernel, or its initramfs, is not there.
    #[error("There is nothing to boot at {path}", path = .0.display())]
    KernelMissing(PathBuf),
    /// The root filesystem or scratch disk is not there.
    #[error("There is no disk image at {path}", path = .0.display())]
    DiskMissing(PathBuf),
    /// A kernel or disk image that no guest could use.
    #[error("{path} is not usable: {reason}", path = path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A snapshot that the VMM does not take: missing or damaged, or made by another VMM or on another processor.
    #[error("The snapshot file {path} cannot be used: {reason}", path = path.display())]
    Snapshot {
        /// The file, the state where it is not known which.
        path: PathBuf,
        /// What is wrong with it, or the VMM's words.
        reason: String,
    },
    /// The runtime directory, or something in it, cannot be used.
    #[error("Cannot {action} {path}", path = path.display())]
    State {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The host has no room left.
    #[error("The disk that holds {path} is full", path = .0.display())]
    DiskFull(PathBuf),
    /// A layer of the VMM's isolation cannot be applied on this host.
    #[error("The layer {layer} cannot be applied: {what}")]
    Isolation {
        /// Which.
        layer: Layer,
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The VMM's process could not be started.
    #[error("Cannot start {path}", path = path.display())]
    Spawn {
        /// The executable.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The VMM ended before it had started the guest.
    #[error("The VMM did not start: {exit}{}", quoted(stderr))]
    NotStarted {
        /// How it ended.
        exit: VmmExit,
        /// The last lines it wrote on standard error.
        stderr: Vec<String>,
    },
    /// The VMM ended when it should not have.
    #[error("The VMM ended with {exit}{}{}", quoted(stderr), last_words(console))]
    Died {
        /// How.
        exit: VmmExit,
        /// The last lines it wrote on standard error.
        stderr: Vec<String>,
        /// The guest's console's.
        console: Vec<String>,
    },
    /// The VMM answered a request with a fault.
    #[error("The VMM refused {request}: {fault}")]
    Refused {
        /// The request, as the VMM's own interface names it.
        request: String,
        /// The VMM's words.
        fault: String,
    },
    /// A request to the VMM got no answer that could be used.
    #[error("The VMM did not answer {request} as it should: {reason}")]
    Unanswered {
        /// The request, as the VMM's own interface names it.
        request: String,
        /// What happened instead.
        reason: String,
    },
    /// The connection to the VMM's own interface failed.
    #[error("Cannot talk to the VMM ({what})")]
    Interface {
        /// Which part of the conversation.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("{what} did not answer within {:.1} s", after.as_secs_f64())]
    Silent {
        /// Who.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The guest broke the rules of the transport.
    #[error("The guest broke the transport: {0}")]
    Transport(String),
}

impl VmmError {
    /// An I/O failure on a path of the runtime directory; a full disk has its own variant.
    pub fn state(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if [Errno::NOSPC, Errno::DQUOT]
            .map(|errno| Some(errno.raw_os_error()))
            .contains(&source.raw_os_error())
        {
            Self::DiskFull(path.to_owned())
        } else {
            Self::State {
                action,
                path: path.to_owned(),
                source,
            }
        }
    }

    pub(crate) fn isolation(layer: Layer, what: impl Into<String>, source: io::Error) -> Self {
        Self::Isolation {
            layer,
            what: what.into(),
            source,
        }
    }

    pub(crate) fn snapshot(path: &Path, reason: impl Into<String>) -> Self {
        Self::Snapshot {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// The same error where it kept a machine from starting.
    pub(crate) fn at_start(self) -> Self {
        match self {
            // One that was killed did not end by itself.
            Self::Died { exit, stderr, .. } if exit.signal() != Some(Signal::KILL.as_raw()) => {
                Self::NotStarted { exit, stderr }
            }
            other => other,
        }
    }

    /// The same error where it kept the snapshot whose state is in `path` from being restored: what the VMM says of it is said
    /// of the snapshot.
    pub(crate) fn at_restore(self, path: &Path) -> Self {
        match self {
            Self::Refused { request, fault } => Self::snapshot(path, format!("{request}: {fault}")),
            // One that was killed was not asked.
            Self::Died { exit, stderr, .. } if exit.signal() != Some(Signal::KILL.as_raw()) => {
                Self::snapshot(path, format!("the VMM ended with {exit}{}", quoted(&stderr)))
            }
            other => other,
        }
    }

    /// The error as one line, with the sources' texts that the variants themselves leave out.
    fn cause(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

fn quoted(stderr: &[String]) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(": {}", stderr.join(" / "))
    }
}

fn last_words(console: &[String]) -> String {
    let last = console.last();
    last.map_or_else(String::new, |line| format!(" (last on its console: {line})"))
}

impl From<VmmError> for HostError {
    fn from(error: VmmError) -> Self {
        let code = match &error {
            VmmError::Config(_) => ErrorCode::InvalidRequest,
            VmmError::Missing { .. } => ErrorCode::VmmMissing,
            VmmError::Unsupported { .. } => ErrorCode::VmmUnsupported,
            VmmError::Kvm(_) => ErrorCode::KvmUnusable,
            VmmError::KernelMissing(_) => ErrorCode::KernelMissing,
            VmmError::DiskMissing(_) => ErrorCode::TemplateMissing,
            VmmError::Image { .. } | VmmError::Snapshot { .. } => ErrorCode::ImageInvalid,
            VmmError::State { .. } => ErrorCode::StateUnusable,
            VmmError::DiskFull(_) => ErrorCode::DiskFull,
            VmmError::Isolation { .. } => ErrorCode::IsolationFailed,
            VmmError::Spawn { .. }
            | VmmError::NotStarted { .. }
            | VmmError::Refused { .. }
            | VmmError::Unanswered { .. }
            | VmmError::Interface { .. } => ErrorCode::VmmFailed,
            VmmError::Died { .. } => ErrorCode::VmmDied,
            VmmError::Silent { .. } => ErrorCode::GuestSilent,
            VmmError::Transport(_) => ErrorCode::GuestProtocol,
        };
        let host = Self::new(code, error.cause());
        match error {
            VmmError::Missing { kind, .. } => host.remedy(probe::remedy(kind)),
            VmmError::Isolation { layer, .. } => match layer.option() {
                Some(option) => host.remedy(format!(
                    "mend that, or let machines go without it with {option}; `host-agent doctor` lists the layers"
                )),
                None => host,
            },
            _ => host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let path = Path::new("/run/x");
        let full: HostError = VmmError::state("write", path, Errno::NOSPC).into();
        assert_eq!(full.code, ErrorCode::DiskFull);
        let other: HostError = VmmError::state("write", path, Errno::ACCESS).into();
        assert_eq!(other.code, ErrorCode::StateUnusable);
        assert_eq!(
            other.cause,
            "Cannot write /run/x: Permission denied (os error 13)"
        );
    }
}
