//! The system calls that have no safe wrapper elsewhere.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use crate::confine::seccomp::Call;

/// The kernel parameter that says how far the addresses of processes are random: from 0, not at all, to 2.
pub(crate) const RANDOM_ADDRESSES: &str = "kernel/randomize_va_space";

/// The two sides of a fork.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks a process that has one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    #[expect(unsafe_code, reason = "there is no safe fork")]
    // SAFETY: stages are single-threaded from their first instruction, so the child finds no lock taken.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(check(pid)?) {
        Some(pid) => Ok(Fork::Parent(pid)),
        None => Ok(Fork::Child),
    }
}

/// Forks a process that has one thread, right into a cgroup: to move it there later would wait for all processors.
pub(crate) fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Fork> {
    // libc's constant is too narrow for it.
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    #[expect(unsafe_code, reason = "no safe wrapper for clone3")]
    // SAFETY: the arguments are plain data of the size that is given. Without a stack of its own the child goes on like
    // a forked one, and as for `fork` it finds no lock taken.
    let pid = unsafe {
        let mut arguments: libc::clone_args = std::mem::zeroed();
        arguments.flags = CLONE_INTO_CGROUP;
        arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
        arguments.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match Pid::from_raw(check(i32::try_from(pid).unwrap_or(-1))?) {
        Some(pid) => Ok(Fork::Parent(pid)),
        None => Ok(Fork::Child),
    }
}

/// Ends a forked process without running what its parent registered.
pub(crate) fn exit(code: i32) -> ! {
    #[expect(unsafe_code, reason = "there is no safe _exit")]
    // SAFETY: _exit has no preconditions.
    unsafe {
        libc::_exit(code)
    }
}

/// Becomes another program.
pub(crate) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    #[expect(unsafe_code, reason = "there is no safe execve")]
    // SAFETY: both arrays end with a null pointer and outlive the call.
    unsafe {
        libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
    }
    io::Error::last_os_error()
}

/// Leaves namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "CLONE_FILES could break I/O safety")]
    // SAFETY: only namespaces are left; the descriptor table stays.
    unsafe {
        rustix::thread::unshare_unsafe(flags)
    }
}

/// Kills every other process of this PID namespace, whose PID 1 the caller is.
pub(crate) fn kill_all() {
    #[expect(unsafe_code, reason = "there is no safe kill(-1)")]
    // SAFETY: kill has no memory effects.
    unsafe {
        libc::kill(-1, libc::SIGKILL);
    }
}

/// Blocks `signals` in this thread and those it starts, and gives a descriptor that reads them instead.
pub(crate) fn signals_as_file(signals: &[i32]) -> io::Result<File> {
    let set = signal_set(signals);
    #[expect(unsafe_code, reason = "no safe wrapper for signalfd")]
    // SAFETY: the set is initialised; the descriptor is new and owned by nothing else.
    unsafe {
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            ptr::null_mut(),
        ))?;
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC))?;
        Ok(File::from_raw_fd(fd))
    }
}

/// Undoes what the Rust runtime and this program did to signals, for a program that expects the defaults.
pub(crate) fn default_signals() {
    let none = signal_set(&[]);
    #[expect(unsafe_code, reason = "no safe wrapper for signal dispositions")]
    // SAFETY: the set is initialised, and SIG_DFL runs no code.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    #[expect(unsafe_code, reason = "no safe wrapper for signal sets")]
    // SAFETY: sigemptyset initialises the set; sigaddset only reads its arguments.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Gives each descriptor that number, and marks every other to be closed by exec. No number may be one of the descriptors
/// themselves.
pub(crate) fn inherit_only(descriptors: &[(RawFd, BorrowedFd<'_>)]) -> io::Result<()> {
    for &(target, descriptor) in descriptors {
        #[expect(
            unsafe_code,
            reason = "the descriptors that are replaced have no owner to name"
        )]
        // SAFETY: the caller execs next; nothing uses what was at `target` before.
        check(unsafe { libc::dup2(descriptor.as_raw_fd(), target) })?;
    }
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let fd: Option<RawFd> = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(fd) = fd.filter(|&fd| descriptors.iter().all(|&(target, _)| target != fd)) {
            #[expect(unsafe_code, reason = "the descriptors that are marked have no owner to name")]
            // SAFETY: F_SETFD changes a flag only.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        }
    }
    Ok(())
}

/// Takes ownership of standard input, output and error, and leaves `/dev/null` in their places.
pub(crate) fn take_standard_streams() -> io::Result<[OwnedFd; 3]> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let take = |fd: RawFd| {
        #[expect(unsafe_code, reason = "standard streams have no owner to name")]
        // SAFETY: the copy is new and owned by nothing else; the original stays open, as another file.
        unsafe {
            let copy = check(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3))?;
            check(libc::dup2(null.as_raw_fd(), fd))?;
            Ok::<_, io::Error>(OwnedFd::from_raw_fd(copy))
        }
    };
    Ok([take(0)?, take(1)?, take(2)?])
}

/// Processor time and the largest memory of the children that were waited for, in bytes.
pub(crate) fn usage_of_children() -> (Duration, u64) {
    #[expect(unsafe_code, reason = "no safe wrapper for getrusage")]
    // SAFETY: the structure is plain data, and the kernel fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let span = |time: libc::timeval| {
        let part = |value: i64| u64::try_from(value).unwrap_or(0);
        Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
    };
    let peak = u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10;
    (span(usage.ru_utime) + span(usage.ru_stime), peak)
}

/// Brings up the loopback interface, which a new machine has switched off.
pub(crate) fn raise_loopback() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    #[expect(unsafe_code, reason = "no safe wrapper for interface requests")]
    // SAFETY: the request is plain data with a name that ends in zeros, and the kernel reads and fills in no more than it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[..2].copy_from_slice(&[b'l'.cast_signed(), b'o'.cast_signed()]);
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS,
            &raw mut request,
        ))?;
        request.ifr_ifru.ifru_flags |= libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw const request,
        ))?;
    }
    Ok(())
}

/// Mixes `entropy` into the kernel's random numbers, counts it in full, and makes the generator start anew from it
/// (random(4)). The generator's own reseeding could be minutes away.
pub(crate) fn reseed_kernel(entropy: &[u8]) -> io::Result<()> {
    // _IOW('R', 0x03, int[2]) and _IO('R', 0x07) of <linux/random.h>.
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
    let (bytes, bits) = (entropy.len(), entropy.len() * 8);
    let number = |value: usize| i32::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    let mut pool = Vec::with_capacity(8 + bytes);
    pool.extend_from_slice(&number(bits)?.to_ne_bytes());
    pool.extend_from_slice(&number(bytes)?.to_ne_bytes());
    pool.extend_from_slice(entropy);
    let random = File::options().write(true).open("/dev/random")?;
    #[expect(unsafe_code, reason = "no safe wrapper for the random device's requests")]
    // SAFETY: the first request reads the two numbers and as many bytes as the second of them says, all of them in `pool`;
    // the second request has no argument.
    unsafe {
        check(libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, pool.as_ptr()))?;
        check(libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG))?;
    }
    Ok(())
}

/// Whether the kernel has filters that can end a process (Linux 4.14).
pub(crate) fn can_filter() -> bool {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    #[expect(unsafe_code, reason = "no safe wrapper for seccomp")]
    // SAFETY: the kernel reads the four bytes of the action.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    answer == 0
}

/// Puts this thread, and what it starts, under a filter for good. Needs `no_new_privs`.
pub(crate) fn filter(program: &mut [libc::sock_filter]) -> io::Result<()> {
    set_filter(program, 0).map(drop)
}

/// The same with a filter that tells whoever holds the descriptor, of calls that wait for an answer. There can be one such filter.
pub(crate) fn filter_and_listen(program: &mut [libc::sock_filter]) -> io::Result<OwnedFd> {
    let listener = set_filter(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    #[expect(unsafe_code, reason = "the kernel has made a descriptor")]
    // SAFETY: the descriptor is new and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn set_filter(program: &mut [libc::sock_filter], flags: libc::c_ulong) -> io::Result<RawFd> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    #[expect(unsafe_code, reason = "no safe wrapper for seccomp")]
    // SAFETY: the filter and its program are plain data that outlive the call; the kernel copies and checks them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    check(i32::try_from(answer).unwrap_or(-1))
}

/// A system call that waits for an answer.
pub(crate) struct Notice {
    pub(crate) id: u64,
    /// Whose, as the reader's PID namespace numbers it.
    pub(crate) process: i32,
    pub(crate) call: Call,
    /// Its first argument, of what the kernel takes for an int.
    pub(crate) argument: i32,
}

// Of <linux/seccomp.h>: _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp).
const SECCOMP_IOCTL_NOTIF_RECV: libc::Ioctl = 0xc050_2100;
const SECCOMP_IOCTL_NOTIF_SEND: libc::Ioctl = 0xc018_2101;

/// The next call that waits for an answer; waits where there is none.
pub(crate) fn next_notice(listener: BorrowedFd<'_>) -> io::Result<Notice> {
    #[expect(unsafe_code, reason = "no safe wrapper for seccomp notifications")]
    // SAFETY: the structure is plain data of the size that the request names, zero as it has to be, and the kernel fills it in.
    let notice = unsafe {
        let mut notice: libc::seccomp_notif = std::mem::zeroed();
        check(libc::ioctl(
            listener.as_raw_fd(),
            SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut notice,
        ))?;
        notice
    };
    Ok(Notice {
        id: notice.id,
        process: notice.pid.cast_signed(),
        call: Call {
            architecture: notice.data.arch,
            number: notice.data.nr.cast_unsigned(),
        },
        #[expect(clippy::cast_possible_truncation, reason = "so does the kernel")]
        argument: notice.data.args[0] as i32,
    })
}

/// Has a call that waits be made.
pub(crate) fn let_go_on(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe wrapper for seccomp notifications")]
    // SAFETY: the structure is plain data of the size that the request names; the kernel reads it.
    unsafe {
        let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
        answer.id = id;
        answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        check(libc::ioctl(
            listener.as_raw_fd(),
            SECCOMP_IOCTL_NOTIF_SEND,
            &raw const answer,
        ))
        .map(drop)
    }
}

/// The kernel's Landlock version, if it has any.
pub(crate) fn landlock_abi() -> Option<u32> {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    #[expect(unsafe_code, reason = "no safe wrapper for the version query")]
    // SAFETY: with this flag the kernel reads no memory and makes no descriptor.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
