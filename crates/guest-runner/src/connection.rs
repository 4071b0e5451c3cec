//! One client's connection: a socket of whatever kind, requests in, frames out.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::frame::{FrameDecoder, FrameError, encode_message};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::clock;

/// How long a client may be silent before its first request, or between two.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a whole request may take once it has begun.
const REQUEST: Duration = Duration::from_secs(60);
/// How long a client may take nothing of what it is sent.
const STALLED: Duration = Duration::from_secs(30);

/// A connection. Its socket never blocks; what a client does not read yet is kept.
pub(crate) struct Connection {
    socket: UnixStream,
    decoder: FrameDecoder,
    begun: bool,
    outbox: Vec<u8>,
}

impl Connection {
    /// Takes a stream socket; reading and writing one is the same for all address families.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            decoder: FrameDecoder::default(),
            begun: false,
            outbox: Vec::new(),
        })
    }

    /// The next request's payload; `None` when the client is done, or silent for too long.
    ///
    /// # Errors
    /// A frame that is none, or that takes too long.
    pub(crate) fn request(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let opened = clock::now();
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(payload) = self.decoder.next_frame()? {
                self.begun = false;
                return Ok(Some(payload));
            }
            let limit = if self.begun { REQUEST } else { SILENCE };
            if !self.ready(PollFlags::IN, (opened + limit).saturating_sub(clock::now()))? {
                return if self.begun {
                    Err(io::Error::from(io::ErrorKind::TimedOut).into())
                } else {
                    Ok(None)
                };
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return self.decoder.finish().map(|()| None),
                Ok(n) => {
                    self.decoder.push(&buffer[..n]);
                    self.begun = true;
                }
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Adds a message to what is to be sent. One that is too large for a frame is not sent.
    pub(crate) fn queue(&mut self, message: &impl Serialize) {
        if let Ok(frame) = encode_message(message) {
            self.outbox.extend_from_slice(&frame);
        }
    }

    /// Bytes that the client has not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// What to poll the socket for while a job runs: room for what is to be sent, and the client's going away.
    pub(crate) fn interest(&self) -> PollFlags {
        let sending = if self.outbox.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        PollFlags::RDHUP | sending
    }

    /// Acts on what polling saw.
    ///
    /// # Errors
    /// The client has gone away, or has closed its sending side, which says the same.
    pub(crate) fn attend(&mut self, events: PollFlags) -> io::Result<()> {
        if events.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.send_some()
    }

    /// Sends `message` and everything before it.
    ///
    /// # Errors
    /// The client is gone, or takes nothing for too long.
    pub(crate) fn send(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        self.outbox.extend_from_slice(&encode_message(message)?);
        while !self.outbox.is_empty() {
            if !self.ready(PollFlags::OUT, STALLED)? {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.send_some()?;
        }
        Ok(())
    }

    fn send_some(&mut self) -> io::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        match self.socket.write(&self.outbox) {
            Ok(n) => {
                self.outbox.drain(..n);
                Ok(())
            }
            Err(error) if is_temporary(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn ready(&self, flags: PollFlags, limit: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(limit).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use protocol::frame::{encode, read_frame};

    use super::*;

    fn pair() -> (UnixStream, Connection) {
        let (client, server) = UnixStream::pair().unwrap();
        (client, Connection::new(server.into()).unwrap())
    }

    #[test]
    fn requests_come_one_after_the_other() {
        let (mut client, mut connection) = pair();
        client.write_all(&encode(b"one").unwrap()).unwrap();
        client.write_all(&encode(b"two").unwrap()).unwrap();
        drop(client);
        assert_eq!(connection.request().unwrap().unwrap(), b"one");
        assert_eq!(connection.request().unwrap().unwrap(), b"two");
        assert!(connection.request().unwrap().is_none());
    }

    #[test]
    fn half_a_request_is_an_error() {
        let (mut client, mut connection) = pair();
        client.write_all(&encode(b"one").unwrap()[..5]).unwrap();
        drop(client);
        assert!(matches!(connection.request(), Err(FrameError::Truncated)));
    }

    #[test]
    fn what_a_client_does_not_read_is_kept() {
        let (mut client, mut connection) = pair();
        let message = "x".repeat(1 << 20);
        connection.queue(&message);
        connection.attend(PollFlags::OUT).unwrap();
        assert!(connection.unsent() > 0);
        let reader = std::thread::spawn(move || [read_frame(&mut client), read_frame(&mut client)]);
        connection.send(&"last").unwrap();
        let [first, last] = reader.join().unwrap();
        assert_eq!(first.unwrap().unwrap().len(), message.len() + 2);
        assert_eq!(last.unwrap().unwrap(), b"\"last\"");
    }

    #[test]
    fn a_client_that_closes_is_gone() {
        let (client, mut connection) = pair();
        drop(client);
        assert!(connection.attend(PollFlags::RDHUP).is_err());
    }
}
