//! A VMM's process: spawned so that it cannot outlive its owner, watched through a pidfd, killed and reaped on drop.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};
use rustix::thread::disable_transparent_huge_pages;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::console::Console;
use crate::error::VmmError;

/// How long a dead VMM's pipes may take to be read to their end; another process could hold them open.
const DRAIN: Duration = Duration::from_millis(200);
/// Lines of standard error, and of the console, in an error.
const LAST_LINES: usize = 5;

/// How a VMM's process ended. Unknown where this process was started with SIGCHLD ignored, so that the kernel reaps its
/// children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmmExit(Option<ExitStatus>);

impl VmmExit {
    /// The exit code, when no signal ended it.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        self.0?.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        self.0?.signal()
    }
}

impl fmt::Display for VmmExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(status) => status.fmt(f),
            None => f.write_str("an unknown status"),
        }
    }
}

/// A VMM's process. Its standard output is the guest's serial console.
#[derive(Debug)]
pub struct VmmProcess {
    child: Mutex<Child>,
    pidfd: AsyncFd<OwnedFd>,
    console: Console,
    stderr: Console,
}

impl VmmProcess {
    /// Starts `command` with `inherit` open in it under the same numbers as here, standard input empty, standard output
    /// read as the console (and copied to `keep_console`), standard error kept for errors.
    ///
    /// The process is its own process group, so that a terminal's Ctrl-C reaches only us, and is killed by the kernel
    /// when the *thread* that called this ends: call it from one that lives as long as the machine should.
    ///
    /// # Errors
    /// [`VmmError::Spawn`], and [`VmmError::State`] when the console's file cannot be made.
    pub fn spawn(
        mut command: Command,
        inherit: Vec<OwnedFd>,
        keep_console: Option<&Path>,
    ) -> Result<Self, VmmError> {
        let path = PathBuf::from(command.get_program());
        let failed = |source| VmmError::Spawn {
            path: path.clone(),
            source,
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        die_with_parent(&mut command, inherit);
        let mut child = command.spawn().map_err(failed)?;
        drop(command); // and with it our copies of the inherited descriptors
        let captured = capture(&mut child, keep_console);
        match captured {
            Ok((pidfd, console, stderr)) => Ok(Self {
                child: Mutex::new(child),
                pidfd,
                console,
                stderr,
            }),
            Err(error) => {
                reap(&mut child);
                Err(match (keep_console, error) {
                    (Some(path), CaptureError::Keep(source)) => VmmError::state("create", path, source),
                    (_, CaptureError::Keep(source) | CaptureError::Pipe(source)) => failed(source),
                })
            }
        }
    }

    /// The process id; its own until this value is dropped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// The guest's serial console.
    #[must_use]
    pub fn console(&self) -> Console {
        self.console.clone()
    }

    /// What the VMM wrote on standard error.
    #[must_use]
    pub fn stderr(&self) -> Console {
        self.stderr.clone()
    }

    /// Waits for the end of the process. May be dropped and called again, and by several at a time.
    pub async fn exited(&self) -> VmmExit {
        loop {
            // Fails only when the runtime is being shut down, and nobody waits any more.
            let Ok(mut ready) = self.pidfd.readable().await else {
                return std::future::pending().await;
            };
            if let Some(exit) = self.try_exited() {
                return exit;
            }
            ready.clear_ready();
        }
    }

    /// How the process ended, if it has.
    pub fn try_exited(&self) -> Option<VmmExit> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.try_wait() {
            Ok(status) => status.map(|status| VmmExit(Some(status))),
            Err(_) => Some(VmmExit(None)),
        }
    }

    /// Waits for the end of the process, and makes an error of it.
    pub async fn died(&self) -> VmmError {
        let exit = self.exited().await;
        let _ = timeout(DRAIN, async {
            tokio::join!(self.stderr.ended(), self.console.ended())
        })
        .await;
        VmmError::Died {
            exit,
            stderr: self.stderr.tail_lines(LAST_LINES),
            console: self.console.tail_lines(LAST_LINES),
        }
    }

    /// Sends SIGKILL. Does nothing to a process that has ended.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }
}

impl Drop for VmmProcess {
    fn drop(&mut self) {
        reap(self.child.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

enum CaptureError {
    Keep(io::Error),
    Pipe(io::Error),
}

fn capture(
    child: &mut Child,
    keep_console: Option<&Path>,
) -> Result<(AsyncFd<OwnedFd>, Console, Console), CaptureError> {
    let pipes = child
        .stdout
        .take()
        .map(OwnedFd::from)
        .zip(child.stderr.take().map(OwnedFd::from));
    let Some((stdout, stderr)) = pipes else {
        unreachable!("both were asked for")
    };
    let receiver = |fd| pipe::Receiver::from_owned_fd(fd).map_err(CaptureError::Pipe);
    let stderr = Console::capture(receiver(stderr)?, None).map_err(CaptureError::Pipe)?;
    let console = Console::capture(receiver(stdout)?, keep_console).map_err(CaptureError::Keep)?;
    let pidfd = watch_process(child).map_err(CaptureError::Pipe)?;
    Ok((pidfd, console, stderr))
}

/// Becomes readable when the process has ended.
#[expect(
    unsafe_code,
    reason = "tokio cannot see by itself that a descriptor stays the same"
)]
fn watch_process(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    // SAFETY: an `OwnedFd` gives the same descriptor, open, until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

fn reap(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Has the kernel kill the child when this thread ends, and keeps `inherit` open across exec.
#[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
fn die_with_parent(command: &mut Command, inherit: Vec<OwnedFd>) {
    let parent = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above.
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for fd in &inherit {
            rustix::io::fcntl_setfd(fd.as_fd(), FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes only system calls: it allocates nothing and takes no lock.
    unsafe { command.pre_exec(before_exec) };
}

/// Keeps transparent huge pages out of the process: of a page that a clone writes to, it should own no more than that.
#[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
pub(crate) fn without_huge_pages(command: &mut Command) {
    // The setting lasts over exec; a kernel that does not know it has no huge pages.
    let before_exec = || {
        let _ = disable_transparent_huge_pages(true);
        Ok(())
    };
    // SAFETY: the closure makes one system call: it allocates nothing and takes no lock.
    unsafe { command.pre_exec(before_exec) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn output_exit_and_errors_are_captured() {
        let process =
            VmmProcess::spawn(shell("echo console; echo broken >&2; exit 3"), vec![], None).unwrap();
        let VmmError::Died {
            exit,
            stderr,
            console,
        } = process.died().await
        else {
            panic!()
        };
        assert_eq!((exit.code(), exit.signal()), (Some(3), None));
        assert_eq!(stderr, ["broken"]);
        assert_eq!(console, ["console"]);
        assert_eq!(process.exited().await, exit, "the exit can be asked for again");
    }

    #[tokio::test]
    async fn inherited_descriptors_keep_their_number_and_close_here() {
        let (mut ours, theirs) = io::pipe().unwrap();
        let script = format!("echo hello >/proc/self/fd/{}", theirs.as_raw_fd());
        let process = VmmProcess::spawn(shell(&script), vec![theirs.into()], None).unwrap();
        process.exited().await;
        let mut text = String::new();
        io::Read::read_to_string(&mut ours, &mut text).unwrap();
        assert_eq!(text, "hello\n");
    }

    #[tokio::test]
    async fn drop_kills_and_reaps() {
        let process = VmmProcess::spawn(shell("exec sleep 1000"), vec![], None).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[tokio::test]
    async fn a_kill_shows_as_its_signal() {
        let process = VmmProcess::spawn(shell("exec sleep 1000"), vec![], None).unwrap();
        process.kill();
        assert_eq!(process.exited().await.signal(), Some(9));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = VmmProcess::spawn(Command::new("/nonexistent/vmm"), vec![], None).unwrap_err();
        assert_eq!(error.to_string(), "Cannot start /nonexistent/vmm");
    }
}
