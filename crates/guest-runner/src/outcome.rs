//! What ended a job: from everything that was seen to one [`Termination`] and one exit code. Pure.

use protocol::Termination;
use protocol::job::Clock;
use serde::{Deserialize, Serialize};

use crate::confine::seccomp::Call;

/// Why the runner killed a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kill {
    Timeout(Clock),
    Output(&'static str),
    Memory,
    Processes,
    Disk,
    Cancelled,
}

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// It, or another process of the job, made a call that ends the job.
    Forbidden(Call),
}

/// Everything that was seen of a job's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The first reason for which the runner killed it.
    pub(crate) kill: Option<Kill>,
    /// How its main process ended; `None` when that was never learnt.
    pub(crate) exit: Option<Exit>,
    /// The kernel killed it for want of memory.
    pub(crate) out_of_memory: bool,
    /// It was refused a process.
    pub(crate) out_of_processes: bool,
    /// Its disk was full at the end.
    pub(crate) disk_full: bool,
    /// The most memory it had; 0 when not known.
    pub(crate) peak_bytes: u64,
    /// The processes it may have.
    pub(crate) pids: u64,
}

const TIMED_OUT: i32 = 124;
const KILLED: i32 = 137;

/// The verdict. A limit that was hit counts before the exit that it led to, also when the job was over before the runner
/// could kill it for that: it is the same end either way.
pub(crate) fn verdict(seen: &Seen) -> (Termination, i32) {
    match (&seen.kill, seen.exit) {
        (Some(Kill::Timeout(clock)), _) => (Termination::Timeout { clock: *clock }, TIMED_OUT),
        (Some(Kill::Output(stream)), _) => (output(stream), KILLED),
        (Some(Kill::Memory), _) => (oom(seen), KILLED),
        (Some(Kill::Processes), _) => (Termination::PidsLimit { limit: seen.pids }, KILLED),
        (Some(Kill::Disk), _) => (Termination::DiskFull, KILLED),
        (Some(Kill::Cancelled), _) => (Termination::Cancelled, KILLED),
        // It was killed for that and for nothing else.
        (None, Some(Exit::Forbidden(call))) => (seccomp(call), KILLED),
        (None, _) if seen.out_of_memory => (oom(seen), KILLED),
        (None, _) if seen.out_of_processes => (Termination::PidsLimit { limit: seen.pids }, KILLED),
        (None, _) if seen.disk_full => (Termination::DiskFull, KILLED),
        (None, Some(Exit::Code(code))) => (Termination::Exit, code),
        (None, Some(Exit::Signal(signal))) => (
            Termination::Signal {
                name: signal_name(signal),
            },
            128 + signal,
        ),
        (None, None) => (Termination::Signal { name: signal_name(9) }, KILLED),
    }
}

fn seccomp(call: Call) -> Termination {
    Termination::Seccomp {
        syscall: call.to_string(),
    }
}

fn oom(seen: &Seen) -> Termination {
    Termination::Oom {
        peak_bytes: seen.peak_bytes,
    }
}

fn output(stream: &str) -> Termination {
    Termination::OutputLimit {
        stream: stream.to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    let index = usize::try_from(signal)
        .ok()
        .and_then(|signal| signal.checked_sub(1));
    match index.and_then(|index| NAMES.get(index)) {
        Some(name) => (*name).to_owned(),
        None => format!("SIG{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit: Exit) -> Seen {
        Seen {
            kill: None,
            exit: Some(exit),
            out_of_memory: false,
            out_of_processes: false,
            disk_full: false,
            peak_bytes: 7,
            pids: 256,
        }
    }

    #[test]
    fn own_ends() {
        assert_eq!(verdict(&ended(Exit::Code(3))), (Termination::Exit, 3));
        let signal = Termination::Signal {
            name: "SIGSEGV".to_owned(),
        };
        assert_eq!(verdict(&ended(Exit::Signal(11))), (signal, 139));
        let realtime = Termination::Signal {
            name: "SIG34".to_owned(),
        };
        assert_eq!(verdict(&ended(Exit::Signal(34))), (realtime, 162));
    }

    #[test]
    fn kills_have_their_codes() {
        let killed = |kill| {
            verdict(&Seen {
                kill: Some(kill),
                ..ended(Exit::Signal(9))
            })
        };
        assert_eq!(
            killed(Kill::Timeout(Clock::Wall)),
            (Termination::Timeout { clock: Clock::Wall }, 124)
        );
        assert_eq!(
            killed(Kill::Timeout(Clock::Cpu)),
            (Termination::Timeout { clock: Clock::Cpu }, 124)
        );
        assert_eq!(killed(Kill::Output("stderr")), (output("stderr"), 137));
        assert_eq!(killed(Kill::Memory), (Termination::Oom { peak_bytes: 7 }, 137));
        assert_eq!(
            killed(Kill::Processes),
            (Termination::PidsLimit { limit: 256 }, 137)
        );
        assert_eq!(killed(Kill::Disk), (Termination::DiskFull, 137));
        assert_eq!(killed(Kill::Cancelled), (Termination::Cancelled, 137));
    }

    #[test]
    fn a_forbidden_call_counts_before_what_happened_on_the_way() {
        let call = Call {
            architecture: 0xc000_003e,
            number: 165,
        };
        let seen = Seen {
            out_of_processes: true,
            ..ended(Exit::Forbidden(call))
        };
        let mount = Termination::Seccomp {
            syscall: "mount".to_owned(),
        };
        assert_eq!(verdict(&seen), (mount, 137));
        let seen = Seen {
            kill: Some(Kill::Memory),
            ..seen
        };
        assert_eq!(verdict(&seen), (Termination::Oom { peak_bytes: 7 }, 137));
    }

    #[test]
    fn the_kernels_kill_is_told_from_a_signal_of_the_code() {
        let seen = Seen {
            out_of_memory: true,
            ..ended(Exit::Signal(9))
        };
        assert_eq!(verdict(&seen), (Termination::Oom { peak_bytes: 7 }, 137));
        assert_eq!(verdict(&ended(Exit::Signal(9))).1, 137);
    }

    #[test]
    fn an_end_of_its_own_does_not_hide_a_limit() {
        let seen = Seen {
            disk_full: true,
            ..ended(Exit::Code(1))
        };
        assert_eq!(verdict(&seen), (Termination::DiskFull, 137));
        let seen = Seen {
            out_of_processes: true,
            ..ended(Exit::Code(0))
        };
        assert_eq!(verdict(&seen), (Termination::PidsLimit { limit: 256 }, 137));
    }

    #[test]
    fn a_job_that_vanished_is_never_a_success() {
        let seen = Seen {
            exit: None,
            ..ended(Exit::Code(0))
        };
        assert_eq!(verdict(&seen).1, 137);
    }
}
