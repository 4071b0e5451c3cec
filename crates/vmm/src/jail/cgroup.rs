//! The cgroup of one machine: a directory in every hierarchy that one of its limits needs, on version 2, version 1, or both at a time.
//!
//! ```text
//! /proc/self/mountinfo ─► hierarchies ─► HIERARCHY/runner-codes/vm-… ── in the journal before it is made, removed with the machine
//! ```
//!
//! To move a process into a cgroup can take the kernel tens of milliseconds. A process is born into a directory of version 2
//! (`CLONE_INTO_CGROUP`), and one that has a single thread goes into one of version 1 by itself, through `tasks`; both are quick.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{Layer, bpf};
use crate::error::VmmError;
use crate::state::VmDir;

/// What a machine may take of the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes, of which what the kernel keeps of files can be taken back.
    pub(super) memory: u64,
    /// Threads.
    pub(super) pids: u64,
    /// As many processors' whole time.
    pub(super) processors: u32,
}

/// A machine's cgroup, for its VMM to enter.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// The directory of version 2.
    pub(super) unified: Option<OwnedFd>,
    /// The `tasks` of those of version 1.
    pub(super) tasks: Vec<OwnedFd>,
}

/// The controllers that limits need.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// The period of limits of processor time, in microseconds; the kernel's own default.
const PERIOD: u64 = 100_000;

/// Where cgroups are mounted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hierarchies {
    unified: Option<PathBuf>,
    /// Mount points of version 1 with their options, among them the controllers.
    legacy: Vec<(PathBuf, Vec<String>)>,
}

/// Makes the cgroup of the machine in `dir`; says whether it filters the network, which takes a hierarchy of version 2.
///
/// # Errors
/// [`VmmError::Isolation`].
pub(super) fn create(
    parent: &Path,
    limits: Option<Limits>,
    filter: bool,
    dir: &mut VmDir,
) -> Result<(Cgroup, bool), VmmError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| VmmError::isolation(Layer::Cgroup, "Cannot read /proc/self/mountinfo", error))?;
    let hierarchies = Hierarchies::parse(&mounts);
    let parent =
        relative(parent).map_err(|error| VmmError::isolation(Layer::Cgroup, "Cannot name it", error))?;
    let homes = match limits {
        Some(_) => hierarchies.homes()?,
        None => Vec::new(),
    };
    let unified = hierarchies.unified.as_ref();
    let filter = filter && unified.is_some();
    let mut tops: Vec<(&Path, Vec<&str>)> = Vec::new();
    for (controller, top) in homes {
        match tops.iter_mut().find(|(other, _)| *other == top) {
            Some((_, controllers)) => controllers.push(controller),
            None => tops.push((top, vec![controller])),
        }
    }
    if let Some(unified) = unified
        && filter
        && !tops.iter().any(|(top, _)| top == unified)
    {
        tops.push((unified, Vec::new()));
    }
    let at = |path: &Path, action: &str| {
        let what = format!("Cannot {action} {}", path.display());
        move |error| VmmError::isolation(Layer::Cgroup, what, error)
    };
    let name = dir.id().as_str().to_owned();
    let own: Vec<PathBuf> = tops
        .iter()
        .map(|(top, _)| top.join(&parent).join(&name))
        .collect();
    dir.record_directories(own.clone())?;

    let mut cgroup = Cgroup {
        unified: None,
        tasks: Vec::new(),
    };
    for ((top, controllers), own) in tops.iter().zip(&own) {
        let shared = top.join(&parent);
        make(&shared).map_err(at(&shared, "make the cgroup"))?;
        let is_unified = Some(*top) == unified.map(PathBuf::as_path);
        if is_unified {
            enable(top, &parent, controllers).map_err(at(&shared, "have controllers in the cgroup"))?;
        }
        if is_unified && filter {
            let denied = File::open(&shared).and_then(|shared| bpf::deny_network(shared.as_fd()));
            let what = format!("Cannot attach a BPF program to {}", shared.display());
            denied.map_err(|error| VmmError::isolation(Layer::NetworkFilter, what, error))?;
        }
        make(own).map_err(at(own, "make the cgroup"))?;
        if let Some(limits) = limits {
            for controller in controllers {
                set(own, controller, is_unified, limits).map_err(at(own, "limit the cgroup"))?;
            }
        }
        let entry = if is_unified {
            File::open(own)
        } else {
            OpenOptions::new().write(true).open(own.join("tasks"))
        };
        let entry = entry.map_err(at(own, "open the cgroup"))?;
        if is_unified {
            cgroup.unified = Some(entry.into());
        } else {
            cgroup.tasks.push(entry.into());
        }
    }
    Ok((cgroup, filter))
}

/// The path below a hierarchy's root.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && path.components().next().is_some() {
        Ok(path.to_owned())
    } else {
        Err(io::Error::other(format!(
            "{} is no path of a cgroup",
            path.display()
        )))
    }
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Has the controllers in the children of `parent`, and so of all above it.
fn enable(top: &Path, parent: &Path, controllers: &[&str]) -> io::Result<()> {
    let mut directory = top.to_owned();
    for part in [None].into_iter().chain(parent.components().map(Some)) {
        if let Some(part) = part {
            directory.push(part);
        }
        let path = directory.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&path)?;
        for controller in controllers {
            if !enabled.split_whitespace().any(|other| other == *controller) {
                fs::write(&path, format!("+{controller}"))?;
            }
        }
    }
    Ok(())
}

/// Sets a controller's limit (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/).
fn set(cgroup: &Path, controller: &str, is_unified: bool, limits: Limits) -> io::Result<()> {
    let write = |file: &str, value: String| {
        let path = cgroup.join(file);
        fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
    };
    let write_if_there = |file: &str, value: String| match write(file, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    };
    let Limits {
        memory,
        pids,
        processors,
    } = limits;
    let quota = u64::from(processors) * PERIOD;
    match (controller, is_unified) {
        ("memory", true) => {
            write("memory.max", memory.to_string())?;
            // Where there is swap at all.
            write_if_there("memory.swap.max", "0".to_owned())
        }
        ("memory", false) => {
            write("memory.limit_in_bytes", memory.to_string())?;
            write_if_there("memory.memsw.limit_in_bytes", memory.to_string())
        }
        ("cpu", true) => write("cpu.max", format!("{quota} {PERIOD}")),
        ("cpu", false) => {
            write("cpu.cfs_period_us", PERIOD.to_string())?;
            write("cpu.cfs_quota_us", quota.to_string())
        }
        _ => write("pids.max", pids.to_string()),
    }
}

impl Hierarchies {
    /// From mountinfo (proc_pid_mountinfo(5)): field 5 is the mount point; after ` - ` come type, source and options.
    fn parse(mounts: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = mount.split(' ').nth(4) else {
                continue;
            };
            let point = unescape(point);
            let mut filesystem = filesystem.split(' ');
            match (filesystem.next(), filesystem.nth(1)) {
                (Some("cgroup2"), _) => {
                    found.unified.get_or_insert(point);
                }
                (Some("cgroup"), Some(options)) => {
                    let options = options.split(',').map(str::to_owned).collect();
                    found.legacy.push((point, options));
                }
                _ => {}
            }
        }
        found
    }

    /// Which hierarchy has each of the controllers that limits need.
    fn homes(&self) -> Result<Vec<(&'static str, &Path)>, VmmError> {
        let unified = self.unified.as_deref();
        let offered =
            unified.map(|top| fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default());
        let offered = offered.unwrap_or_default();
        let home = |controller: &'static str| {
            let in_unified = offered.split_whitespace().any(|other| other == controller);
            let legacy = || {
                let mut legacy = self.legacy.iter();
                legacy.find(|(_, options)| options.iter().any(|option| option == controller))
            };
            let top = if in_unified {
                unified
            } else {
                legacy().map(|(top, _)| top.as_path())
            };
            let missing = || {
                let error = io::Error::other("none is mounted");
                let what = format!("There is no cgroup hierarchy with the controller {controller}");
                VmmError::isolation(Layer::Cgroup, what, error)
            };
            Ok((controller, top.ok_or_else(missing)?))
        };
        CONTROLLERS.into_iter().map(home).collect()
    }
}

/// Blanks and the like are octal in mountinfo.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\');
        let octal = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = &after[if octal.is_some() { 3 } else { 0 }..];
    }
    std::ffi::OsStr::from_bytes(&bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "\
29 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
30 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
31 29 0:28 / /sys/fs/cgroup/a\\040b rw - cgroup cgroup rw,memory
32 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
33 29 0:30 / /elsewhere rw - cgroup2 cgroup2 rw
";
        let found = Hierarchies::parse(mounts);
        assert_eq!(found.unified, Some("/sys/fs/cgroup/unified".into()));
        let home = |controller: &str| {
            let mut legacy = found.legacy.iter();
            legacy
                .find(|(_, options)| options.iter().any(|option| option == controller))
                .map(|(top, _)| top.to_str().unwrap())
        };
        assert_eq!(home("cpu"), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(home("memory"), Some("/sys/fs/cgroup/a b"));
        assert_eq!(home("pids"), None);
        let error = found.homes().unwrap_err().to_string();
        assert!(error.contains("pids"), "{error}");
    }

    #[test]
    fn a_cgroup_is_below_its_hierarchy_s_root() {
        assert_eq!(relative(Path::new("/a/b")).unwrap(), Path::new("a/b"));
        assert_eq!(relative(Path::new("a")).unwrap(), Path::new("a"));
        for path in ["", "/", "..", "a/../../b", "./a"] {
            assert!(relative(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn controllers_are_enabled_all_the_way_and_once() {
        let top = tempfile::tempdir().unwrap();
        let parent = top.path().join("a/b");
        fs::create_dir_all(&parent).unwrap();
        for directory in [top.path(), &top.path().join("a"), &parent] {
            fs::write(directory.join("cgroup.subtree_control"), "cpu\n").unwrap();
        }
        enable(top.path(), Path::new("a/b"), &["cpu", "pids"]).unwrap();
        for directory in [top.path(), &top.path().join("a"), &parent] {
            let written = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap();
            assert_eq!(written, "+pids");
        }
    }
}
