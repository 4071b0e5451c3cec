//! `PUT /machine-config`: processors and memory. Legal before the guest is started; a second one replaces the first.

use serde::Serialize;

use super::Request;

/// Processors and memory.
#[derive(Debug, Serialize)]
pub(crate) struct MachineConfig {
    /// 1 to 32.
    pub(crate) vcpu_count: u8,
    /// MiB.
    pub(crate) mem_size_mib: u32,
    /// Whether the guest sees pairs of vCPUs as one core; the count must be 1 or even then.
    pub(crate) smt: bool,
}

impl MachineConfig {
    pub(crate) fn request(&self) -> Request {
        Request::put("/machine-config", self)
    }
}
