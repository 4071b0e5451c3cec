//! What a process does between its birth and becoming the VMM: the part of a jail that only the process itself can make.
//!
//! ```text
//! cgroups ─► user ids mapped ─► own root ─► limits ─► identity ─► no capabilities, none to come ─► filter ─► exec
//!    └── any step that fails: its name, the index of what it was about and the error, over the socket; _exit
//! ```
//!
//! It is the copy of one thread of a process that may have had others, so that any lock may be taken for good: here are only
//! system calls, on what was laid out before.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::{Errno, FdFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use super::chroot::Chroot;
use super::filter;

/// What [`super::Layer::Namespaces`] is made of.
pub(super) const NAMESPACES: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS)
        as u64;
/// What the jailer needs in any case.
pub(super) const MOUNTS: u64 = libc::CLONE_NEWNS as u64;
pub(super) const USER_NAMESPACE: u64 = libc::CLONE_NEWUSER as u64;

/// The host name that a VMM sees.
const HOST_NAME: &[u8] = b"vmm";

/// A file of the host's that a VMM sees in its root, by a path relative to that.
#[derive(Debug)]
struct Bind {
    source: CString,
    target: CString,
}

/// A VMM's own root: mounted at `mount_point` in its own mount namespace, and gone with it.
#[derive(Debug)]
pub(super) struct Root {
    mount_point: CString,
    /// Parents before their children.
    directories: Vec<CString>,
    files: Vec<Bind>,
    devices: Vec<(&'static CStr, &'static CStr)>,
}

impl Root {
    pub(super) fn at(mount_point: &Path) -> io::Result<Self> {
        Ok(Self {
            mount_point: c_string(mount_point)?,
            directories: Vec::new(),
            files: Vec::new(),
            devices: Vec::new(),
        })
    }

    /// Shows a file of the host's, by an absolute path, at such a path in the root.
    pub(super) fn show(&mut self, source: &Path, at: &Path) -> io::Result<()> {
        let target = at.strip_prefix("/").unwrap_or(at);
        self.make_parents(target)?;
        self.files.push(Bind {
            source: c_string(source)?,
            target: c_string(target)?,
        });
        Ok(())
    }

    fn make_parents(&mut self, target: &Path) -> io::Result<()> {
        let parents: Vec<&Path> = target.ancestors().skip(1).collect();
        for parent in parents
            .into_iter()
            .rev()
            .filter(|parent| *parent != Path::new(""))
        {
            let parent = c_string(parent)?;
            if !self.directories.contains(&parent) {
                self.directories.push(parent);
            }
        }
        Ok(())
    }

    /// Shows a device, which unlike all else can be used as one.
    pub(super) fn show_device(&mut self, source: &'static CStr, target: &'static CStr) {
        if !self.directories.iter().any(|other| other.as_c_str() == c"dev") {
            self.directories.push(c"dev".to_owned());
        }
        self.devices.push((source, target));
    }

    /// What step `index` of [`Step::Bind`] was about.
    pub(super) fn file(&self, index: usize) -> Option<PathBuf> {
        let source = self.files.get(index).map(|bind| bind.source.as_c_str());
        let source = source.or_else(|| {
            let index = index.checked_sub(self.files.len())?;
            self.devices.get(index).map(|(source, _)| *source)
        });
        source.map(|source| std::ffi::OsStr::from_bytes(source.to_bytes()).into())
    }
}

pub(super) fn c_string(path: impl AsRef<std::ffi::OsStr>) -> io::Result<CString> {
    CString::new(path.as_ref().as_bytes()).map_err(io::Error::from)
}

/// All that a process needs to become the VMM, laid out so that nothing has to be allocated.
pub(super) struct Stage<'a> {
    pub(super) tasks: &'a [OwnedFd],
    /// User and group id, inside as outside, as `/proc/self/uid_map` takes them.
    pub(super) maps: Option<(CString, CString)>,
    pub(super) has_namespaces: bool,
    pub(super) root: Option<&'a Root>,
    /// What the program makes its root. It also becomes somebody else, and needs its capabilities until then.
    pub(super) chroot: Option<&'a Chroot>,
    pub(super) limits: &'a [(Resource, u64)],
    pub(super) identity: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) small_pages: bool,
    /// Standard input, output and error.
    pub(super) standard: [BorrowedFd<'a>; 3],
    pub(super) inherit: &'a [OwnedFd],
    pub(super) directory: Option<CString>,
    pub(super) filter: Option<&'a [libc::sock_filter]>,
    pub(super) asks: bool,
    pub(super) program: CString,
    /// Ending with null pointers.
    pub(super) arguments: Vec<*const libc::c_char>,
    pub(super) environment: Vec<*const libc::c_char>,
}

/// Where a stage failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Cgroup,
    Maps,
    MountRoot,
    Directory,
    Bind,
    ReadOnly,
    Pivot,
    Chroot,
    HostName,
    Limits,
    Identity,
    Capabilities,
    NoNewPrivs,
    Owner,
    Descriptors,
    WorkingDirectory,
    Filter,
    Exec,
}

impl Step {
    const ALL: [Self; 18] = [
        Self::Cgroup,
        Self::Maps,
        Self::MountRoot,
        Self::Directory,
        Self::Bind,
        Self::ReadOnly,
        Self::Pivot,
        Self::Chroot,
        Self::HostName,
        Self::Limits,
        Self::Identity,
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::Owner,
        Self::Descriptors,
        Self::WorkingDirectory,
        Self::Filter,
        Self::Exec,
    ];
}

/// A step that failed, and the index of what it was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) index: u32,
    pub(super) errno: i32,
}

impl Failure {
    pub(super) const LENGTH: usize = 9;

    fn at(step: Step) -> impl Fn(Errno) -> Self {
        Self::about(step, 0)
    }

    fn about(step: Step, index: usize) -> impl Fn(Errno) -> Self {
        move |errno| Self {
            step,
            index: index as u32,
            errno: errno.raw_os_error(),
        }
    }

    fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = self.step as u8;
        bytes[1..5].copy_from_slice(&self.index.to_ne_bytes());
        bytes[5..].copy_from_slice(&self.errno.to_ne_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Option<Self> {
        let [step, i0, i1, i2, i3, e0, e1, e2, e3] = bytes;
        Some(Self {
            step: *Step::ALL.get(usize::from(step))?,
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            errno: i32::from_ne_bytes([e0, e1, e2, e3]),
        })
    }
}

/// Becomes the VMM, or says why not and ends.
pub(super) fn run(stage: &Stage<'_>, status: BorrowedFd<'_>) -> ! {
    let Err(failure) = stage.enter(status);
    let _ = rustix::io::write(status, &failure.to_bytes());
    #[expect(unsafe_code, reason = "there is no safe _exit")]
    // SAFETY: _exit has no preconditions.
    unsafe {
        libc::_exit(127)
    }
}

impl Stage<'_> {
    fn enter(&self, status: BorrowedFd<'_>) -> Result<Infallible, Failure> {
        usual_signals();
        // A terminal's Ctrl-C is to reach only us.
        let _ = rustix::process::setpgid(None, None);
        for tasks in self.tasks {
            rustix::io::write(tasks, b"0").map_err(Failure::at(Step::Cgroup))?;
        }
        if let Some(maps) = &self.maps {
            map_ids(maps).map_err(Failure::at(Step::Maps))?;
        }
        if let Some(root) = self.root {
            root.enter()?;
        }
        if let Some(chroot) = self.chroot {
            chroot.enter().map_err(Failure::at(Step::Chroot))?;
        }
        if self.has_namespaces {
            rustix::system::sethostname(HOST_NAME).map_err(Failure::at(Step::HostName))?;
        }
        if self.small_pages {
            // Lasts over exec; a kernel that does not know it has no huge pages.
            let _ = rustix::thread::disable_transparent_huge_pages(true);
        }
        for (index, (resource, limit)) in self.limits.iter().enumerate() {
            limited(*resource, *limit).map_err(Failure::about(Step::Limits, index))?;
        }
        if self.chroot.is_none() {
            self.become_nobody()?;
        }
        rustix::thread::set_no_new_privs(true).map_err(Failure::at(Step::NoNewPrivs))?;
        die_with_parent(status).map_err(Failure::at(Step::Owner))?;
        self.keep_descriptors().map_err(Failure::at(Step::Descriptors))?;
        if let Some(directory) = &self.directory {
            rustix::process::chdir(directory.as_c_str()).map_err(Failure::at(Step::WorkingDirectory))?;
        }
        if let Some(filter) = self.filter {
            let listener = filter::apply(filter, self.asks).map_err(Failure::at(Step::Filter))?;
            if let Some(listener) = listener {
                hand_over(status, listener.as_fd()).map_err(Failure::at(Step::Filter))?;
            }
        }
        #[expect(unsafe_code, reason = "there is no safe execve")]
        // SAFETY: both arrays end with a null pointer, and what they point to is our parent's, of which we are a copy.
        let failed = check(
            unsafe {
                libc::execve(
                    self.program.as_ptr(),
                    self.arguments.as_ptr(),
                    self.environment.as_ptr(),
                )
            }
            .into(),
        );
        let errno = failed.err().unwrap_or(Errno::NOEXEC);
        Err(Failure::at(Step::Exec)(errno))
    }

    fn become_nobody(&self) -> Result<(), Failure> {
        drop_bounding_set().map_err(Failure::at(Step::Capabilities))?;
        if let Some(id) = self.identity {
            let become_it = || {
                let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
                match self.group {
                    Some(extra) => rustix::thread::set_thread_groups(&[Gid::from_raw(extra)])?,
                    None => rustix::thread::set_thread_groups(&[])?,
                }
                rustix::thread::set_thread_res_gid(group, group, group)?;
                rustix::thread::set_thread_res_uid(user, user, user)
            };
            become_it().map_err(Failure::at(Step::Identity))?;
        }
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none).map_err(Failure::at(Step::Capabilities))
    }

    /// What is inherited keeps its number; all else goes at exec, whoever opened it.
    fn keep_descriptors(&self) -> rustix::io::Result<()> {
        let [input, output, error] = self.standard;
        rustix::stdio::dup2_stdin(input)?;
        rustix::stdio::dup2_stdout(output)?;
        rustix::stdio::dup2_stderr(error)?;
        close_others_on_exec()?;
        for fd in self.inherit {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    }
}

impl Root {
    fn enter(&self) -> Result<(), Failure> {
        let mount = || {
            // Nothing of this is to be seen by the host.
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change(c"/", private)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            let options = Some(c"mode=755,size=1m,nr_inodes=2k");
            rustix::mount::mount(c"tmpfs", self.mount_point.as_c_str(), c"tmpfs", flags, options)?;
            rustix::process::chdir(self.mount_point.as_c_str())
        };
        mount().map_err(Failure::at(Step::MountRoot))?;
        for (index, directory) in self.directories.iter().enumerate() {
            let made = rustix::fs::mkdirat(CWD, directory.as_c_str(), Mode::from_raw_mode(0o755));
            made.map_err(Failure::about(Step::Directory, index))?;
        }
        for (index, bind) in self.files.iter().enumerate() {
            bound(&bind.source, &bind.target).map_err(Failure::about(Step::Bind, index))?;
        }
        let devices = self.devices.iter().enumerate();
        for (index, (_, target)) in devices.clone() {
            let made = placeholder(target);
            made.map_err(Failure::about(Step::Bind, self.files.len() + index))?;
        }
        read_only().map_err(Failure::at(Step::ReadOnly))?;
        for (index, (source, target)) in devices {
            let bound = rustix::mount::mount_bind(*source, *target);
            bound.map_err(Failure::about(Step::Bind, self.files.len() + index))?;
        }
        let pivot = || {
            // The old root is then on top of the new one (pivot_root(2)).
            rustix::process::pivot_root(c".", c".")?;
            rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
            rustix::process::chdir(c"/")
        };
        pivot().map_err(Failure::at(Step::Pivot))
    }
}

fn bound(source: &CStr, target: &CStr) -> rustix::io::Result<()> {
    placeholder(target)?;
    rustix::mount::mount_bind(source, target)
}

fn placeholder(target: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::mknodat(CWD, target, FileType::RegularFile, Mode::from_raw_mode(0o444), 0) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Makes everything that is mounted here read-only, without devices and set-user-id programs.
fn read_only() -> rustix::io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    #[expect(unsafe_code, reason = "there is no safe wrapper for mount_setattr(2)")]
    // SAFETY: the path is a string and the attributes are of the size that is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c".".as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
}

fn map_ids((users, groups): &(CString, CString)) -> rustix::io::Result<()> {
    let write = |path: &CStr, text: &[u8]| {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        rustix::io::write(file, text).map(drop)
    };
    // Without this nobody unprivileged may map groups (user_namespaces(7)).
    write(c"/proc/self/setgroups", b"deny")?;
    write(c"/proc/self/gid_map", groups.to_bytes())?;
    write(c"/proc/self/uid_map", users.to_bytes())
}

/// A limit that is lower already stays.
fn limited(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    let found = rustix::process::getrlimit(resource);
    let least = |other: Option<u64>| Some(other.map_or(limit, |other| other.min(limit)));
    let limit = Rlimit {
        current: least(found.current),
        maximum: least(found.maximum),
    };
    rustix::process::setrlimit(resource, limit)
}

/// As std does: what a runtime has ignored or blocked is no business of another program's.
fn usual_signals() {
    #[expect(unsafe_code, reason = "there is no safe wrapper for sigprocmask")]
    // SAFETY: both are async-signal-safe, and an empty set is made of zeros.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// No program that is run from here on gets any capability.
fn drop_bounding_set() -> rustix::io::Result<()> {
    for capability in 0..64 {
        #[expect(
            unsafe_code,
            reason = "the kernel may know more capabilities than the safe wrapper"
        )]
        // SAFETY: this operation takes plain numbers.
        let dropped = check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into());
        match dropped {
            // Beyond the last one.
            Err(Errno::INVAL) => break,
            // Without root and outside of a user namespace of one's own there is nothing to be had in the first place.
            Err(Errno::PERM) if !rustix::process::geteuid().is_root() => break,
            dropped => dropped?,
        }
    }
    Ok(())
}

/// Has the kernel kill this process when the thread that started it ends; after the last change of identity, which clears that.
fn die_with_parent(status: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the line above, and with it the other end of the socket. In a namespace of our own we cannot see
    // who our parent is.
    let mut other_end = [PollFd::from_borrowed_fd(status, PollFlags::empty())];
    poll(&mut other_end, Some(&Timespec::default()))?;
    if other_end[0].revents().contains(PollFlags::HUP) {
        return Err(Errno::PIPE);
    }
    Ok(())
}

fn close_others_on_exec() -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "there is no safe wrapper for close_range(2)")]
    // SAFETY: only a flag of the descriptors is changed.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// Gives our parent the descriptor on which the filter asks.
fn hand_over(status: BorrowedFd<'_>, listener: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [listener];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let byte = [io::IoSlice::new(b"L")];
    rustix::net::sendmsg(status, &byte, &mut ancillary, SendFlags::empty()).map(drop)
}

#[expect(unsafe_code, reason = "the errno of a raw system call")]
pub(super) fn check(result: libc::c_long) -> rustix::io::Result<()> {
    if result < 0 {
        // SAFETY: errno is this thread's own.
        Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_survive_the_way() {
        for (index, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, index);
            let failure = Failure {
                step,
                index: 7,
                errno: 13,
            };
            assert_eq!(Failure::from_bytes(failure.to_bytes()), Some(failure));
        }
        assert_eq!(Failure::from_bytes([200; Failure::LENGTH]), None);
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut root = Root::at(Path::new("/m")).unwrap();
        root.show(Path::new("/usr/lib/a.so"), Path::new("/usr/lib/a.so"))
            .unwrap();
        root.show(Path::new("/usr/bin/b"), Path::new("/usr/bin/b"))
            .unwrap();
        root.show_device(c"/dev/kvm", c"dev/kvm");
        let directories: Vec<_> = root.directories.iter().map(|it| it.to_str().unwrap()).collect();
        assert_eq!(directories, ["usr", "usr/lib", "usr/bin", "dev"]);
        assert_eq!(root.file(1), Some("/usr/bin/b".into()));
        assert_eq!(root.file(2), Some("/dev/kvm".into()));
        assert_eq!(root.file(3), None);
    }
}
