//! A frozen machine as files: the guest's memory, the state of its processors and devices, and its scratch disk as it was at
//! that moment, which the guest may have mounted.
//!
//! ```text
//! Machine::snapshot ─► Draft (removed unless completed) ─► SnapshotFiles ── signed and kept by the caller
//!                                                                              │
//! Machine::restore ◄─ SnapshotFile: opened once, verified, used by any number of clones
//! ```
//!
//! Memory is mapped copy-on-write: however many clones there are, what none of them has written to is in the host's memory
//! once.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate};
use rustix::io::Errno;

use crate::disks;
use crate::error::VmmError;

/// Names in a snapshot's directory.
const MEMORY: &str = "memory";
const STATE: &str = "state";
const SCRATCH: &str = "scratch";
/// Memory is given back to the disk in pieces of so many bytes, where they are zero.
const PAGE: usize = 4096;
/// Read at a time when looking for them.
const CHUNK: usize = 256 * PAGE;

/// The files that a snapshot was written to. Nothing has waited for the disk to have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// The guest's memory, as long as that is; sparse.
    pub memory: PathBuf,
    /// Processors and devices, in the VMM's own format: some hundred KiB at most.
    pub state: PathBuf,
    /// The scratch disk; sparse. Absent where the machine had none.
    pub scratch: Option<PathBuf>,
}

/// A file of a snapshot, opened once: what was verified through [`SnapshotFile::file`] is what machines are made of, whatever
/// happens to its name meanwhile. Clones are the same open file.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    file: Arc<File>,
    path: PathBuf,
}

impl SnapshotFile {
    /// Opens a file for reading, not following a symbolic link.
    ///
    /// # Errors
    /// [`VmmError::Snapshot`] when there is none, or it is no regular file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, VmmError> {
        let path = path.into();
        let opened = OpenOptions::new()
            .read(true)
            // Neither a link nor a FIFO that nobody writes to.
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(&path);
        match opened {
            Ok(file) => Self::new(file, path),
            Err(error) => Err(VmmError::snapshot(&path, error.to_string())),
        }
    }

    /// Takes a file that is open already; `path` is what errors call it. It may be a sealed memfd, which no VMM can write to
    /// whatever its guest made of it.
    ///
    /// # Errors
    /// [`VmmError::Snapshot`] when it is no regular file.
    pub fn new(file: File, path: impl Into<PathBuf>) -> Result<Self, VmmError> {
        let path = path.into();
        let regular = file.metadata().map(|metadata| metadata.is_file());
        match regular {
            Ok(true) => Ok(Self {
                file: Arc::new(file),
                path,
            }),
            Ok(false) => Err(VmmError::snapshot(&path, "it is no regular file")),
            Err(error) => Err(VmmError::snapshot(&path, error.to_string())),
        }
    }

    /// The open file. Its offset is shared: read it with `read_at`.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor of the same open file, for a VMM that opens it again by `/proc/self/fd`.
    pub(crate) fn share(&self) -> Result<OwnedFd, VmmError> {
        let shared = self.file.try_clone();
        shared
            .map(OwnedFd::from)
            .map_err(|error| VmmError::snapshot(&self.path, error.to_string()))
    }

    /// A path to the same open file, for this process.
    pub(crate) fn open_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// The same file with an offset of its own, for a VMM that reads from the descriptor itself.
    pub(crate) fn reopen(&self) -> Result<OwnedFd, VmmError> {
        let reopened = File::open(self.open_path());
        reopened
            .map(OwnedFd::from)
            .map_err(|error| VmmError::snapshot(&self.path, error.to_string()))
    }

    fn length(&self) -> Result<u64, VmmError> {
        let metadata = self.file.metadata();
        metadata
            .map(|metadata| metadata.len())
            .map_err(|error| VmmError::snapshot(&self.path, error.to_string()))
    }
}

/// Checks what a look at the files can tell. A machine whose memory file is too short would start, and be killed by SIGBUS
/// when it reads what is not there.
pub(crate) fn check(memory: &SnapshotFile, state: &SnapshotFile, memory_mib: u32) -> Result<(), VmmError> {
    let (has, needs) = (memory.length()?, u64::from(memory_mib) << 20);
    if has != needs {
        let reason = format!("it has {has} bytes, and the machine's memory {needs}");
        return Err(VmmError::snapshot(&memory.path, reason));
    }
    if state.length()? == 0 {
        return Err(VmmError::snapshot(&state.path, "it is empty"));
    }
    Ok(())
}

/// The files of a snapshot that is being made; removed when dropped before they are complete.
#[derive(Debug)]
pub(crate) struct Draft {
    files: SnapshotFiles,
    finished: bool,
}

impl Draft {
    /// Makes both files in `dir`, empty and readable by their owner only.
    pub(crate) fn create(dir: &Path) -> Result<Self, VmmError> {
        let dir = std::path::absolute(dir).map_err(|error| VmmError::state("find", dir, error))?;
        let create = |name| {
            let path = dir.join(name);
            create(&path).map_err(|error| VmmError::state("create", &path, error))?;
            Ok(path)
        };
        let memory = create(MEMORY)?;
        let mut draft = Self {
            files: SnapshotFiles {
                memory,
                state: PathBuf::new(),
                scratch: None,
            },
            finished: false,
        };
        draft.files.state = create(STATE)?;
        Ok(draft)
    }

    pub(crate) fn memory(&self) -> &Path {
        &self.files.memory
    }

    /// Keeps the scratch disk of the machine in `machine`, if it has one. Its VMM has to be gone.
    pub(crate) fn keep_scratch(&mut self, machine: &Path) -> Result<(), VmmError> {
        let path = self.files.memory.with_file_name(SCRATCH);
        // In its place before there is anything to remove.
        self.files.scratch = Some(path.clone());
        if !disks::keep_scratch(machine, &path)? {
            self.files.scratch = None;
        }
        Ok(())
    }

    pub(crate) fn state(&self) -> &Path {
        &self.files.state
    }

    /// Writes `state`, where the VMM has not, and gives back to the disk what memory does not need.
    ///
    /// # Errors
    /// [`VmmError::State`], [`VmmError::DiskFull`]; nothing is left then.
    pub(crate) async fn complete(mut self, state: Option<Vec<u8>>) -> Result<SnapshotFiles, VmmError> {
        let completed = tokio::task::spawn_blocking(move || {
            if let Some(state) = state {
                let path = self.state();
                fs::write(path, state).map_err(|error| VmmError::state("write", path, error))?;
            }
            let memory = self.memory();
            sparsify(memory).map_err(|error| VmmError::state("write", memory, error))?;
            self.finished = true;
            Ok(self.files.clone())
        });
        completed
            .await
            .expect("nothing in it panics, and the runtime waits for it")
    }
}

/// What is wrong with snapshotting a machine that has no [`Draft`].
pub(crate) fn not_meant() -> VmmError {
    VmmError::Config("it was made without a directory to be snapshotted to".to_owned())
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.files.memory);
            let _ = fs::remove_file(&self.files.state);
            if let Some(scratch) = &self.files.scratch {
                let _ = fs::remove_file(scratch);
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Makes holes of the pages that are zero, where the filesystem has holes.
fn sparsify(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        // Pages are aligned, and so is the data that a filesystem knows of.
        offset = match rustix::fs::seek(&file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let read = file.read_at(&mut chunk, offset)?;
        for (start, length) in zero_runs(&chunk[..read]) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&file, flags, offset + start as u64, length as u64) {
                Err(Errno::OPNOTSUPP) => return Ok(()),
                other => other?,
            }
        }
        offset += read as u64;
    }
}

/// The runs of whole pages that are zero, as start and length.
fn zero_runs(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, page) in bytes.chunks_exact(PAGE).enumerate() {
        if page.iter().any(|&byte| byte != 0) {
            continue;
        }
        let start = index * PAGE;
        match runs.last_mut() {
            Some((first, length)) if *first + *length == start => *length += PAGE,
            _ => runs.push((start, PAGE)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn a_draft_goes_unless_it_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        drop(Draft::create(dir.path()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let draft = Draft::create(dir.path()).unwrap();
        let files = draft.complete(Some(b"state".to_vec())).await.unwrap();
        assert_eq!(fs::read(&files.state).unwrap(), b"state");
        assert_eq!(files.memory, dir.path().join("memory"));
        assert_eq!(files.state, dir.path().join("state"));
        assert_eq!(fs::metadata(files.memory).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_older_snapshot_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state"), "old").unwrap();
        assert!(Draft::create(dir.path()).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the old one");
    }

    fn file(dir: &Path, name: &str, length: u64) -> SnapshotFile {
        let path = dir.join(name);
        File::create(&path).unwrap().set_len(length).unwrap();
        SnapshotFile::open(path).unwrap()
    }

    #[test]
    fn memory_has_the_machine_s_size_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = file(dir.path(), "state", 10);
        check(&file(dir.path(), "memory", 128 << 20), &state, 128).unwrap();
        let truncated = file(dir.path(), "truncated", (128 << 20) - 1);
        let error = check(&truncated, &state, 128).unwrap_err();
        let words = "it has 134217727 bytes, and the machine's memory 134217728";
        assert!(error.to_string().ends_with(words), "{error}");
        let memory = file(dir.path(), "memory", 128 << 20);
        let error = check(&memory, &file(dir.path(), "empty", 0), 128).unwrap_err();
        assert!(
            error.to_string().ends_with("empty cannot be used: it is empty"),
            "{error}"
        );
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let missing = SnapshotFile::open(dir.path().join("state")).unwrap_err();
        assert!(missing.to_string().contains("No such file"), "{missing}");
        assert!(SnapshotFile::open(dir.path()).is_err());
        file(dir.path(), "state", 1);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("state"), &link).unwrap();
        assert!(SnapshotFile::open(link).is_err());
    }

    #[test]
    fn an_open_file_stays_what_it_was_and_is_read_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "verified").unwrap();
        let state = SnapshotFile::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "replaced").unwrap();
        for _ in 0..2 {
            let mut text = String::new();
            File::from(state.reopen().unwrap())
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "verified");
        }
    }

    #[test]
    fn zero_pages_become_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let mut bytes = vec![0; 3 * CHUNK];
        bytes[CHUNK + PAGE] = 1;
        fs::write(&path, &bytes).unwrap();
        let before = fs::metadata(&path).unwrap().blocks();
        sparsify(&path).unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
        assert!(fs::metadata(&path).unwrap().blocks() <= before.min(64));
        assert_eq!(
            zero_runs(&bytes[CHUNK..CHUNK + 4 * PAGE]),
            [(0, PAGE), (2 * PAGE, 2 * PAGE)]
        );
    }
}
