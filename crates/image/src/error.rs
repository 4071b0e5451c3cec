//! What can go wrong while artefacts are made or looked up, and how that reaches a user.

use std::io;
use std::path::{Path, PathBuf};

use protocol::{ErrorCode, HostError};
use thiserror::Error;

use crate::tools::{self, Tool};

/// Why an artefact is not there or could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file operation failed.
    #[error("Could not {action} {path}")]
    Io {
        /// The verb: `create`, `read`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The disk filled up while an artefact was being written.
    #[error("No space left in {path}")]
    DiskFull {
        /// The directory that was written to.
        path: PathBuf,
    },
    /// There is no such kernel in the store, nor as a file.
    #[error("There is no kernel at {path}")]
    KernelMissing {
        /// Where it would be.
        path: PathBuf,
    },
    /// The name of a kernel is none of those that can be made.
    #[error("'{name}' is no kernel")]
    UnknownKernel {
        /// What was asked for.
        name: String,
    },
    /// The template has not been made yet.
    #[error("The root filesystem of template '{name}' is not at {path}")]
    TemplateMissing {
        /// The template.
        name: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// No template has that name.
    #[error("There is no template '{name}'")]
    UnknownTemplate {
        /// What was asked for.
        name: String,
    },
    /// A template's recipe cannot be used.
    #[error("The recipe of template '{name}' is wrong: {reason}")]
    Recipe {
        /// The template.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file is there, but it is not what it should be.
    #[error("{path} cannot be used: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A kernel module that the guest cannot do without is in neither the kernel nor its package.
    #[error("The kernel has no module {module}")]
    ModuleMissing {
        /// Its name.
        module: &'static str,
    },
    /// Programs are not installed.
    #[error("Not installed: {}", names(.tools))]
    ToolMissing {
        /// The programs, each with its Debian package.
        tools: Vec<Tool>,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {output}")]
    ToolFailed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The last lines that it printed.
        output: String,
    },
    /// The keys that Debian's packages are signed with are not installed.
    #[error("Debian's archive keys are not installed in {directory}")]
    KeyringMissing {
        /// Where they would be.
        directory: PathBuf,
    },
    /// A mirror is not the http(s) address of an archive.
    #[error("'{mirror}' is no mirror")]
    InvalidMirror {
        /// What was given.
        mirror: String,
    },
    /// The version of a release is not three numbers.
    #[error("'{version}' is no version")]
    InvalidVersion {
        /// What was given.
        version: String,
    },
    /// A download failed.
    #[error("Could not download {url}: {reason}")]
    Download {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// A download is not the file that was published.
    #[error("{url} has the SHA-256 {actual}, published is {expected}")]
    Checksum {
        /// What was downloaded.
        url: String,
        /// The published digest.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// The configuration that a kernel came out with lacks something asked for.
    #[error("The kernel's configuration did not take {options}")]
    KernelConfig {
        /// The lines that did not hold.
        options: String,
    },
}

impl ImageError {
    /// For `map_err`: the error of doing `action` to `path`.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::from_io(action, path.as_ref(), source)
    }

    pub(crate) fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotADirectory => ErrorCode::StateUnusable,
                _ => ErrorCode::SetupFailed,
            },
            Self::DiskFull { .. } => ErrorCode::DiskFull,
            Self::KernelMissing { .. } => ErrorCode::KernelMissing,
            Self::TemplateMissing { .. } | Self::UnknownTemplate { .. } => ErrorCode::TemplateMissing,
            Self::Invalid { .. } => ErrorCode::ImageInvalid,
            Self::UnknownKernel { .. } | Self::InvalidMirror { .. } | Self::InvalidVersion { .. } => {
                ErrorCode::InvalidRequest
            }
            Self::ToolMissing { .. } | Self::KeyringMissing { .. } => ErrorCode::ToolMissing,
            Self::Download { .. } | Self::Checksum { .. } => ErrorCode::DownloadFailed,
            Self::Recipe { .. }
            | Self::ModuleMissing { .. }
            | Self::ToolFailed { .. }
            | Self::KernelConfig { .. } => ErrorCode::SetupFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::DiskFull { path } => Some(format!("free space on the disk of {}", path.display())),
            Self::UnknownKernel { .. } => {
                Some("use debian, debian-SUITE, tuned, or the path of a kernel".to_owned())
            }
            Self::TemplateMissing { name, .. } => Some(format!("run `host-agent setup --template {name}`")),
            Self::UnknownTemplate { .. } => {
                let names: Vec<&str> = crate::template::BUILT_IN
                    .iter()
                    .map(|template| template.name)
                    .collect();
                Some(format!("use one of {}", names.join(", ")))
            }
            Self::ToolMissing { tools } => {
                let packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
                Some(format!("run `{}`", tools::install_command(&packages)))
            }
            Self::KeyringMissing { .. } => Some(format!(
                "run `{}`",
                tools::install_command(&["debian-archive-keyring"])
            )),
            Self::InvalidMirror { .. } => {
                Some("give the http:// or https:// address of a Debian archive".to_owned())
            }
            Self::InvalidVersion { .. } => Some("give a version such as 1.16.1".to_owned()),
            _ => None,
        }
    }
}

fn names(tools: &[Tool]) -> String {
    let names: Vec<&str> = tools.iter().map(|tool| tool.program).collect();
    names.join(", ")
}

/// The error and what caused it, in one line.
pub(crate) fn full_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        cause.push_str(": ");
        cause.push_str(&inner.to_string());
        source = inner.source();
    }
    cause
}

impl From<ImageError> for HostError {
    fn from(error: ImageError) -> Self {
        let host = Self::new(error.code(), full_cause(&error));
        match error.remedy() {
            Some(remedy) => host.remedy(remedy),
            None => host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_faults() {
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let error: HostError = ImageError::io("write", "/x")(full).into();
        assert_eq!(error.code, ErrorCode::DiskFull);
        assert_eq!(error.cause, "No space left in /x");
    }

    #[test]
    fn the_cause_carries_the_operating_systems_answer() {
        let denied = io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error());
        let error: HostError = ImageError::io("create", "/x")(denied).into();
        assert_eq!(error.code, ErrorCode::StateUnusable);
        assert_eq!(
            error.cause,
            "Could not create /x: Permission denied (os error 13)"
        );
    }

    #[test]
    fn missing_programs_are_named_with_one_command_for_all() {
        let tools = tools::required(tools::Purpose::Images).collect();
        let error: HostError = ImageError::ToolMissing { tools }.into();
        assert_eq!(
            error.cause,
            "Not installed: mmdebstrap, sqfstar, mkfs.ext4, unshare"
        );
        assert!(
            error
                .remedy
                .contains("apt-get install e2fsprogs mmdebstrap squashfs-tools util-linux"),
            "{}",
            error.remedy
        );
    }
}
