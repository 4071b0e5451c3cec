//! What the service holds of this machine at a moment: memory, descriptors, directories, processes, control groups.

use std::fs;
use std::path::Path;

use crate::metrics::Metrics;

/// Measures it.
pub(crate) fn measure(metrics: &Metrics, runtime: &Path) {
    metrics.build.set([env!("CARGO_PKG_VERSION")], 1);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = resident(&status) {
        metrics.resident.set([], bytes);
    }
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let (mut sockets, mut others) = (0, 0);
    for descriptor in descriptors {
        match fs::read_link(descriptor.path()) {
            Ok(target) if target.as_os_str().as_encoded_bytes().starts_with(b"socket:") => sockets += 1,
            Ok(_) => others += 1,
            // The one that lists them.
            Err(_) => {}
        }
    }
    metrics.descriptors.set(["socket"], sockets);
    metrics.descriptors.set(["other"], others);
    metrics.directories.set([], entries(&runtime.join("vms")));
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    metrics.vmms.set([], children.split_whitespace().count() as u64);
    metrics.cgroups.set([], cgroups());
}

/// VmRSS of a status file (proc_pid_status(5)), in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn entries(directory: &Path) -> u64 {
    fs::read_dir(directory).map_or(0, |entries| entries.count() as u64)
}

/// Directories below this process's own in the unified hierarchy (cgroups(7)); 0 where there is none.
fn cgroups() -> u64 {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return 0;
    };
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let root = mounts
        .iter()
        .map(Path::new)
        .find(|mount| mount.join("cgroup.controllers").exists());
    let entries = root.and_then(|root| fs::read_dir(root.join(path)).ok());
    let directories = entries.into_iter().flatten().flatten();
    directories
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
