//! The directory that Firecracker's jailer makes a VMM's root, and the files of the host's that are shown in it.
//!
//! They are mounted there, each by itself, in the namespace that the jailer starts in and takes them along from: not linked, which
//! would change a file's ctime, nor by their paths, which may lead elsewhere by then.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

use super::stage::{c_string, check};

/// See the module. Made by us, filled by the process that becomes the jailer.
#[derive(Debug)]
pub(super) struct Chroot {
    path: PathBuf,
    /// The same, for the stage.
    target: CString,
    files: Vec<(OwnedFd, CString)>,
}

impl Chroot {
    /// Makes the directory, with its parents.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self {
            target: c_string(&path)?,
            path,
            files: Vec::new(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Shows an open file by that name.
    pub(super) fn show(&mut self, file: &File, name: &str, writable: bool) -> io::Result<()> {
        let at = self.path.join(name);
        File::create_new(&at)?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = rustix::mount::open_tree(file, c"", flags)?;
        let access = if writable { 0 } else { libc::MOUNT_ATTR_RDONLY };
        let set = access | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        attributes(mount.as_raw_fd(), c"", set, 0)?;
        self.files.push((mount, c_string(&at)?));
        Ok(())
    }

    /// Puts everything in its place, in the mount namespace of this process. Only system calls.
    pub(super) fn enter(&self) -> rustix::io::Result<()> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private)?;
        let target = self.target.as_c_str();
        rustix::mount::mount(target, target, c"", MountFlags::BIND, None)?;
        // The jailer makes devices in it and starts a program from it, whatever runtime directories are otherwise mounted with.
        let cleared = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        attributes(libc::AT_FDCWD, target, libc::MOUNT_ATTR_NOSUID, cleared)?;
        for (mount, at) in &self.files {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(mount.as_fd(), c"", CWD, at.as_c_str(), flags)?;
        }
        Ok(())
    }
}

/// Changes the attributes of one mount (mount_setattr(2)).
fn attributes(directory: i32, path: &std::ffi::CStr, set: u64, clear: u64) -> rustix::io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    #[expect(unsafe_code, reason = "there is no safe wrapper for mount_setattr(2)")]
    // SAFETY: the path is a string and the attributes are of the size that is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
}
