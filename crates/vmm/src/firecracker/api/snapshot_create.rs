//! `PUT /snapshot/create`: writes the machine to two files. Legal while it is paused.

use serde::Serialize;

use super::Request;

/// Where to.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotCreate<'a> {
    pub(crate) snapshot_type: SnapshotType,
    /// Devices and processors.
    pub(crate) snapshot_path: &'a str,
    /// As long as the guest's memory.
    pub(crate) mem_file_path: &'a str,
}

/// How much of the memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum SnapshotType {
    /// All of it.
    Full,
}

impl SnapshotCreate<'_> {
    pub(crate) fn request(&self) -> Request {
        Request::put("/snapshot/create", self)
    }
}
