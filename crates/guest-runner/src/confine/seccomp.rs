//! System calls: what the kernel does when a job's code makes one is said by the filter of its language, which was compiled
//! from `profiles/seccomp` when this program was.
//!
//! ```text
//! call ──► filter ─┬─ allowed: made
//!                  ├─ refused: fails with an error
//!                  └─ ends the job: the caller is stopped before it, the listener is told which call it was, the job is killed
//! ```
//!
//! The kernel remembers which calls are allowed whatever their arguments (Linux 5.11 and later), and does not run the filter
//! for those.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use libc::sock_filter;
use protocol::Language;
use serde::{Deserialize, Serialize};

use crate::sys;

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_I386` of <linux/audit.h>.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
/// The bit that calls of x32 have (`__X32_SYSCALL_BIT` of <asm/unistd.h>).
const X32: u32 = 0x4000_0000;

const fn filter(language: Language) -> &'static [sock_filter] {
    match language {
        Language::Python => PYTHON,
        Language::Bash => BASH,
        Language::Node => NODE,
        Language::Ruby => RUBY,
        Language::Rust => RUST,
    }
}

/// Whether this kernel can do what the filters need.
pub(crate) fn available() -> bool {
    sys::can_filter()
}

/// Has this process, which has `no_new_privs`, and all that it starts live under the filter of `language` from now on. The
/// listener is told of calls that end the job, and with `exits` of every `exit_group`.
///
/// There is none where the kernel cannot tell (before Linux 5.0), or where somebody outside listens already: then the kernel
/// ends the process that makes such a call.
pub(crate) fn install(language: Language, exits: bool) -> io::Result<Option<OwnedFd>> {
    let filter = filter(language);
    let allow = libc::SECCOMP_RET_ALLOW;
    let told = if exits { EXIT } else { allow };
    match sys::filter_and_listen(&mut returning(filter, KILL, told)) {
        Ok(listener) => Ok(Some(listener)),
        Err(_) => {
            let kill = libc::SECCOMP_RET_KILL_PROCESS;
            sys::filter(&mut returning(filter, kill, allow)).map(|()| None)
        }
    }
}

/// The filter with these in the places of [`KILL`] and [`EXIT`].
fn returning(filter: &[sock_filter], kill: u32, exit: u32) -> Vec<sock_filter> {
    const RETURN: u16 = 0x06;
    let value = |step: &sock_filter| match (step.code, step.k) {
        (RETURN, KILL) => kill,
        (RETURN, EXIT) => exit,
        (_, other) => other,
    };
    filter
        .iter()
        .map(|step| sock_filter {
            k: value(step),
            ..*step
        })
        .collect()
}

/// A system call, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// One of the `AUDIT_ARCH_` constants of <linux/audit.h>.
    pub(crate) architecture: u32,
    pub(crate) number: u32,
}

impl Call {
    /// Whether it is the end of a process.
    pub(crate) fn is_exit(self) -> bool {
        self.architecture == X86_64 && i64::from(self.number) == libc::SYS_exit_group
    }
}

/// Its name; after a colon where it is made in another way than programs for 64 bits make it, and its number where it has no
/// name.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x32 = self.architecture == X86_64 && self.number & X32 != 0;
        let number = if x32 { self.number & !X32 } else { self.number };
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let native = || syscalls::x86_64::Sysno::new(index).map(|call| call.name());
        let (prefix, name) = match self.architecture {
            X86_64 if x32 => ("x32:", native()),
            X86_64 => ("", native()),
            I386 => ("i386:", syscalls::x86::Sysno::new(index).map(|call| call.name())),
            _ => ("foreign:", None),
        };
        match name {
            Some(name) => write!(f, "{prefix}{name}"),
            None => write!(f, "{prefix}{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(filter: &[sock_filter]) -> Vec<u32> {
        let returns = filter.iter().filter(|step| step.code == 6);
        returns.map(|step| step.k).collect()
    }

    #[test]
    fn every_language_has_one_that_kills_and_tells_of_exits() {
        for language in Language::ALL {
            let filter = filter(language);
            assert!(values(filter).contains(&KILL) && values(filter).contains(&EXIT));
            let alone = returning(filter, libc::SECCOMP_RET_KILL_PROCESS, libc::SECCOMP_RET_ALLOW);
            let notifies = |value: &u32| value & 0xffff_0000 == libc::SECCOMP_RET_USER_NOTIF;
            assert!(!values(&alone).iter().any(notifies));
            assert_eq!(alone.len(), filter.len());
        }
    }

    #[test]
    fn calls_have_names() {
        let name = |architecture, number| Call { architecture, number }.to_string();
        assert_eq!(name(X86_64, 165), "mount");
        assert_eq!(name(X86_64, X32 | 165), "x32:mount");
        assert_eq!(name(I386, 21), "i386:mount");
        assert_eq!(name(X86_64, 1023), "1023");
        assert_eq!(name(7, 21), "foreign:21");
    }
}
