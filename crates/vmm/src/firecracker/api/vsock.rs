//! `PUT /vsock`: the guest's vsock device. Legal before the guest is started; a second one replaces the first.

use serde::Serialize;

use super::Request;

/// The vsock device and the Unix socket that is its host side.
#[derive(Debug, Serialize)]
pub(crate) struct Vsock<'a> {
    /// 3 or more.
    pub(crate) guest_cid: u32,
    /// Created by Firecracker, which refuses a path that exists.
    pub(crate) uds_path: &'a str,
}

impl Vsock<'_> {
    pub(crate) fn request(&self) -> Request {
        Request::put("/vsock", self)
    }
}
