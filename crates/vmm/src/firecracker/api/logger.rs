//! `PUT /logger`: where Firecracker's own log goes; until then it is on standard output, among the guest's console. Legal
//! before the guest is started.

use serde::Serialize;

use super::Request;

/// The log.
#[derive(Debug, Serialize)]
pub(crate) struct Logger<'a> {
    /// A FIFO or file. v1.7.0 makes no file: it has to exist.
    pub(crate) log_path: &'a str,
    pub(crate) level: Level,
    /// Begin each line with its level.
    pub(crate) show_level: bool,
}

/// The least severe lines that are logged.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Level {
    Warning,
}

impl Logger<'_> {
    pub(crate) fn request(&self) -> Request {
        Request::put("/logger", self)
    }
}
