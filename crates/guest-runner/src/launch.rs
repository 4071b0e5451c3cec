//! A job's outer process, as the runner holds it: see [`crate::stage`] for what it does.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use protocol::frame::{encode, encode_message};
use protocol::{ErrorCode, HostError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use serde::Serialize;

use crate::confine::cgroup::Cgroup;
use crate::failure::Doing as _;
use crate::guest::Guest;
use crate::reap::Process;
use crate::stage::{self, Lease, Setup};

/// How long writing to a stage may block.
const HAND_OVER: Duration = Duration::from_secs(30);

/// A job's outer process. Dropped, everything below it dies.
pub(crate) struct Stage {
    pub(crate) process: Process,
    pub(crate) control: UnixStream,
    pub(crate) output: [File; 2],
}

impl Stage {
    /// Starts a stage that runs the job in `payload`, or without one, a stage that waits for its job.
    pub(crate) fn spawn(guest: &Guest, setup: &Setup, payload: Option<&[u8]>) -> Result<Self, HostError> {
        let (control, theirs) = UnixStream::pair().doing(|| "make a socket pair".to_owned())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("guest-runner").arg(stage::ARGUMENT).env_clear();
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut child, process) = guest
            .reaper
            .spawn(&mut command)
            .doing(|| "start a job's stage".to_owned())?;
        drop(command);
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(HostError::new(ErrorCode::Internal, "a stage has no output"));
        };
        let output = [OwnedFd::from(stdout), OwnedFd::from(stderr)].map(File::from);
        let stage = Self {
            process,
            control,
            output,
        };
        stage
            .set_up(setup, payload)
            .doing(|| "set a job's stage up".to_owned())?;
        Ok(stage)
    }

    fn set_up(&self, setup: &Setup, payload: Option<&[u8]>) -> io::Result<()> {
        for stream in &self.output {
            fcntl_setfl(stream, OFlags::NONBLOCK)?;
        }
        self.write(setup, payload)
    }

    /// Gives a stage that waits its job.
    pub(crate) fn release(&self, lease: &Lease, payload: &[u8]) -> Result<(), HostError> {
        let written = self.write(lease, Some(payload));
        Ok(written.doing(|| "hand a job to its stage".to_owned())?)
    }

    /// Writes a message and the job, with a deadline.
    fn write(&self, message: &impl Serialize, payload: Option<&[u8]>) -> io::Result<()> {
        let mut frames = encode_message(message).map_err(io::Error::other)?;
        if let Some(payload) = payload {
            frames.extend(encode(payload).map_err(io::Error::other)?);
        }
        self.control.set_nonblocking(false)?;
        self.control.set_write_timeout(Some(HAND_OVER))?;
        (&self.control).write_all(&frames)?;
        self.control.set_nonblocking(true)
    }

    /// Whether the stage says something, or ends, within `limit`.
    pub(crate) fn stirs_within(&self, limit: Duration) -> bool {
        let timeout = Timespec::try_from(limit).unwrap_or_default();
        let mut watched = [PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN)];
        poll(&mut watched, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }

    pub(crate) fn kill(&self, cgroup: Option<&Cgroup>) {
        let _ = self.control.shutdown(Shutdown::Write);
        if let Some(cgroup) = cgroup {
            cgroup.kill();
        }
    }
}
