//! Namespaces: what of the guest a job can see. Its PID 1 (see [`crate::stage`]) builds the view from inside.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::failure::{Doing as _, Result};

/// The job's own directory, as the job sees it.
pub(crate) const JOB_DIRECTORY: &str = "/job";

/// Where a system keeps its id (machine-id(5)), below the root.
pub(crate) const MACHINE_ID: &str = "etc/machine-id";

const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The file system as a job is to see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct View {
    /// A mount that becomes the root; the guest's own root when absent.
    pub(crate) root: Option<PathBuf>,
    /// Its own directories.
    pub(crate) own: Own,
    /// The size of `/dev/shm`, in bytes.
    pub(crate) shm_bytes: u64,
}

/// The directories of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Own {
    /// What the job sees as [`JOB_DIRECTORY`].
    pub(crate) job: PathBuf,
    /// What the job sees as `/tmp`.
    pub(crate) tmp: PathBuf,
    /// What the job sees as [`MACHINE_ID`], where the runner has one for it.
    pub(crate) machine_id: Option<PathBuf>,
}

/// Whether the kernel has the namespaces that every job needs.
pub(crate) fn available() -> bool {
    ["pid", "mnt", "ipc", "uts"]
        .iter()
        .all(|name| Path::new("/proc/self/ns").join(name).exists())
}

/// Leaves the guest's namespaces. The next child is PID 1 of the new PID namespace.
pub(crate) fn leave() -> Result<()> {
    let namespaces = UnshareFlags::NEWPID | UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    crate::sys::unshare(namespaces).doing(|| "leave the guest's namespaces".to_owned())
}

/// Leaves the cgroup namespace, so that the job's group looks like the root. Called by a process that is in the group.
pub(crate) fn leave_cgroup() -> Result<()> {
    crate::sys::unshare(UnshareFlags::NEWCGROUP).doing(|| "leave the guest's cgroup namespace".to_owned())
}

impl View {
    /// Builds the view and makes it this mount namespace's only content.
    pub(crate) fn enter(&self) -> Result<()> {
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
            .doing(|| "make mounts private".to_owned())?;
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        let at = |name: &str| root.join(name);
        let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        attach("proc", &at("proc"), quiet, "")?;
        bind(&self.own.job, &at(JOB_DIRECTORY.trim_start_matches('/')))?;
        bind(&self.own.tmp, &at("tmp"))?;
        if let Some(machine_id) = &self.own.machine_id {
            bind(machine_id, &at(MACHINE_ID))?;
        }
        self.devices(&at("dev"))?;
        match &self.root {
            Some(root) => change_root(root),
            // The services of the guest listen below /run.
            None => attach(
                "tmpfs",
                Path::new("/run"),
                MountFlags::NOSUID | MountFlags::NODEV,
                "mode=755,size=1m",
            ),
        }
    }

    fn devices(&self, dev: &Path) -> Result<()> {
        attach(
            "tmpfs",
            dev,
            MountFlags::NOSUID | MountFlags::NOEXEC,
            "mode=755,size=64k",
        )?;
        for (name, major, minor) in DEVICES {
            let path = dev.join(name);
            // The mode apart, because making takes the umask off it.
            mknodat(
                CWD,
                &path,
                FileType::CharacterDevice,
                Mode::empty(),
                makedev(major, minor),
            )
            .and_then(|()| chmod(&path, Mode::from_raw_mode(0o666)))
            .doing(|| format!("make /dev/{name}"))?;
        }
        for (name, target) in LINKS {
            symlink(target, dev.join(name)).doing(|| format!("make /dev/{name}"))?;
        }
        for name in ["pts", "shm"] {
            fs::create_dir(dev.join(name)).doing(|| format!("make /dev/{name}"))?;
        }
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        attach(
            "devpts",
            &dev.join("pts"),
            flags,
            "newinstance,ptmxmode=666,mode=620",
        )?;
        let shm = shm_options(self.shm_bytes);
        attach("tmpfs", &dev.join("shm"), flags | MountFlags::NODEV, &shm)
    }
}

fn shm_options(bytes: u64) -> String {
    format!("mode=1777,size={bytes}")
}

/// Changes the size of the `/dev/shm` of the caller's view, in bytes.
pub(crate) fn resize_shm(bytes: u64) -> Result<()> {
    let options = std::ffi::CString::new(shm_options(bytes)).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount_remount("/dev/shm", flags, options.as_c_str()).doing(|| "size /dev/shm".to_owned())
}

fn attach(kind: &str, target: &Path, flags: MountFlags, data: &str) -> Result<()> {
    let data = std::ffi::CString::new(data).unwrap_or_default();
    mount(kind, target, kind, flags, data.as_c_str())
        .doing(|| format!("mount {kind} on {}", target.display()))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount_bind(source, target).doing(|| format!("bind {} to {}", source.display(), target.display()))
}

fn change_root(root: &Path) -> Result<()> {
    // The old root lands on top of the new one, from where it is detached.
    chdir(root)
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| unmount(".", UnmountFlags::DETACH))
        .and_then(|()| chdir("/"))
        .doing(|| format!("make {} the root", root.display()))
}
