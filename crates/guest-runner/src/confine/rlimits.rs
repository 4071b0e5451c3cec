//! Resource limits of each process of a job.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};

use super::Limits;
use crate::failure::{Doing as _, Result};

/// What to set; absent means as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rlimits {
    open_files: u64,
    file_bytes: Option<u64>,
    /// Where no cgroup counts processes: those of the user.
    processes: Option<u64>,
    /// Where no cgroup counts memory: the private memory of each process.
    data_bytes: Option<u64>,
}

impl Rlimits {
    pub(crate) fn new(limits: &Limits, has_cgroups: bool) -> Self {
        Self {
            open_files: limits.open_files,
            file_bytes: limits.file_bytes,
            processes: (!has_cgroups).then_some(limits.pids),
            data_bytes: (!has_cgroups).then_some(limits.memory_bytes),
        }
    }

    /// The most processes, where no cgroup counts them.
    pub(crate) const fn processes(&self) -> Option<u64> {
        self.processes
    }

    /// Sets them for this process and what it becomes.
    pub(crate) fn apply(&self) -> Result<()> {
        self.apply_to(None)
    }

    /// Sets them for a process that waits; those that are absent stay as they were set for it.
    pub(crate) fn apply_to(&self, process: Option<Pid>) -> Result<()> {
        let limits = [
            ("core files", Resource::Core, Some(0)),
            ("open files", Resource::Nofile, Some(self.open_files)),
            ("file size", Resource::Fsize, self.file_bytes),
            ("processes", Resource::Nproc, self.processes),
            ("memory", Resource::Data, self.data_bytes),
        ];
        for (name, resource, value) in limits {
            if value.is_some() {
                let limit = Rlimit {
                    current: value,
                    maximum: value,
                };
                prlimit(process, resource, limit).doing(|| format!("limit {name}"))?;
            }
        }
        Ok(())
    }
}
