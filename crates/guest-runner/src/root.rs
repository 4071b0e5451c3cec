//! The root that jobs run in, made when the first job comes: what a machine that only says `hello` never needs is
//! never paid for.
//!
//! ```text
//! PID 1      /lower (root drive, read-only) + /scratch (scratch drive) ──overlay──► /root-overlay, a job's root
//! --listen   the system's own root
//! ```

use std::fs::{self, DirBuilder};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, StatVfs, fstatvfs, openat, statfs};
use rustix::mount::{MountFlags, mount};

use crate::confine::identity::User;
use crate::confine::namespaces::JOB_DIRECTORY;
use crate::failure::{Doing as _, Result};
use crate::modules::Modules;

/// Where PID 1 mounts the root drive.
pub(crate) const LOWER: &str = "/lower";
const SCRATCH: &str = "/scratch";
const OVERLAY: &str = "/root-overlay";
/// Where a service keeps the directories of jobs.
const SERVICE_SCRATCH: &str = "/var/lib/guest-runner";

/// Where roots come from.
pub(crate) enum Source {
    /// An overlay of the root drive and a scratch device; memory where there is none.
    Drives {
        scratch: Option<PathBuf>,
        modules: Modules,
    },
    /// The system that the runner is a service of.
    System,
}

/// The root, once it is needed.
pub(crate) struct Root {
    source: Source,
    prepared: Mutex<Option<Prepared>>,
}

/// A root that is ready for jobs.
#[derive(Clone)]
pub(crate) struct Prepared {
    /// The mount that becomes a job's root; the guest's own root when absent.
    pub(crate) mount: Option<PathBuf>,
    pub(crate) user: User,
    scratch: PathBuf,
}

impl Root {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            prepared: Mutex::new(None),
        }
    }

    /// Where programs are to be looked for, before there is any job.
    pub(crate) fn programs(&self) -> &Path {
        match self.source {
            Source::Drives { .. } => Path::new(LOWER),
            Source::System => Path::new("/"),
        }
    }

    /// Whether what jobs write stays off the root below.
    pub(crate) fn is_overlay(&self) -> bool {
        const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
        match self.source {
            Source::Drives { .. } => true,
            Source::System => statfs("/").is_ok_and(|status| status.f_type == OVERLAYFS_SUPER_MAGIC),
        }
    }

    /// The root, made on the first call. A failure is not kept: the next job tries again.
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = &*prepared {
            return Ok(prepared.clone());
        }
        let fresh = match &self.source {
            Source::Drives { scratch, modules } => from_drives(scratch.as_deref(), modules)?,
            Source::System => from_system()?,
        };
        Ok(prepared.insert(fresh).clone())
    }
}

fn from_drives(device: Option<&Path>, modules: &Modules) -> Result<Prepared> {
    modules.load(&["ext4", "overlay"])?;
    mount_scratch(device, Path::new(SCRATCH))?;
    mount_overlay(Path::new(LOWER), Path::new(SCRATCH), Path::new(OVERLAY))?;
    prepared(Some(Path::new(OVERLAY)), Path::new(SCRATCH))
}

fn from_system() -> Result<Prepared> {
    fs::create_dir_all(SERVICE_SCRATCH).doing(|| format!("make {SERVICE_SCRATCH}"))?;
    prepared(None, Path::new(SERVICE_SCRATCH))
}

fn prepared(mount: Option<&Path>, scratch: &Path) -> Result<Prepared> {
    let root = mount.unwrap_or(Path::new("/"));
    make(&root.join(JOB_DIRECTORY.trim_start_matches('/')), 0o755)?;
    make(&scratch.join("jobs"), 0o711)?;
    Ok(Prepared {
        mount: mount.map(Path::to_owned),
        user: User::ensure(root)?,
        scratch: scratch.to_owned(),
    })
}

/// Mounts the scratch device, or memory in its place.
pub(crate) fn mount_scratch(device: Option<&Path>, target: &Path) -> Result<()> {
    let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
    match device {
        Some(device) => mount(device, target, "ext4", flags, None),
        None => mount("tmpfs", target, "tmpfs", flags, None),
    }
    .doing(|| format!("mount the scratch disk on {}", target.display()))
}

/// Mounts `lower` with everything written to `scratch` on `target`.
pub(crate) fn mount_overlay(lower: &Path, scratch: &Path, target: &Path) -> Result<()> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    make(&upper, 0o755)?;
    make(&work, 0o700)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let attempt = |options: &str| {
        let options = std::ffi::CString::new(options).unwrap_or_default();
        mount(
            "overlay",
            target,
            "overlay",
            MountFlags::NOATIME,
            options.as_c_str(),
        )
    };
    // What is written does not outlive the machine, so nothing needs to reach the disk. Linux before 5.10 insists.
    attempt(&format!("{options},volatile"))
        .or_else(|_| attempt(&options))
        .doing(|| format!("mount an overlay on {}", target.display()))
}

impl Prepared {
    /// Directories of its own for job number `number`.
    pub(crate) fn directories(&self, number: u64) -> Result<JobDirectories> {
        let base = self.scratch.join(format!("jobs/{number}"));
        let scratch = openat(
            CWD,
            &self.scratch,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .doing(|| format!("open {}", self.scratch.display()))?;
        make(&base, 0o711)?;
        let directories = JobDirectories { base, scratch };
        make(&directories.job(), 0o755)?;
        make(&directories.tmp(), 0o1777)?;
        let (uid, gid) = (self.user.uid, self.user.gid);
        chown(directories.job(), Some(uid), Some(gid)).doing(|| "give the job its directory".to_owned())?;
        Ok(directories)
    }
}

/// The directories of one job, removed on drop; what is in them its own PID 1 removes.
pub(crate) struct JobDirectories {
    base: PathBuf,
    scratch: OwnedFd,
}

impl JobDirectories {
    pub(crate) fn job(&self) -> PathBuf {
        self.base.join("job")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.base.join("tmp")
    }

    /// Whether the disk that the job writes to has no room left.
    pub(crate) fn disk_full(&self) -> bool {
        fstatvfs(&self.scratch).is_ok_and(|status| is_full(&status))
    }
}

impl Drop for JobDirectories {
    fn drop(&mut self) {
        for directory in [self.job(), self.tmp(), self.base.clone()] {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Whether so little is left that the file system may refuse a write: it keeps some blocks back for its own records.
fn is_full(status: &StatVfs) -> bool {
    const MARGIN: u64 = 1 << 20;
    status.f_bavail.saturating_mul(status.f_frsize) < MARGIN || (status.f_files > 0 && status.f_favail == 0)
}

fn make(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .doing(|| format!("make {}", path.display()))
}
