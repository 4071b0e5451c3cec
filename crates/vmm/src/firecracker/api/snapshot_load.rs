//! `PUT /snapshot/load`: makes the machine that a snapshot was taken of. Legal once, before anything but logger and metrics is
//! configured.

use serde::Serialize;

use super::Request;
use super::version::Version;

/// The first version with [`SnapshotLoad::vsock_override`].
const HAS_VSOCK_OVERRIDE: Version = (1, 16, 0);

/// Which snapshot, and what is done with it. Disks are opened where the snapshot says that they were.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotLoad<'a> {
    pub(crate) snapshot_path: &'a str,
    pub(crate) mem_backend: MemoryBackend<'a>,
    /// Let the guest go on.
    pub(crate) resume_vm: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vsock_override: Option<VsockOverride<'a>>,
}

/// Where the guest's memory comes from.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryBackend<'a> {
    pub(crate) backend_type: BackendType,
    pub(crate) backend_path: &'a str,
}

/// See [`MemoryBackend`].
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum BackendType {
    /// A file, mapped copy-on-write.
    File,
}

/// Where the vsock's socket is made, in place of where the snapshot says that it was.
#[derive(Debug, Serialize)]
pub(crate) struct VsockOverride<'a> {
    pub(crate) uds_path: &'a str,
}

impl<'a> VsockOverride<'a> {
    /// Nothing for a version that knows no such thing.
    pub(crate) fn for_version(version: Version, uds_path: &'a str) -> Option<Self> {
        (version >= HAS_VSOCK_OVERRIDE).then_some(Self { uds_path })
    }
}

impl SnapshotLoad<'_> {
    pub(crate) fn request(&self) -> Request {
        Request::put("/snapshot/load", self)
    }
}
