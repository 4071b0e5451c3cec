//! The exit of a job's main process, learnt when it asks for it and not when it is gone: until then the kernel takes its memory
//! apart page by page, which for an interpreter takes longer than a short job. A seccomp filter that allows everything tells of
//! every `exit_group` before it happens (seccomp_unotify(2)); what ends in any other way is waited for as ever.
//!
//! ```text
//! code ── exit_group(3) ──► filter ──► listener, held by PID 1 of the job ── the main process? its exit status is 3
//!                                                                        └─ another? it may go on
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::Pid;

use crate::outcome::Exit;
use crate::sys;

/// What the message that brings the listener says.
const HERE: &[u8] = b"\n";

/// Tells of exits.
pub(crate) struct Exits(OwnedFd);

impl Exits {
    /// In the process that is to be watched: from now on its exits, and those of all that it starts, go to whoever is at the
    /// other end of `channel`. A kernel that cannot do it leaves everything as it is.
    pub(crate) fn tell(channel: &UnixStream) -> io::Result<()> {
        let Ok(listener) = sys::listen_for_exits() else {
            return Ok(());
        };
        let descriptors = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(
            channel,
            &[IoSlice::new(HERE)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Reads all that is said on `channel` until it is closed: the listener, if one came, and the rest.
    pub(crate) fn receive(channel: &UnixStream) -> io::Result<(Option<Self>, Vec<u8>)> {
        let (mut exits, mut said) = (None, Vec::new());
        loop {
            let mut buffer = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                channel,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            let received = match received {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    exits = exits.or(descriptors.map(Self).next());
                }
            }
            if received.bytes == 0 {
                return Ok((exits, said));
            }
            said.extend(&buffer[..received.bytes]);
        }
    }

    /// Takes one notice; an answer if it is of `main`, which then stays where it is, not to run any more. Any other process
    /// goes on.
    pub(crate) fn of(&self, main: Pid) -> Option<Exit> {
        let notice = sys::next_exit(self.0.as_fd()).ok()?;
        if notice.process == main.as_raw_nonzero().get() {
            return Some(Exit::Code(notice.status & 0xff));
        }
        // One that was killed meanwhile needs no answer.
        let _ = sys::let_exit(self.0.as_fd(), notice.id);
        None
    }
}

impl AsFd for Exits {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
