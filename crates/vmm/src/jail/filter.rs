//! A seccomp filter for VMMs, on before the first instruction of theirs, and the answer to the one call that it asks us about.
//!
//! A VMM gets every socket that it needs from us, and makes none. What else it refuses no VMM has a use for, and a kernel has had
//! faults in. What the VMM allows itself after its start is its own filter's matter (QEMU's `-sandbox`, for one).
//!
//! QEMU before 8.2 opens the file that is a clone's memory for writing, although it writes nothing there: a QEMU that its guest has
//! broken out of could change the memory of all later clones. So it is not given the file to open at all: the filter stops the
//! call that opens a file like that, and we answer it with a descriptor of our choice, of a file opened for reading only.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::arch;

/// Refused with EPERM.
const REFUSED: [libc::c_long; 41] = [
    // Whatever is to be reached is there already, as a descriptor.
    libc::SYS_socket,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The root that was made for it.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Large, and of no use to a VMM.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_quotactl,
    libc::SYS_fanotify_init,
    // The host as a whole.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
];
/// Refused with ENOSYS, which makes programs do without: its requests are seen by no filter.
const MISSING: libc::c_long = libc::SYS_io_uring_setup;

/// Where things are in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const OPEN_FLAGS: u32 = 16 + 2 * 8;
/// The flags of a file that is opened to read and write, is there already, and survives exec: that is how QEMU opens memory, and
/// nothing else.
const MEMORY_MASK: u32 = (libc::O_ACCMODE | libc::O_CLOEXEC | libc::O_CREAT).cast_unsigned();
const MEMORY_FLAGS: u32 = libc::O_RDWR.cast_unsigned();

/// The program; with `asks` it stops at the opening of memory.
pub(super) fn program(asks: bool) -> Vec<libc::sock_filter> {
    let errno = |errno: i32| give(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
    let mut code = vec![
        load(ARCHITECTURE),
        unless_equal(arch::AUDIT, 1),
        skip(1),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    if let Some(first) = arch::FIRST_FOREIGN_CALL {
        code.extend([unless_at_least(first, 1), give(libc::SECCOMP_RET_KILL_PROCESS)]);
    }
    for call in REFUSED {
        code.extend([unless_equal(number(call), 1), errno(libc::EPERM)]);
    }
    code.extend([unless_equal(number(MISSING), 1), errno(libc::ENOSYS)]);
    if asks {
        code.extend([
            unless_equal(number(libc::SYS_openat), 4),
            load(OPEN_FLAGS),
            and(MEMORY_MASK),
            unless_equal(MEMORY_FLAGS, 1),
            give(libc::SECCOMP_RET_USER_NOTIF),
        ]);
    }
    code.push(give(libc::SECCOMP_RET_ALLOW));
    code
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("numbers of system calls are small")
}

fn instruction(code: u32, value: u32, unless: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: unless,
        k: value,
    }
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0)
}

fn and(mask: u32) -> libc::sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0)
}

/// Skips so many instructions unless what was loaded is `value`.
fn unless_equal(value: u32, skipped: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skipped)
}

fn unless_at_least(value: u32, skipped: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, skipped)
}

fn skip(instructions: u32) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, instructions, 0)
}

fn give(action: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0)
}

/// Puts the filter on this thread. Gives a listener where the filter asks.
pub(super) fn apply(program: &[libc::sock_filter], asks: bool) -> rustix::io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| rustix::io::Errno::INVAL)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    let flags = if asks {
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
    } else {
        0
    };
    #[expect(unsafe_code, reason = "there is no safe wrapper for seccomp(2)")]
    // SAFETY: the program is `len` instructions, which the kernel only reads, and the descriptor is one that it has just made.
    unsafe {
        let result = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        );
        if result < 0 {
            return Err(rustix::io::Errno::from_raw_os_error(*libc::__errno_location()));
        }
        Ok(asks.then(|| OwnedFd::from_raw_fd(result as i32)))
    }
}

/// Answers what the filter asks about with a copy of `file`, as long as the process lives.
pub(super) fn answer(listener: OwnedFd, file: OwnedFd) -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "tokio cannot see by itself that a descriptor stays the same"
    )]
    // SAFETY: an `OwnedFd` gives the same descriptor, open, until it is dropped.
    let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?;
    tokio::spawn(async move {
        while let Ok(mut ready) = listener.readable().await {
            let listener = listener.get_ref().as_fd();
            let state = state(listener);
            if state.contains(PollFlags::IN) {
                // One that was killed meanwhile has no use for an answer.
                if let Err(error) = answer_one(listener, file.as_fd()) {
                    tracing::debug!(%error, "A VMM did not get its memory");
                }
            } else if state.contains(PollFlags::HUP) {
                return;
            } else {
                ready.clear_ready();
            }
        }
    });
    Ok(())
}

/// Whether somebody asks, and whether anybody is left who could. Older kernels wait for a question that nobody asks.
fn state(listener: BorrowedFd<'_>) -> PollFlags {
    let mut listener = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    match poll(&mut listener, Some(&Timespec::default())) {
        Ok(_) => listener[0].revents(),
        Err(_) => PollFlags::HUP,
    }
}

fn answer_one(listener: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    #[expect(unsafe_code, reason = "there is no safe wrapper for these requests")]
    // SAFETY: each request takes a struct of its own kind (seccomp_unotify(2)), and all of them are plain data.
    unsafe {
        let mut asked: libc::seccomp_notif = std::mem::zeroed();
        check(libc::ioctl(
            listener.as_raw_fd(),
            SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut asked,
        ))?;
        let mut given: libc::seccomp_notif_addfd = std::mem::zeroed();
        given.id = asked.id;
        given.srcfd = file.as_raw_fd().cast_unsigned();
        let descriptor = check(libc::ioctl(
            listener.as_raw_fd(),
            SECCOMP_IOCTL_NOTIF_ADDFD,
            &raw mut given,
        ))?;
        let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
        answer.id = asked.id;
        answer.val = descriptor.into();
        check(libc::ioctl(
            listener.as_raw_fd(),
            SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut answer,
        ))
        .map(drop)
    }
}

/// `include/uapi/linux/seccomp.h`, as numbers (ioctl(2)).
const SECCOMP_IOCTL_NOTIF_RECV: libc::Ioctl = request(3, 0, size_of::<libc::seccomp_notif>());
const SECCOMP_IOCTL_NOTIF_SEND: libc::Ioctl = request(3, 1, size_of::<libc::seccomp_notif_resp>());
const SECCOMP_IOCTL_NOTIF_ADDFD: libc::Ioctl = request(1, 3, size_of::<libc::seccomp_notif_addfd>());

/// `_IOC(direction, '!', number, size)`.
const fn request(direction: u64, number: u64, size: usize) -> libc::Ioctl {
    (direction << 30 | (size as u64) << 16 | (b'!' as u64) << 8 | number) as libc::Ioctl
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernel_s_numbers() {
        assert_eq!(SECCOMP_IOCTL_NOTIF_RECV, 0xc050_2100);
        assert_eq!(SECCOMP_IOCTL_NOTIF_SEND, 0xc018_2101);
        assert_eq!(SECCOMP_IOCTL_NOTIF_ADDFD, 0x4018_2103);
    }

    #[test]
    fn jumps_stay_inside() {
        for asks in [false, true] {
            let code = program(asks);
            for (index, instruction) in code.iter().enumerate() {
                let target = index + 1 + usize::from(instruction.jf);
                assert!(target < code.len() || u32::from(instruction.code) & 7 == libc::BPF_RET);
            }
            assert!(code.len() <= 128, "{} instructions at every call", code.len());
        }
    }
}
