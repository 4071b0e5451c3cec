//! Cgroup v2: one group a job, below the root (PID 1) or below the service's own group (delegated by systemd).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Limits;
use crate::failure::{Doing as _, Result};

/// Where PID 1 mounts the hierarchy.
pub(crate) const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The group below which jobs get theirs.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    base: PathBuf,
    next: AtomicU64,
}

impl Hierarchy {
    /// Takes the hierarchy that PID 1 has mounted.
    ///
    /// # Errors
    /// Why jobs get no groups, as `hello` says it.
    pub(crate) fn own() -> std::result::Result<Self, String> {
        Self::below(PathBuf::from(MOUNT_POINT))
    }

    /// Takes the group that systemd delegated to this service. The runner itself moves to a leaf of it, because a group
    /// with controllers enabled for its children holds no processes.
    ///
    /// # Errors
    /// As [`Hierarchy::own`].
    pub(crate) fn delegated() -> std::result::Result<Self, String> {
        let mounts = read("/proc/self/mounts")?;
        let mount = unified_mount(&mounts).ok_or("no cgroup v2 hierarchy is mounted")?;
        let groups = read("/proc/self/cgroup")?;
        let group = unified_group(&groups).ok_or("this process is in no cgroup v2 group")?;
        let base = Path::new(mount).join(group.trim_start_matches('/'));
        require_controllers(&base)?;
        let own = base.join("runner");
        let moved = fs::create_dir_all(&own).and_then(|()| fs::write(own.join("cgroup.procs"), "0"));
        moved.map_err(|error| format!("cannot move the runner to {}: {error}", own.display()))?;
        Self::below(base)
    }

    fn below(base: PathBuf) -> std::result::Result<Self, String> {
        require_controllers(&base)?;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        if !starts_processes_in_groups(&release) {
            return Err(format!(
                "Linux {release} cannot start a process in a cgroup; 5.7 and later can"
            ));
        }
        fs::write(base.join("cgroup.subtree_control"), "+memory +pids")
            .map_err(|error| format!("cannot enable controllers in {}: {error}", base.display()))?;
        let next = AtomicU64::new(0);
        Ok(Self { base, next })
    }

    /// A group for one job, with its limits set.
    pub(crate) fn create(&self, limits: &Limits) -> Result<Cgroup> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.base.join(format!("job-{number}"));
        fs::create_dir(&path).doing(|| format!("make the cgroup {}", path.display()))?;
        let cgroup = Cgroup {
            path,
            cpu_before: Duration::ZERO,
        };
        cgroup.set("memory.oom.group", "1")?;
        cgroup.limit(limits)?;
        Ok(cgroup)
    }
}

fn require_controllers(group: &Path) -> std::result::Result<(), String> {
    let controllers = read(group.join("cgroup.controllers"))?;
    match ["memory", "pids"]
        .iter()
        .find(|name| !controllers.split_whitespace().any(|c| c == **name))
    {
        Some(name) => Err(format!("the {name} controller is not in the cgroup v2 hierarchy")),
        None => Ok(()),
    }
}

/// Whether a kernel of that release knows CLONE_INTO_CGROUP.
fn starts_processes_in_groups(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 7)
}

fn read(path: impl AsRef<Path>) -> std::result::Result<String, String> {
    fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.as_ref().display()))
}

/// The mount point of the cgroup v2 hierarchy in `/proc/self/mounts`.
fn unified_mount(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?;
        (fields.next()? == "cgroup2").then_some(point)
    })
}

/// The cgroup v2 group in `/proc/self/cgroup`.
fn unified_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The group of one job; removed on drop.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    /// What its processes had used before they got their job.
    cpu_before: Duration,
}

impl Cgroup {
    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the limits of a job.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<()> {
        self.set("memory.max", &limits.memory_bytes.to_string())?;
        self.set("pids.max", &limits.pids.to_string())
    }

    /// Counts processor time from now on.
    pub(crate) fn begin(&mut self) {
        self.cpu_before = Duration::ZERO;
        self.cpu_before = self.cpu_time();
    }

    /// The memory that it has now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.number("memory.current").unwrap_or(u64::MAX)
    }

    /// The processes and threads that it has now.
    pub(crate) fn processes(&self) -> u64 {
        self.number("pids.current").unwrap_or(u64::MAX)
    }

    /// Kills every process in it. Kernels before 5.14 cannot; there the end of the PID namespace does it.
    pub(crate) fn kill(&self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// A file that polls as exceptional when the group has been refused a process.
    pub(crate) fn process_refusals(&self) -> Result<File> {
        let path = self.path.join("pids.events");
        let mut file = File::open(&path).doing(|| format!("open {}", path.display()))?;
        // Only what comes after a read is news.
        file.read_to_end(&mut Vec::new())
            .doing(|| format!("read {}", path.display()))?;
        Ok(file)
    }

    /// Whether a process was refused.
    pub(crate) fn refused_processes(&self) -> bool {
        self.count("pids.events", "max") > 0
    }

    /// How often it has run into its memory limit.
    pub(crate) fn limit_hits(&self) -> u64 {
        self.count("memory.events", "max")
    }

    /// Whether memory that cannot be given back, all but a thirty-second, fills `limit`.
    pub(crate) fn is_filled(&self, limit: u64) -> bool {
        let least = limit - limit / 32;
        let held = || self.count("memory.stat", "anon") + self.count("memory.stat", "shmem");
        self.memory() >= least && held() >= least
    }

    /// Whether the kernel killed it for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.count("memory.events", "oom_kill") > 0
    }

    /// Processor time of the job so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        Duration::from_micros(self.count("cpu.stat", "usage_usec")).saturating_sub(self.cpu_before)
    }

    /// The most memory it had. Kernels before 5.19 do not tell.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.number("memory.peak")
    }

    fn number(&self, file: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        text.trim().parse().ok()
    }

    fn count(&self, file: &str, key: &str) -> u64 {
        fs::read_to_string(self.path.join(file))
            .ok()
            .and_then(|text| value(&text, key))
            .unwrap_or(0)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        let written = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()));
        written.doing(|| format!("write {value} to {}", path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were just killed take a moment to leave.
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// How often the kernel has killed for want of memory, anywhere in the guest.
pub(crate) fn kills_of_the_guest() -> u64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    value(&counters, "oom_kill").unwrap_or(0)
}

fn value(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_unified_hierarchy() {
        let hybrid =
            "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(unified_mount(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(unified_mount("proc /proc proc rw 0 0\n"), None);
        assert_eq!(
            unified_group("3:pids:/x\n0::/system.slice/a.service\n"),
            Some("/system.slice/a.service")
        );
    }

    #[test]
    fn knows_old_kernels() {
        assert!(starts_processes_in_groups("6.1.0-56-cloud-amd64"));
        assert!(starts_processes_in_groups("5.10.233"));
        assert!(!starts_processes_in_groups("5.4.0"));
        assert!(!starts_processes_in_groups("4.14.174"));
        assert!(!starts_processes_in_groups("strange"));
    }

    #[test]
    fn reads_flat_keyed_files() {
        assert_eq!(value("usage_usec 12\nuser_usec 7\n", "user_usec"), Some(7));
        assert_eq!(value("max 3\n", "oom_kill"), None);
    }
}
