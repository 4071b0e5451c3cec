//! A VMM's process: spawned so that it cannot outlive its owner, watched through a pidfd, killed and reaped on drop.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::console::Console;
use crate::error::VmmError;
use crate::jail::{self, Child, Launch, Layer};

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
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// How it ended, once it has been reaped.
    exit: Mutex<Option<VmmExit>>,
    console: Console,
    stderr: Console,
    layers: Vec<Layer>,
}

impl VmmProcess {
    /// Starts a program with standard input empty, standard output read as the console (and copied to `keep_console`), standard
    /// error kept for errors.
    ///
    /// The process is its own process group, so that a terminal's Ctrl-C reaches only us, and is killed by the kernel
    /// when the *thread* that called this ends: call it from one that lives as long as the machine should.
    ///
    /// # Errors
    /// [`VmmError::Spawn`], [`VmmError::Isolation`], and [`VmmError::State`] when the console's file cannot be made.
    pub(crate) fn spawn(launch: Launch, keep_console: Option<&Path>) -> Result<Self, VmmError> {
        let program = launch.program.clone();
        let child = jail::spawn(launch)?;
        let pid = child.pid;
        Self::watch(child, keep_console).map_err(|error| {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
            match (keep_console, error) {
                (Some(path), CaptureError::Keep(source)) => VmmError::state("create", path, source),
                (_, CaptureError::Keep(source) | CaptureError::Pipe(source)) => VmmError::Spawn {
                    path: program,
                    source,
                },
            }
        })
    }

    fn watch(child: Child, keep_console: Option<&Path>) -> Result<Self, CaptureError> {
        let receiver = |fd| pipe::Receiver::from_owned_fd(fd).map_err(CaptureError::Pipe);
        let stderr = Console::capture(receiver(child.stderr)?, None).map_err(CaptureError::Pipe)?;
        let console = Console::capture(receiver(child.stdout)?, keep_console).map_err(CaptureError::Keep)?;
        Ok(Self {
            pid: child.pid,
            pidfd: watch_process(child.pidfd).map_err(CaptureError::Pipe)?,
            exit: Mutex::new(None),
            console,
            stderr,
            layers: child.layers,
        })
    }

    /// The process id; its own until this value is dropped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// The layers of isolation that it is in.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Adds a layer that the VMM has applied by itself.
    pub(crate) fn also(&mut self, layer: Layer) {
        self.layers.push(layer);
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
        self.reap(WaitOptions::NOHANG)
    }

    fn reap(&self, options: WaitOptions) -> Option<VmmExit> {
        let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if exit.is_none() {
            *exit = match waitpid(Some(self.pid), options) {
                Ok(None) => None,
                Ok(Some((_, status))) => Some(VmmExit(Some(ExitStatus::from_raw(status.as_raw())))),
                Err(_) => Some(VmmExit(None)),
            };
        }
        *exit
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
        self.kill();
        self.reap(WaitOptions::empty());
    }
}

enum CaptureError {
    Keep(io::Error),
    Pipe(io::Error),
}

/// Becomes readable when the process has ended.
#[expect(
    unsafe_code,
    reason = "tokio cannot see by itself that a descriptor stays the same"
)]
fn watch_process(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same descriptor, open, until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    use super::*;

    fn shell(script: &str) -> Launch {
        Launch {
            arguments: vec!["-c".into(), script.into()],
            ..Launch::of(Path::new("/bin/sh"))
        }
    }

    #[tokio::test]
    async fn output_exit_and_errors_are_captured() {
        let process = VmmProcess::spawn(shell("echo console; echo broken >&2; exit 3"), None).unwrap();
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
        let launch = Launch {
            inherit: vec![theirs.into()],
            ..shell(&script)
        };
        let process = VmmProcess::spawn(launch, None).unwrap();
        process.exited().await;
        let mut text = String::new();
        io::Read::read_to_string(&mut ours, &mut text).unwrap();
        assert_eq!(text, "hello\n");
    }

    #[tokio::test]
    async fn drop_kills_and_reaps() {
        let process = VmmProcess::spawn(shell("exec sleep 1000"), None).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[tokio::test]
    async fn a_kill_shows_as_its_signal() {
        let process = VmmProcess::spawn(shell("exec sleep 1000"), None).unwrap();
        process.kill();
        assert_eq!(process.exited().await.signal(), Some(9));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = VmmProcess::spawn(Launch::of(Path::new("/nonexistent/vmm")), None).unwrap_err();
        assert_eq!(error.to_string(), "Cannot start /nonexistent/vmm");
    }
}
