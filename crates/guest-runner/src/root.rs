//! The root that jobs run in, made when the first job comes: what a machine that only says `hello` never needs is
//! never paid for.
//!
//! ```text
//! PID 1      /lower (root drive, read-only) + /layer (the runner's own files) + /scratch (scratch drive)
//!                ──overlay──► /root-overlay, a job's root
//! --listen   the system's own root
//! ```
//!
//! A machine that is frozen with interpreters that wait holds its scratch drive open: every clone has a copy of that drive as
//! it was then, so that what its kernel knows of it is true.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, StatVfs, fstatvfs, openat, statfs};
use rustix::mount::{MountFlags, mount};

use crate::confine::identity::User;
use crate::confine::namespaces::{self, JOB_DIRECTORY, Own};
use crate::failure::{Doing as _, Result};
use crate::files;
use crate::loaders;
use crate::modules::Modules;

/// Where PID 1 mounts the root drive.
pub(crate) const LOWER: &str = "/lower";
const SCRATCH: &str = "/scratch";
const OVERLAY: &str = "/root-overlay";
const LAYER: &str = "/layer";
/// In memory, where a clone writes it sooner than to a disk. Every job's view has it as [`namespaces::MACHINE_ID`].
const MACHINE_ID: &str = "/machine-id";
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    prepared: Option<Prepared>,
    /// The machine is to be cloned, and no clone may run a job before it has an identity.
    awaits_identity: bool,
    machine_id: Option<String>,
    /// Where jobs see it.
    machine_id_file: Option<File>,
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
            state: Mutex::default(),
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
        let mut state = self.lock();
        if let Some(prepared) = &state.prepared {
            return Ok(prepared.clone());
        }
        let fresh = match &self.source {
            Source::Drives { scratch, modules } => {
                modules.load(&["ext4", "overlay"])?;
                let user = furnish(Path::new(LOWER), Path::new(LAYER))?;
                let placeholder = Path::new(LAYER).join(namespaces::MACHINE_ID);
                files::write(&placeholder, b"", 0o444).doing(|| format!("make {}", placeholder.display()))?;
                mount_scratch(scratch.as_deref(), Path::new(SCRATCH))?;
                let lower = format!("{LAYER}:{LOWER}");
                mount_overlay(&lower, Path::new(SCRATCH), Path::new(OVERLAY))?;
                forbid_modules()?;
                let file = create_machine_id(state.machine_id.as_deref())?;
                state.machine_id_file = Some(file);
                prepared(Some(Path::new(OVERLAY)), user, Path::new(SCRATCH))?
            }
            Source::System => {
                let root = Path::new("/");
                prepared(None, furnish(root, root)?, Path::new(SERVICE_SCRATCH))?
            }
        };
        Ok(state.prepared.insert(fresh).clone())
    }

    /// Whether jobs have a root of their own, and not that of a system.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.source, Source::Drives { .. })
    }

    /// From now on no job runs before there is an identity: the machine may be one of many clones.
    pub(crate) fn await_identity(&self) {
        self.lock().awaits_identity = true;
    }

    /// Whether it is still to come.
    pub(crate) fn lacks_identity(&self) -> bool {
        let state = self.lock();
        state.awaits_identity && state.machine_id.is_none()
    }

    /// Takes the id that jobs are to see in `/etc/machine-id`; false when there is another already.
    pub(crate) fn adopt_machine_id(&self, id: &str) -> Result<bool> {
        let mut state = self.lock();
        if let Some(known) = &state.machine_id {
            return Ok(known == id);
        }
        if let Some(file) = &state.machine_id_file {
            write_machine_id(file, id)?;
        }
        state.machine_id = Some(id.to_owned());
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts what jobs need besides the root filesystem at `lower` over it, to `upper`: a user, their directory, loaders.
fn furnish(lower: &Path, upper: &Path) -> Result<User> {
    make(&upper.join(JOB_DIRECTORY.trim_start_matches('/')), 0o755)?;
    loaders::install(upper)?;
    User::ensure(lower, upper)
}

/// From now on nobody loads a module, the runner included. A kernel without modules has nothing to forbid.
fn forbid_modules() -> Result<()> {
    const PARAMETER: &str = "/proc/sys/kernel/modules_disabled";
    match fs::write(PARAMETER, "1") {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing(|| format!("write {PARAMETER}"))
        }
        _ => Ok(()),
    }
}

/// Makes the file of the machine's id, random where there is none yet.
fn create_machine_id(id: Option<&str>) -> Result<File> {
    let create = || {
        let mut random = [0; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        File::create(MACHINE_ID).map(|file| (file, format!("{:032x}", u128::from_ne_bytes(random))))
    };
    let (file, random) = create().doing(|| format!("make {MACHINE_ID}"))?;
    write_machine_id(&file, id.unwrap_or(&random))?;
    Ok(file)
}

/// All ids are of the same length, so that this leaves nothing of another.
fn write_machine_id(file: &File, id: &str) -> Result<()> {
    file.write_all_at(format!("{id}\n").as_bytes(), 0)
        .doing(|| format!("write {MACHINE_ID}"))
}

fn prepared(mount: Option<&Path>, user: User, scratch: &Path) -> Result<Prepared> {
    make(&scratch.join("jobs"), 0o711)?;
    Ok(Prepared {
        mount: mount.map(Path::to_owned),
        user,
        scratch: scratch.to_owned(),
    })
}

/// Mounts the scratch device, or memory in its place.
pub(crate) fn mount_scratch(device: Option<&Path>, target: &Path) -> Result<()> {
    let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
    match device {
        // By default ext4 writes a file that is written anew to the disk at once, lest a crash loses it.
        Some(device) => mount(device, target, "ext4", flags, Some(c"noauto_da_alloc")),
        None => mount("tmpfs", target, "tmpfs", flags, None),
    }
    .doing(|| format!("mount the scratch disk on {}", target.display()))
}

/// Mounts the layers at `lower`, the uppermost first, with everything written to `scratch`, on `target`.
pub(crate) fn mount_overlay(lower: &str, scratch: &Path, target: &Path) -> Result<()> {
    make(target, 0o755)?;
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    make(&upper, 0o755)?;
    make(&work, 0o700)?;
    let options = format!(
        "lowerdir={lower},upperdir={},workdir={}",
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
        let machine_id = self.mount.is_some();
        let directories = JobDirectories {
            base,
            scratch,
            machine_id,
        };
        let own = directories.own();
        make(&own.job, 0o755)?;
        make(&own.tmp, 0o1777)?;
        let (uid, gid) = (self.user.uid, self.user.gid);
        chown(own.job, Some(uid), Some(gid)).doing(|| "give the job its directory".to_owned())?;
        Ok(directories)
    }
}

/// The directories of one job, removed on drop; what is in them its own PID 1 removes.
pub(crate) struct JobDirectories {
    base: PathBuf,
    scratch: OwnedFd,
    /// There is an id for the job's view.
    machine_id: bool,
}

impl JobDirectories {
    pub(crate) fn own(&self) -> Own {
        Own {
            job: self.base.join("job"),
            tmp: self.base.join("tmp"),
            machine_id: self.machine_id.then(|| MACHINE_ID.into()),
        }
    }

    /// Whether the disk that the job writes to has no room left.
    pub(crate) fn disk_full(&self) -> bool {
        fstatvfs(&self.scratch).is_ok_and(|status| is_full(&status))
    }
}

impl Drop for JobDirectories {
    fn drop(&mut self) {
        let own = self.own();
        for directory in [&own.job, &own.tmp, &self.base] {
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
