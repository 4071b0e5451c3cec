//! What exists on the host only while a machine does: one directory per machine, and a journal of what else belongs to
//! it, so that the next start can remove what a killed owner left.
//!
//! ```text
//! <runtime>/lock                 held for the instant in which a directory is made or judged
//! <runtime>/vms/<id>/            0700
//!                    lock        flock-ed by the owner as long as it lives
//!                    journal     owner, processes, directories elsewhere (cgroups)
//!                    root        where the VMM's own root is mounted, in its own namespace
//!                    …           sockets, scratch disk
//! ```

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::VmmError;
use crate::jail::{Isolation, UidLease};

/// How long a killed VMM may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Between two attempts to remove a cgroup that is in use.
const BUSY: Duration = Duration::from_millis(1);

/// Names a machine: 1 to 60 lower-case letters, digits and `-` (Firecracker allows no more).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VmId(String);

impl VmId {
    /// A name that no other machine has.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random() -> Result<Self, VmmError> {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| VmmError::state("read", Path::new("/dev/urandom"), errno))?;
        Ok(Self(format!("vm-{:016x}", u64::from_ne_bytes(bytes))))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory that holds the machines' directories.
#[derive(Debug, Clone)]
pub struct RuntimeDir {
    path: PathBuf,
    isolation: Arc<Isolation>,
}

impl RuntimeDir {
    /// Where it is when nobody says otherwise: `/run/runner-codes` for root, else `runner-codes` in `$XDG_RUNTIME_DIR`, else
    /// a directory of the user's own in `/tmp`.
    #[must_use]
    pub fn default_path() -> PathBuf {
        let uid = rustix::process::getuid();
        if uid.is_root() {
            return "/run/runner-codes".into();
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if Path::new(&dir).is_absolute() => Path::new(&dir).join("runner-codes"),
            _ => format!("/tmp/runner-codes-{}", uid.as_raw()).into(),
        }
    }

    /// Opens the directory, making it (0700) if need be, and refuses one that somebody else could write to.
    ///
    /// # Errors
    /// [`VmmError::State`], [`VmmError::DiskFull`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, VmmError> {
        let path = path.into();
        make_private(&path).map_err(|error| VmmError::state("use", &path, error))?;
        let vms = path.join("vms");
        make_private(&vms).map_err(|error| VmmError::state("use", &vms, error))?;
        Ok(Self {
            path,
            isolation: Arc::default(),
        })
    }

    /// The same directory, for machines with that isolation instead of all that there is.
    #[must_use]
    pub fn isolation(self, isolation: Isolation) -> Self {
        Self {
            isolation: Arc::new(isolation),
            ..self
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory of a new machine, owned by this process.
    ///
    /// # Errors
    /// [`VmmError::State`], [`VmmError::DiskFull`].
    pub fn create(&self, id: VmId) -> Result<VmDir, VmmError> {
        let _guard = self.guard()?;
        let path = self.path.join("vms").join(id.as_str());
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| VmmError::state("create", &path, error))?;
        let claimed = claim(&path).and_then(|lock| {
            let journal = Journal {
                owner: Process::current()?,
                ..Journal::default()
            };
            journal.write(&path)?;
            Ok((lock, journal))
        });
        match claimed {
            Ok((lock, journal)) => Ok(VmDir {
                id,
                path,
                journal,
                runtime: self.clone(),
                uid: None,
                _lock: lock,
            }),
            Err(error) => {
                let _ = fs::remove_dir_all(&path);
                Err(VmmError::state("write", &path, error))
            }
        }
    }

    /// Removes what owners left that are no more: kills their VMMs and removes their directories. Returns how many machines
    /// were swept. Called on every start.
    ///
    /// # Errors
    /// [`VmmError::State`] when the directory cannot be read, or something cannot be removed; the rest is swept all the same.
    pub fn sweep(&self) -> Result<usize, VmmError> {
        let _guard = self.guard()?;
        let vms = self.path.join("vms");
        let entries = fs::read_dir(&vms).map_err(|error| VmmError::state("read", &vms, error))?;
        let mut swept = 0;
        let mut result = Ok(());
        for path in entries.flatten().map(|entry| entry.path()) {
            // A lock that is held is an owner that lives.
            let Ok(_lock) = claim(&path) else { continue };
            match sweep_one(&path) {
                Ok(()) => swept += 1,
                Err(error) => result = Err(VmmError::state("remove", &path, error)),
            }
        }
        result.map(|()| swept)
    }

    /// Holds off other processes' [`Self::create`] and [`Self::sweep`], and whatever else takes this.
    pub(crate) fn guard(&self) -> Result<File, VmmError> {
        let path = self.path.join("lock");
        let open = || {
            let file = lock_file(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        open().map_err(|error: io::Error| VmmError::state("lock", &path, error))
    }
}

/// A machine's own directory: removed on drop, or by the next [`RuntimeDir::sweep`] when this process is killed.
#[derive(Debug)]
pub struct VmDir {
    id: VmId,
    path: PathBuf,
    journal: Journal,
    runtime: RuntimeDir,
    /// The VMM's user id: nobody else's before all that it owned is gone.
    uid: Option<UidLease>,
    _lock: File,
}

impl VmDir {
    /// The machine's name.
    #[must_use]
    pub fn id(&self) -> &VmId {
        &self.id
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down a process to be killed should this one be killed first.
    ///
    /// # Errors
    /// [`VmmError::State`], [`VmmError::DiskFull`].
    pub fn record_process(&mut self, pid: u32) -> Result<(), VmmError> {
        let process =
            Process::running(pid).map_err(|error| VmmError::state("read /proc for", &self.path, error))?;
        self.journal.processes.push(process);
        self.write_journal()
    }

    /// Writes down directories elsewhere that belong to the machine, its cgroups; call it before making them. They are removed with
    /// this one, with rmdir(2), after whatever still runs in them was killed.
    ///
    /// # Errors
    /// [`VmmError::State`], [`VmmError::DiskFull`].
    pub fn record_directories(&mut self, paths: Vec<PathBuf>) -> Result<(), VmmError> {
        self.journal.directories.extend(paths);
        self.write_journal()
    }

    /// The isolation that its VMM has to have.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.runtime.isolation
    }

    /// The directory that holds the machines' directories.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    pub(crate) fn hold(&mut self, uid: UidLease) {
        self.uid = Some(uid);
    }

    fn write_journal(&self) -> Result<(), VmmError> {
        self.journal
            .write(&self.path)
            .map_err(|error| VmmError::state("write the journal in", &self.path, error))
    }
}

impl Drop for VmDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path, &self.journal) {
            tracing::warn!(path = %self.path.display(), %error, "A machine's directory is left for the next start to remove");
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    owner: Process,
    #[serde(default)]
    processes: Vec<Process>,
    #[serde(default)]
    directories: Vec<PathBuf>,
}

impl Journal {
    const NAME: &str = "journal";

    /// Whole or not at all: a kill in mid-write must leave the old one.
    fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join("journal.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, dir.join(Self::NAME))
    }

    fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join(Self::NAME))?)?)
    }
}

/// A process id together with when it started, which no later process of that id shares.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: u32,
    /// Clock ticks since the host's boot.
    started: u64,
}

impl Process {
    fn current() -> io::Result<Self> {
        Self::running(std::process::id())
    }

    fn running(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let started = start_time(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, started })
    }

    /// Kills the process if it is still the one that was written down, and waits for its end.
    fn kill(self) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        // The pidfd first: whatever it refers to is what the start time is compared with.
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        if Self::running(self.pid).ok() != Some(self) {
            return Ok(());
        }
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
        wait_gone(&pidfd)
    }
}

fn wait_gone(pidfd: &impl std::os::fd::AsFd) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)); the name in field 2 may contain anything, also `)`.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

fn sweep_one(path: &Path) -> io::Result<()> {
    // Without a readable journal the owner was killed before it started anything.
    let journal = Journal::read(path).unwrap_or_default();
    tracing::info!(path = %path.display(), owner = journal.owner.pid, "Removing what a killed process left");
    for process in &journal.processes {
        process.kill()?;
    }
    remove(path, &journal)
}

/// The directories elsewhere first: while they exist, so must the journal that names them.
fn remove(path: &Path, journal: &Journal) -> io::Result<()> {
    for directory in &journal.directories {
        match remove_cgroup(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a cgroup. The kernel refuses as long as there are processes in it, also for a moment after they have ended.
fn remove_cgroup(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            removed => return removed,
        }
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        for pid in members
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(BUSY);
    }
}

fn claim(dir: &Path) -> io::Result<File> {
    let file = lock_file(&dir.join("lock"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Makes a directory with its parents, or checks that an existing one is ours alone.
fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to another user",
        ));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn runtime() -> (tempfile::TempDir, RuntimeDir) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::open(dir.path().join("a/b")).unwrap();
        (dir, runtime)
    }

    #[test]
    fn a_machine_s_directory_is_private_and_goes_with_it() {
        let (_dir, runtime) = runtime();
        let vm = runtime.create(VmId::random().unwrap()).unwrap();
        let path = vm.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::write(path.join("scratch"), "x").unwrap();
        drop(vm);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_owner_s_machine_is_not_swept() {
        let (_dir, runtime) = runtime();
        let vm = runtime.create(VmId::random().unwrap()).unwrap();
        assert_eq!(runtime.sweep().unwrap(), 0);
        assert!(vm.path().exists());
    }

    /// What a killed owner leaves: a directory whose lock nobody holds.
    fn abandon(mut vm: VmDir, pid: u32, started: Option<u64>) -> PathBuf {
        vm.record_process(pid).unwrap();
        if let Some(started) = started {
            vm.journal.processes[0].started = started;
            vm.write_journal().unwrap();
        }
        let outside = vm.path().parent().unwrap().parent().unwrap().join("cgroup");
        vm.record_directories(vec![outside.clone()]).unwrap();
        fs::create_dir(outside).unwrap();
        flock(&vm._lock, FlockOperation::Unlock).unwrap();
        let path = vm.path().to_owned();
        std::mem::forget(vm);
        path
    }

    #[test]
    fn a_dead_owner_s_machine_is_killed_and_removed() {
        let (_dir, runtime) = runtime();
        let mut vmm = Command::new("sleep").arg("1000").spawn().unwrap();
        let path = abandon(runtime.create(VmId::random().unwrap()).unwrap(), vmm.id(), None);
        assert_eq!(runtime.sweep().unwrap(), 1);
        assert!(!path.exists());
        assert!(!runtime.path().join("cgroup").exists());
        assert!(!vmm.wait().unwrap().success());
    }

    #[test]
    fn a_process_that_took_over_the_id_is_spared() {
        let (_dir, runtime) = runtime();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let path = abandon(
            runtime.create(VmId::random().unwrap()).unwrap(),
            other.id(),
            Some(1),
        );
        assert_eq!(runtime.sweep().unwrap(), 1);
        assert!(!path.exists());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn start_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3";
        assert_eq!(start_time(stat), Some(987_654));
        assert_eq!(start_time("nonsense"), None);
    }

    #[test]
    fn another_user_s_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(RuntimeDir::open(link).is_err());
    }
}
