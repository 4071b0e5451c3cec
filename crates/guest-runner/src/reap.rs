//! Waiting for children. PID 1 inherits every orphan, so one thread waits for all children, hands the end of those
//! that the runner spawned to their owners, and forgets the rest.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal};

/// Spawns processes and learns of their ends.
#[derive(Clone, Default)]
pub(crate) struct Reaper {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    owned: Mutex<HashMap<i32, Sender<()>>>,
    spawned: Condvar,
}

/// A child of the runner. Dropped before it has ended, it is killed.
pub(crate) struct Process {
    handle: Option<OwnedFd>,
    ended: Receiver<()>,
}

impl Reaper {
    /// Starts the thread that waits.
    pub(crate) fn start() -> io::Result<Self> {
        let reaper = Self::default();
        let shared = Arc::clone(&reaper.shared);
        std::thread::Builder::new()
            .name("reaper".to_owned())
            .stack_size(crate::THREAD_STACK)
            .spawn(move || shared.reap())?;
        Ok(reaper)
    }

    /// Spawns `command`. The child's own handles for its standard streams are in the first part of the answer.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<(Child, Process)> {
        // Held until the child is known, so that its end cannot be taken for an orphan's.
        let mut owned = self.shared.lock();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let (sender, ended) = channel();
        owned.insert(pid, sender);
        let handle = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.shared.spawned.notify_all();
        Ok((child, Process { handle, ended }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Sender<()>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap(&self) {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, _))) => {
                    if let Some(owner) = self.lock().remove(&pid.as_raw_nonzero().get()) {
                        let _ = owner.send(());
                    }
                }
                Err(rustix::io::Errno::CHILD) => self.until_there_are_children(),
                Ok(None) | Err(_) => {}
            }
        }
    }

    fn until_there_are_children(&self) {
        let mut owned = self.lock();
        while owned.is_empty() {
            owned = self.spawned.wait(owned).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Process {
    /// Whether it has ended, waiting up to `limit` for that.
    pub(crate) fn ended_within(&self, limit: Duration) -> bool {
        // A sender that is gone has sent.
        !matches!(
            self.ended.recv_timeout(limit),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        )
    }

    pub(crate) fn kill(&self) {
        if let Some(handle) = &self.handle {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_hear_of_their_own_children() {
        let reaper = Reaper::start().unwrap();
        let (_child, quick) = reaper.spawn(&mut Command::new("true")).unwrap();
        assert!(quick.ended_within(Duration::from_secs(10)));
        let (_child, slow) = reaper.spawn(Command::new("sleep").arg("600")).unwrap();
        assert!(!slow.ended_within(Duration::from_millis(50)));
        slow.kill();
        assert!(slow.ended_within(Duration::from_secs(10)));
    }
}
