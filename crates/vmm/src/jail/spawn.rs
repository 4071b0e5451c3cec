//! Our side of a VMM's birth: everything is laid out, the process is cloned into its namespaces and its cgroup, and either is the VMM
//! when this returns, or is gone.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::stage::{Failure, Stage, Step, c_string};
use super::{Jail, Layer, filter, stage};
use crate::error::VmmError;

/// A program, and what it is started in.
#[derive(Debug)]
pub(crate) struct Launch {
    /// By a path that holds also in its own root.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) directory: Option<PathBuf>,
    /// Open in it under the same numbers as here.
    pub(crate) inherit: Vec<OwnedFd>,
    pub(crate) jail: Jail,
}

impl Launch {
    /// That program, with nothing else.
    pub(crate) fn of(program: &Path) -> Self {
        Self {
            program: std::path::absolute(program).unwrap_or_else(|_| program.to_owned()),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            inherit: Vec::new(),
            jail: Jail::default(),
        }
    }
}

/// A process that was started, and our ends of its output.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) layers: Vec<Layer>,
}

/// Starts a process with standard input empty. It is its own process group, and is killed by the kernel when the calling *thread* ends.
///
/// # Errors
/// [`VmmError::Spawn`], or [`VmmError::Isolation`] with the layer that could not be applied.
pub(crate) fn spawn(launch: Launch) -> Result<Child, VmmError> {
    let failed = |source: io::Error| VmmError::Spawn {
        path: launch.program.clone(),
        source,
    };
    let null = File::open("/dev/null").map_err(failed)?;
    let (stdout, their_stdout) = pipe().map_err(failed)?;
    let (stderr, their_stderr) = pipe().map_err(failed)?;
    let (status, their_status) = status_pair().map_err(failed)?;
    let arguments = arguments(&launch).map_err(failed)?;
    let environment = environment(&launch).map_err(failed)?;
    let jail = &launch.jail;
    let asks = jail.memory.is_some();
    let filter = jail.filtered.then(|| filter::program(asks));
    let map = |id: u32| CString::new(format!("{id} {id} 1"));
    let maps = jail.mapped.map(|(user, group)| Ok((map(user)?, map(group)?)));
    let stage = Stage {
        tasks: jail.cgroup.as_ref().map_or(&[], |cgroup| &cgroup.tasks),
        maps: maps
            .transpose()
            .map_err(|error: std::ffi::NulError| failed(error.into()))?,
        has_namespaces: jail.namespaces & stage::NAMESPACES == stage::NAMESPACES,
        root: jail.root.as_ref(),
        chroot: jail.chroot.as_ref(),
        limits: &jail.limits,
        identity: jail.identity,
        group: jail.group,
        small_pages: jail.small_pages,
        standard: [null.as_fd(), their_stdout.as_fd(), their_stderr.as_fd()],
        inherit: &launch.inherit,
        directory: launch
            .directory
            .as_ref()
            .map(c_string)
            .transpose()
            .map_err(failed)?,
        filter: filter.as_deref(),
        asks,
        program: c_string(&launch.program).map_err(failed)?,
        arguments: pointers(&arguments),
        environment: pointers(&environment),
    };
    let (pid, pidfd) = clone(jail, &stage, &status, &their_status)
        .map_err(|error| not_cloned(jail, error).unwrap_or_else(failed))?;
    drop(their_status);
    let listener = match outcome(&status) {
        Ok(listener) => listener,
        Err(Failed::Socket(error)) => {
            end(pid, &pidfd);
            return Err(failed(error));
        }
        Err(Failed::Stage(failure)) => {
            end(pid, &pidfd);
            return Err(explained(&launch, failure));
        }
    };
    let Launch { program, jail, .. } = launch;
    if let Some((listener, memory)) = listener.zip(jail.memory)
        && let Err(source) = filter::answer(listener, memory)
    {
        end(pid, &pidfd);
        return Err(VmmError::Spawn {
            path: program,
            source,
        });
    }
    Ok(Child {
        pid,
        pidfd,
        stdout,
        stderr,
        layers: jail.layers,
    })
}

/// Our end, which is read, and theirs.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// A socket that a stage tells on what became of it.
fn status_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    Ok(pair?)
}

fn arguments(launch: &Launch) -> io::Result<Vec<CString>> {
    let program = std::iter::once(launch.program.as_os_str());
    let all = program.chain(launch.arguments.iter().map(OsString::as_os_str));
    all.map(c_string).collect()
}

/// A VMM in a root of its own has no use for what ours has, and it may hold secrets.
fn environment(launch: &Launch) -> io::Result<Vec<CString>> {
    let jail = &launch.jail;
    let ours: Vec<_> = if jail.root.is_some() || jail.chroot.is_some() {
        Vec::new()
    } else {
        std::env::vars_os().collect()
    };
    let own = jail
        .environment
        .iter()
        .map(|(name, value)| (OsString::from(name), value.clone().into_os_string()));
    let own = own.chain(launch.environment.iter().cloned());
    let all = ours.into_iter().chain(own);
    all.map(|(name, value)| {
        let mut pair = name.as_bytes().to_vec();
        pair.push(b'=');
        pair.extend_from_slice(value.as_bytes());
        CString::new(pair).map_err(io::Error::from)
    })
    .collect()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let strings = strings.iter().map(|string| string.as_ptr());
    strings.chain([std::ptr::null()]).collect()
}

/// Makes the process.
fn clone(
    jail: &Jail,
    stage: &Stage<'_>,
    status: &OwnedFd,
    their_status: &OwnedFd,
) -> io::Result<(Pid, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    // libc's constant is too narrow for it.
    const INTO_CGROUP: u64 = 1 << 33;
    let cgroup = jail.cgroup.as_ref().and_then(|cgroup| cgroup.unified.as_ref());
    #[expect(unsafe_code, reason = "no safe wrapper for clone3")]
    // SAFETY: the arguments are plain data of the size that is given. Without a stack of its own the child goes on like a forked
    // one, and makes only system calls.
    let pid = unsafe {
        let mut arguments: libc::clone_args = std::mem::zeroed();
        arguments.flags = jail.namespaces | libc::CLONE_PIDFD as u64;
        arguments.pidfd = (&raw mut pidfd).addr() as u64;
        arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
        if let Some(cgroup) = cgroup {
            arguments.flags |= INTO_CGROUP;
            arguments.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
        }
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        // Or our own end of it would hide that our parent is gone.
        #[expect(unsafe_code, reason = "the copy of a descriptor whose owner is in the parent")]
        // SAFETY: this process ends without dropping anything.
        unsafe {
            libc::close(status.as_raw_fd());
        }
        stage::run(stage, their_status.as_fd())
    };
    #[expect(unsafe_code, reason = "clone3 returns it as a number")]
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid, pidfd))
}

/// Namespaces are made together with the process.
fn not_cloned(jail: &Jail, error: io::Error) -> Result<VmmError, io::Error> {
    let layer = match jail.mapped {
        _ if jail.namespaces == 0 => return Err(error),
        Some(_) => Layer::UserNamespace,
        None => Layer::Namespaces,
    };
    Ok(VmmError::isolation(
        layer,
        "The kernel makes no namespaces",
        error,
    ))
}

enum Failed {
    Stage(Failure),
    Socket(io::Error),
}

/// Waits until the process is another program, which closes the socket. Gives the descriptor on which its filter asks, if it does.
fn outcome(status: &OwnedFd) -> Result<Option<OwnedFd>, Failed> {
    let socket = |errno: rustix::io::Errno| Failed::Socket(errno.into());
    let mut listener = None;
    let mut said = Vec::new();
    loop {
        let mut bytes = [0; Failure::LENGTH];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            status,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received {
            Err(rustix::io::Errno::INTR) => continue,
            received => received.map_err(socket)?.bytes,
        };
        let mut fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if let Some(fd) = fds.next() {
            // The byte that it came with.
            listener = Some(fd);
            continue;
        }
        if received == 0 {
            break;
        }
        said.extend_from_slice(&bytes[..received]);
    }
    match said.try_into() {
        Ok(bytes) => match Failure::from_bytes(bytes) {
            Some(failure) => Err(Failed::Stage(failure)),
            None => Err(Failed::Socket(io::ErrorKind::InvalidData.into())),
        },
        Err(said) if said.is_empty() => Ok(listener),
        Err(_) => Err(Failed::Socket(io::ErrorKind::InvalidData.into())),
    }
}

fn end(pid: Pid, pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
}

/// A stage's failure, in words.
fn explained(launch: &Launch, failure: Failure) -> VmmError {
    let source = io::Error::from_raw_os_error(failure.errno);
    let jail = &launch.jail;
    let index = failure.index as usize;
    let (layer, what) = match failure.step {
        Step::Cgroup => (Layer::Cgroup, "Cannot enter it".to_owned()),
        Step::Maps => (Layer::UserNamespace, "Cannot map this user".to_owned()),
        Step::MountRoot => (Layer::Root, "Cannot mount a tmpfs for it".to_owned()),
        Step::Directory => (Layer::Root, "Cannot make a directory in it".to_owned()),
        Step::Bind => {
            let file = jail.root.as_ref().and_then(|root| root.file(index));
            let file = file.unwrap_or_default();
            (Layer::Root, format!("Cannot show {} in it", file.display()))
        }
        Step::ReadOnly => (Layer::Root, "Cannot make it read-only".to_owned()),
        Step::Pivot => (Layer::Root, "Cannot enter it".to_owned()),
        Step::Chroot => (Layer::Root, "Cannot show the machine's files in it".to_owned()),
        Step::HostName => (Layer::Namespaces, "Cannot set a host name".to_owned()),
        Step::Limits => {
            let limit = jail.limits.get(index).map(|(resource, _)| *resource);
            (Layer::Rlimits, format!("Cannot set {limit:?}"))
        }
        Step::Identity => {
            let id = jail.identity.unwrap_or_default();
            (Layer::Uid, format!("Cannot become user {id}"))
        }
        Step::Capabilities => (Layer::Capabilities, "Cannot drop them".to_owned()),
        Step::NoNewPrivs => (Layer::NoNewPrivs, "Cannot set it".to_owned()),
        Step::Filter => (Layer::Seccomp, "Cannot apply the filter".to_owned()),
        Step::Owner | Step::Descriptors | Step::WorkingDirectory | Step::Exec => {
            return VmmError::Spawn {
                path: launch.program.clone(),
                source,
            };
        }
    };
    VmmError::isolation(layer, what, source)
}
