//! `PUT /metrics`: where Firecracker's metrics go, a line of JSON each minute and on each flush. Legal once, before the guest
//! is started.

use serde::Serialize;

use super::Request;

/// The metrics.
#[derive(Debug, Serialize)]
pub(crate) struct Metrics<'a> {
    /// A FIFO or file.
    pub(crate) metrics_path: &'a str,
}

impl Metrics<'_> {
    pub(crate) fn request(&self) -> Request {
        Request::put("/metrics", self)
    }
}
