//! Programs of two instructions, `return 0`, on a cgroup: no packet gets in or out, and no Internet socket is made.
//!
//! A network namespace without a device that is up already comes to that. This holds also where that does not: for a process that
//! got into another one, and for a descriptor of a socket that was made elsewhere. Ids and layouts are those of
//! `include/uapi/linux/bpf.h`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_QUERY: libc::c_long = 16;
/// `BPF_F_QUERY_EFFECTIVE`: also what is attached further up.
const EFFECTIVE: u32 = 1;
/// `BPF_F_ALLOW_MULTI`: others may attach theirs too, and all have to agree.
const ALLOW_MULTI: u32 = 2;
/// Where programs go, as program type and attach type: `CGROUP_SKB` at `INET_INGRESS` and `INET_EGRESS`, `CGROUP_SOCK` at
/// `INET_SOCK_CREATE`.
const HOOKS: [(u32, u32); 3] = [(8, 0), (8, 1), (9, 2)];

/// `r0 = 0; exit`.
const DENY: [u64; 2] = [0xb7, 0x95];

#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    attach_type: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

/// Sees to it that nothing in the cgroup `parent`, and so in those below it, has a network.
pub(super) fn deny_network(parent: BorrowedFd<'_>) -> io::Result<()> {
    for (program_type, attach_type) in HOOKS {
        if !is_attached(parent, attach_type)? {
            attach(parent, load(program_type, attach_type)?.as_fd(), attach_type)?;
        }
    }
    Ok(())
}

/// Whether one of ours is attached to the cgroup or above it; what others do that are, nobody here knows.
fn is_attached(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<bool> {
    let mut ids = [0_u32; 64];
    let mut query = Query {
        target: raw(cgroup),
        attach_type,
        flags: EFFECTIVE,
        ids: ids.as_mut_ptr().addr() as u64,
        count: 64,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut query)?;
    let found = ids.iter().take(query.count as usize);
    Ok(found.copied().any(|id| is_ours(id).unwrap_or(false)))
}

/// Whether the program of that id is one of [`DENY`], by its name.
fn is_ours(id: u32) -> io::Result<bool> {
    #[repr(C)]
    struct Get {
        id: u32,
        next: u32,
        flags: u32,
    }
    #[repr(C)]
    struct InfoOf {
        fd: u32,
        length: u32,
        info: u64,
    }
    const GET_FD_BY_ID: libc::c_long = 13;
    const INFO_BY_FD: libc::c_long = 15;
    /// Where the name is in `struct bpf_prog_info`, and how much of that is asked for.
    const NAME: usize = 64;
    const INFO: usize = NAME + 16;
    let program = bpf(
        GET_FD_BY_ID,
        &mut Get {
            id,
            next: 0,
            flags: 0,
        },
    )?;
    let program = own(program);
    let mut info = [0_u8; INFO];
    bpf(
        INFO_BY_FD,
        &mut InfoOf {
            fd: raw(program.as_fd()),
            length: INFO as u32,
            info: info.as_mut_ptr().addr() as u64,
        },
    )?;
    Ok(info[NAME..] == NAME_OF_OURS)
}

/// As `bpftool prog` shows it.
const NAME_OF_OURS: [u8; 16] = *b"runner_deny_all\0";

fn load(program_type: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let mut load = Load {
        program_type,
        instructions: DENY.len() as u32,
        code: DENY.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        name: NAME_OF_OURS,
        attach_type,
        ..Load::default()
    };
    bpf(PROG_LOAD, &mut load).map(own)
}

fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, attach_type: u32) -> io::Result<()> {
    let mut attach = Attach {
        target: raw(cgroup),
        program: raw(program),
        attach_type,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &mut attach).map(drop)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

#[expect(unsafe_code, reason = "bpf(2) returns a plain number")]
fn own(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

#[expect(unsafe_code, reason = "there is no safe wrapper for bpf(2)")]
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is the start of the union that this command takes, of the length that is given; the kernel takes the rest
    // of the union for zero. What it points to lives as long as the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
