//! `PUT /drives/{drive_id}`: a disk. Legal before the guest is started. The guest's names follow the order of the requests,
//! except that the root device is always the first.

use serde::Serialize;

use super::Request;

/// A disk, backed by a file on the host.
#[derive(Debug, Serialize)]
pub(crate) struct Drive<'a> {
    /// Letters, digits and `_`.
    pub(crate) drive_id: &'a str,
    pub(crate) path_on_host: &'a str,
    /// Makes it the first disk, and has Firecracker append `root=/dev/vda` to the kernel's command line.
    pub(crate) is_root_device: bool,
    pub(crate) is_read_only: bool,
}

impl Drive<'_> {
    pub(crate) fn request(&self) -> Request {
        Request::put(format!("/drives/{}", self.drive_id), self)
    }
}
