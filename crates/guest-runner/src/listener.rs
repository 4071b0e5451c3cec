//! What a job's filter tells of (see [`crate::confine::seccomp`]): calls that end the job, and exits. An exit is learnt when the
//! main process asks for it and not when it is gone: until then the kernel takes its memory apart page by page, which for an
//! interpreter takes longer than a short job. What ends in any other way is waited for as ever (seccomp_unotify(2)).
//!
//! ```text
//! code ── exit_group(3) ──► filter ──► listener, held by PID 1 of the job ─┬─ the main process? its exit status is 3
//!      ── mount(…) ───────►                                               ├─ another's exit? it may go on
//!                                                                         └─ no exit? it ends the job, whoever made it
//! ```
//!
//! Who makes a call that ends the job waits in it until it is killed. Should the listener be gone the call fails.

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

/// Hears of exits, and of calls that end the job.
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Gives it to whoever is at the other end of `channel`.
    pub(crate) fn hand_over(listener: &OwnedFd, channel: &UnixStream) -> io::Result<()> {
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
        let (mut listener, mut said) = (None, Vec::new());
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
                    listener = listener.or(descriptors.map(Self).next());
                }
            }
            if received.bytes == 0 {
                return Ok((listener, said));
            }
            said.extend(&buffer[..received.bytes]);
        }
    }

    /// Takes one notice, which must be there. An answer if it is the end of the job: of `main`, or of whoever made a call that
    /// ends it; that stays where it is, not to run any more. Any other process that exits goes on.
    pub(crate) fn hear(&self, main: Pid) -> Option<Exit> {
        let notice = sys::next_notice(self.0.as_fd()).ok()?;
        if !notice.call.is_exit() {
            return Some(Exit::Forbidden(notice.call));
        }
        if notice.process == main.as_raw_nonzero().get() {
            return Some(Exit::Code(notice.argument & 0xff));
        }
        // One that was killed meanwhile needs no answer.
        let _ = sys::let_go_on(self.0.as_fd(), notice.id);
        None
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
