//! What a run may have left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::process;

/// How long what is ending may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// Everything that is left of what ran with its directories under `root`, and its machines' cgroups in `cgroup`, one line each.
pub(crate) fn left_behind(root: &Path, runtime: &Path, temporary: &Path, cgroup: &str) -> Vec<String> {
    let deadline = Instant::now() + GRACE;
    loop {
        let left = look(root, runtime, temporary, cgroup);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn look(root: &Path, runtime: &Path, temporary: &Path, cgroup: &str) -> Vec<String> {
    let name = root.to_str().expect("a temporary directory's path is text");
    let mut left = processes(name);
    left.extend(lines_with("/proc/self/mountinfo", "mount", name));
    left.extend(lines_with("/proc/net/unix", "socket", name));
    left.extend(loop_devices(name));
    left.extend(entries(&runtime.join("vms"), "machine directory"));
    left.extend(entries(temporary, "temporary file"));
    left.extend(cgroups(cgroup).iter().flat_map(|parent| machines_in(parent)));
    left
}

/// The cgroup of that name in every hierarchy that has it.
pub(crate) fn cgroups(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup").then(|| Path::new(point).join(name))
    });
    hierarchies.filter(|path| path.is_dir()).collect()
}

/// Removes the cgroups that machines' cgroups were in.
pub(crate) fn remove_cgroups(name: &str) {
    for cgroup in cgroups(name) {
        let _ = fs::remove_dir(cgroup);
    }
}

/// A VMM tells nobody where it came from, but its cgroup does.
fn machines_in(parent: &Path) -> Vec<String> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let machines = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    machines
        .map(|path| {
            let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            format!("cgroup {} with the processes {processes:?}", path.display())
        })
        .collect()
}

fn processes(name: &str) -> Vec<String> {
    let ours = std::process::id();
    process::all()
        .filter(|pid| *pid != ours && process::lives(*pid) && process::mentions(*pid, name))
        .map(|pid| format!("process {pid}: {}", process::command_line(pid)))
        .collect()
}

fn lines_with(file: &str, what: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains(name))
        .map(|line| format!("{what} {line}"))
        .collect()
}

fn loop_devices(name: &str) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices
        .filter_map(|device| {
            let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
            file.contains(name)
                .then(|| format!("loop device {}", device.path().display()))
        })
        .collect()
}

fn entries(directory: &Path, what: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| format!("{what} {}", entry.path().display()))
        .collect()
}
