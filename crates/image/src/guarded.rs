//! Files that must be what they seem: opened below a directory that is already open, never through a symbolic link, and refused when
//! somebody else could have written or read them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

use crate::ImageError;

/// Why a file or directory is not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Unsafe {
    /// It does not exist.
    #[error("it is missing")]
    Missing,
    /// It is a symbolic link, a device, a pipe, or a directory where a file is meant, or the reverse.
    #[error("it is a symbolic link or not of the right kind")]
    WrongKind,
    /// Others than its owner can change it.
    #[error("its permissions are too wide: others can write to it (mode {mode:04o})")]
    Writable {
        /// The permission bits.
        mode: u32,
    },
    /// Others than its owner can read it, and it is a secret.
    #[error("its permissions are too wide: others can read it (mode {mode:04o})")]
    Readable {
        /// The permission bits.
        mode: u32,
    },
    /// It belongs to a user who is neither this one nor root.
    #[error("it belongs to user {uid}")]
    Owner {
        /// The user's number.
        uid: u32,
    },
    /// It is larger than anything that this program writes there.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The most that is read.
        limit: u64,
    },
    /// The operating system refused.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for Unsafe {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::Missing,
            // O_NOFOLLOW on a link; O_DIRECTORY on something else; a socket.
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Self::WrongKind,
            error => Self::Io(error.into()),
        }
    }
}

/// Who else may have access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Others may read, but not write.
    Shared,
    /// Nobody else may do either.
    Private,
}

/// An open directory that only its owner can change.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
}

impl Directory {
    /// The directory at `path`, whose last component is not followed.
    ///
    /// # Errors
    /// It is missing, is no directory, or others have access that they should not have.
    pub fn open(path: &Path, access: Access) -> Result<Self, Unsafe> {
        Self::open_at(CWD, path, access)
    }

    /// The directory `name` in this one.
    pub(crate) fn directory(&self, name: &str, access: Access) -> Result<Self, Unsafe> {
        Self::open_at(self.descriptor.as_fd(), Path::new(name), access)
    }

    fn open_at(parent: BorrowedFd<'_>, name: &Path, access: Access) -> Result<Self, Unsafe> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(parent, name, flags, Mode::empty())?);
        check(&file.metadata()?, access)?;
        Ok(Self {
            descriptor: file.into(),
        })
    }

    /// The file `name` in this directory, for reading, whoever else may read or write it.
    pub(crate) fn plain_file(&self, name: &str) -> Result<File, Unsafe> {
        // Without NONBLOCK a pipe in the file's place would make this wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(openat(&self.descriptor, name, flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(Unsafe::WrongKind)
        }
    }

    /// The file `name` in this directory, for reading.
    pub(crate) fn file(&self, name: &str, access: Access) -> Result<File, Unsafe> {
        let file = self.plain_file(name)?;
        check(&file.metadata()?, access)?;
        Ok(file)
    }

    /// All of the file `name`, which is at most `limit` bytes.
    ///
    /// # Errors
    /// It is missing, is no file, is longer, or others have access that they should not have.
    pub fn read(&self, name: &str, access: Access, limit: u64) -> Result<Vec<u8>, Unsafe> {
        let file = self.file(name, access)?;
        let mut contents = Vec::new();
        file.take(limit + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > limit {
            return Err(Unsafe::TooLarge { limit });
        }
        Ok(contents)
    }

    /// Whether `path` still leads to this directory.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let here = rustix::fs::fstat(&self.descriptor);
        let there = fs::symlink_metadata(path);
        matches!((here, there), (Ok(here), Ok(there)) if here.st_dev == there.dev() && here.st_ino == there.ino())
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn check(metadata: &fs::Metadata, access: Access) -> Result<(), Unsafe> {
    let (mode, uid) = (metadata.mode() & 0o7777, metadata.uid());
    if mode & 0o022 != 0 {
        return Err(Unsafe::Writable { mode });
    }
    if access == Access::Private && mode & 0o077 != 0 {
        return Err(Unsafe::Readable { mode });
    }
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(Unsafe::Owner { uid });
    }
    Ok(())
}

/// Makes `root` and below it each of `names`, one in the other, the latter for this user only.
///
/// # Errors
/// One cannot be made.
pub fn private_directory(root: &Path, names: &[&str]) -> Result<(), ImageError> {
    fs::create_dir_all(root).map_err(ImageError::io("create", root))?;
    let mut path = root.to_owned();
    for name in names {
        path.push(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ImageError::from_io("create", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes the lock (flock(2)), however long another one holds it.
///
/// # Errors
/// The file cannot be locked.
pub fn lock_exclusive(file: impl AsFd) -> io::Result<()> {
    loop {
        match flock(file.as_fd(), FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            result => return result.map_err(Into::into),
        }
    }
}

/// Takes the lock unless another one holds it; says whether it did.
pub(crate) fn try_lock(file: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn with(name: &str, mode: u32) -> (tempfile::TempDir, Directory) {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join(name);
        fs::write(&path, "contents").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
        let directory = Directory::open(parent.path(), Access::Shared).expect("nobody else's");
        (parent, directory)
    }

    #[test]
    fn modes_decide() {
        let (_parent, directory) = with("file", 0o644);
        assert!(directory.file("file", Access::Shared).is_ok());
        let error = directory.file("file", Access::Private).expect_err("readable");
        assert!(matches!(error, Unsafe::Readable { mode: 0o644 }), "{error}");
        let (_parent, directory) = with("file", 0o620);
        for access in [Access::Shared, Access::Private] {
            let error = directory.file("file", access).expect_err("writable");
            assert!(matches!(error, Unsafe::Writable { mode: 0o620 }), "{error}");
        }
    }

    #[test]
    fn only_a_plain_file_is_a_file() {
        let (parent, directory) = with("file", 0o600);
        symlink("file", parent.path().join("link")).expect("linked");
        fs::create_dir(parent.path().join("directory")).expect("made");
        rustix::fs::mknodat(
            CWD,
            parent.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .expect("made");
        for name in ["link", "directory", "pipe"] {
            let error = directory.file(name, Access::Private).expect_err(name);
            assert!(matches!(error, Unsafe::WrongKind), "{name}: {error}");
        }
        assert!(matches!(
            directory.file("none", Access::Private),
            Err(Unsafe::Missing)
        ));
    }

    #[test]
    fn reading_is_bounded() {
        let (_parent, directory) = with("file", 0o600);
        assert_eq!(
            directory.read("file", Access::Private, 8).expect("fits"),
            b"contents"
        );
        assert!(matches!(
            directory.read("file", Access::Private, 7),
            Err(Unsafe::TooLarge { limit: 7 })
        ));
    }

    #[test]
    fn a_directory_that_was_replaced_is_noticed() {
        let parent = tempfile::tempdir().expect("a directory");
        private_directory(parent.path(), &["a"]).expect("made");
        let path = parent.path().join("a");
        let directory = Directory::open(&path, Access::Private).expect("private");
        assert!(directory.is_at(&path));
        fs::rename(&path, parent.path().join("b")).expect("moved");
        private_directory(parent.path(), &["a"]).expect("made");
        assert!(!directory.is_at(&path));
    }
}
