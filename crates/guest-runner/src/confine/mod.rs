//! Confinement: every layer between a job's code and the rest of the guest.
//!
//! ```text
//! cgroup      memory, processes, CPU time; the kill switch
//! namespaces  PID, mount, IPC, UTS, cgroup: the root, /proc, /dev, /tmp of the job
//! identity    user and group, no capabilities, no_new_privs
//! rlimits     open files, file size, core files; more of them where there is no cgroup
//! seccomp     system calls: which are made, which fail, which end the job
//! ```
//!
//! A layer that this guest has must hold or the job is refused; a layer that it lacks is missing from what [`layers`]
//! lists, and a limit that would need it is refused.

pub(crate) mod cgroup;
pub(crate) mod identity;
pub(crate) mod namespaces;
pub(crate) mod rlimits;
pub(crate) mod seccomp;

use protocol::control::Confinement;
use protocol::job::JobLimits;
use protocol::limits::{DEFAULT_OPEN_FILES, DEFAULT_OUTPUT, DEFAULT_PIDS};
use protocol::{ErrorCode, HostError};
use rustix::process::{Resource, getrlimit};

use crate::sys;

/// What the kernel keeps of the guest's memory for itself and the runner: an eighth, within these bounds.
const LEAST_RESERVE: u64 = 24 << 20;
const MOST_RESERVE: u64 = 128 << 20;

/// The limits of one job, every one of them decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) pids: u64,
    pub(crate) output_bytes: u64,
    pub(crate) file_bytes: Option<u64>,
    pub(crate) open_files: u64,
    pub(crate) cpu_ms: Option<u64>,
}

impl Limits {
    /// The limits that were asked for, over this guest's defaults.
    ///
    /// # Errors
    /// `limit_unsupported` for one that this guest has no means to apply.
    pub(crate) fn decide(asked: &JobLimits, has_cgroups: bool, guest_memory: u64) -> Result<Self, HostError> {
        let needs_cgroups = [
            ("memory_bytes", asked.memory_bytes),
            ("pids", asked.pids),
            ("cpu_ms", asked.cpu_ms),
        ];
        if let Some((name, _)) = needs_cgroups
            .iter()
            .find(|(_, asked)| !has_cgroups && asked.is_some())
        {
            return Err(HostError::new(
                ErrorCode::LimitUnsupported,
                format!("the limit {name} needs cgroup v2, which this guest does not have"),
            ));
        }
        let open_files = asked.open_files.unwrap_or(DEFAULT_OPEN_FILES);
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        if open_files > most {
            return Err(HostError::new(
                ErrorCode::LimitUnsupported,
                format!("the limit open_files can be at most {most} in this guest"),
            ));
        }
        // What the guest has not got cannot be used up, so a looser limit is the guest's own.
        let usable = usable_memory(guest_memory);
        Ok(Self {
            memory_bytes: asked.memory_bytes.map_or(usable, |bytes| bytes.min(usable)),
            pids: asked.pids.unwrap_or(DEFAULT_PIDS),
            output_bytes: asked.output_bytes.unwrap_or(DEFAULT_OUTPUT),
            file_bytes: asked.file_bytes,
            open_files,
            cpu_ms: asked.cpu_ms,
        })
    }
}

fn usable_memory(guest_memory: u64) -> u64 {
    guest_memory - reserve(guest_memory)
}

fn reserve(guest_memory: u64) -> u64 {
    (guest_memory / 8)
        .clamp(LEAST_RESERVE, MOST_RESERVE)
        .min(guest_memory / 2)
}

/// Whether the guest has little memory left that could be had at once. With less it would soon do nothing but read the same
/// programs from the disk again and again, long before it killed anything.
pub(crate) fn is_short_of_memory(guest_memory: u64) -> bool {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available(&meminfo).is_some_and(|bytes| bytes < reserve(guest_memory))
}

/// What can be had without swapping, in bytes (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// What this guest can do.
pub(crate) fn able(cgroups: Result<(), &str>, seccomp: bool, overlay: bool) -> Confinement {
    Confinement {
        cgroup_v2: cgroups.is_ok(),
        cgroup_v2_missing: cgroups.err().map(str::to_owned),
        namespaces: namespaces::available(),
        seccomp,
        landlock_abi: sys::landlock_abi(),
        overlay,
    }
}

/// The layers in force for a job, by name.
pub(crate) fn layers(has_cgroups: bool, own_root: bool, seccomp: bool) -> Vec<String> {
    let layers = [
        (has_cgroups, "cgroup"),
        (true, "namespaces"),
        (own_root, "root"),
        (true, "uid"),
        (true, "capabilities"),
        (true, "no_new_privs"),
        (true, "rlimits"),
        (seccomp, "seccomp"),
    ];
    let in_force = layers.iter().filter(|(in_force, _)| *in_force);
    in_force.map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let meminfo = "MemTotal:         489172 kB\nMemAvailable:      65536 kB\n";
        assert_eq!(available(meminfo), Some(64 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn defaults_leave_the_kernel_a_reserve() {
        let limits = Limits::decide(&JobLimits::default(), true, 512 << 20).unwrap();
        assert_eq!(limits.memory_bytes, 448 << 20);
        assert_eq!(limits.pids, DEFAULT_PIDS);
        assert_eq!(usable_memory(100 << 20), 76 << 20);
        assert_eq!(usable_memory(16 << 30), (16 << 30) - (128 << 20));
        assert_eq!(usable_memory(0), 0);
    }

    #[test]
    fn what_was_asked_for_counts_up_to_what_there_is() {
        let asked = JobLimits {
            memory_bytes: Some(64 << 20),
            open_files: Some(16),
            ..JobLimits::default()
        };
        let limits = Limits::decide(&asked, true, 512 << 20).unwrap();
        assert_eq!((limits.memory_bytes, limits.open_files), (64 << 20, 16));
        let asked = JobLimits {
            memory_bytes: Some(64 << 30),
            ..JobLimits::default()
        };
        assert_eq!(
            Limits::decide(&asked, true, 512 << 20).unwrap().memory_bytes,
            448 << 20
        );
    }

    #[test]
    fn a_limit_without_means_is_refused() {
        let asked = JobLimits {
            cpu_ms: Some(100),
            ..JobLimits::default()
        };
        let error = Limits::decide(&asked, false, 512 << 20).unwrap_err();
        assert_eq!(error.code, ErrorCode::LimitUnsupported);
        assert!(error.cause.contains("cpu_ms"));
        assert!(Limits::decide(&JobLimits::default(), false, 512 << 20).is_ok());
    }
}
