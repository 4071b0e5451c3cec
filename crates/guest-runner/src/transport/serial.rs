//! The virtio-serial port: all connections over one byte stream, by [`protocol::mux`].
//!
//! ```text
//! port ◄──► Mux ◄──► one socket pair a stream ◄──► the connection's thread
//! ```
//!
//! One thread moves the bytes and waits in one poll. A connection that is not read from holds up nothing but its own
//! stream: what came for it stays within the window that the multiplexer gave, and credit goes back as it is taken.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::mux::{Mux, MuxEvent, Side, StreamId};
use rustix::event::{PollFd, PollFlags, poll};

use super::{PORT_NAME, PORTS};
use crate::serve::Server;

/// How long to leave a port alone that no host is connected to; there is nothing to wait for on one.
const DISCONNECTED: Duration = Duration::from_millis(10);
const READ_SIZE: usize = 32 << 10;

/// Opens the port that is named for the runner.
pub(super) fn open() -> io::Result<File> {
    for entry in fs::read_dir(PORTS)? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            let device = std::path::Path::new("/dev").join(entry.file_name());
            return OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(device);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no virtio port is named {PORT_NAME}"),
    ))
}

/// Carries connections until the port fails.
pub(super) fn serve(port: File, server: &Server) -> io::Result<()> {
    let mut line = Line {
        port,
        mux: Mux::new(Side::Guest),
        streams: BTreeMap::new(),
        outgoing: Outgoing::default(),
    };
    loop {
        line.turn(server)?;
    }
}

struct Line {
    port: File,
    mux: Mux,
    streams: BTreeMap<StreamId, Stream>,
    outgoing: Outgoing,
}

/// One frame on its way to the port.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }
}

/// The runner's end of one stream.
struct Stream {
    socket: UnixStream,
    /// What the host sent and the connection has not taken.
    pending: VecDeque<u8>,
    /// The host will send no more.
    host_closed: bool,
    /// The connection will send no more.
    connection_closed: bool,
}

impl Line {
    /// Sends what can be sent, waits for something to happen, and takes it in.
    fn turn(&mut self, server: &Server) -> io::Result<()> {
        self.transmit()?;
        let (port, streams) = self.wait()?;
        if port.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive(port)?;
        }
        for (id, events) in streams {
            if events.contains(PollFlags::OUT) {
                self.deliver(id);
            }
            if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                self.collect(id);
            }
        }
        while let Some(event) = self.mux.next_event() {
            self.handle(event, server);
        }
        Ok(())
    }

    fn transmit(&mut self) -> io::Result<()> {
        loop {
            if self.outgoing.rest().is_empty() {
                match self.mux.transmit() {
                    Some(bytes) => self.outgoing = Outgoing { bytes, written: 0 },
                    None => return Ok(()),
                }
            }
            match (&self.port).write(self.outgoing.rest()) {
                Ok(n) => self.outgoing.written += n,
                Err(error) if is_temporary(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&self) -> io::Result<(PollFlags, Vec<(StreamId, PollFlags)>)> {
        let sending = !self.outgoing.rest().is_empty();
        let wanted = |reading: bool, writing: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reading);
            flags.set(PollFlags::OUT, writing);
            flags
        };
        let mut watched = vec![PollFd::new(&self.port, wanted(true, sending))];
        let mut ids = Vec::new();
        for (id, stream) in &self.streams {
            let reading = !stream.connection_closed && self.mux.writable(*id) > 0;
            let flags = wanted(reading, !stream.pending.is_empty());
            // A socket that polls for nothing still reports that its peer is gone, over and over.
            if !flags.is_empty() {
                watched.push(PollFd::new(&stream.socket, flags));
                ids.push(*id);
            }
        }
        match poll(&mut watched, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((PollFlags::empty(), Vec::new())),
            Err(error) => return Err(error.into()),
        }
        let mut events = watched.iter().map(PollFd::revents);
        let port = events.next().unwrap_or(PollFlags::empty());
        Ok((port, ids.into_iter().zip(events).collect()))
    }

    fn receive(&mut self, events: PollFlags) -> io::Result<()> {
        let mut buffer = vec![0; READ_SIZE];
        match self.port.read(&mut buffer) {
            Ok(0) => std::thread::sleep(DISCONNECTED),
            Ok(n) => {
                if let Err(error) = self.mux.receive(&buffer[..n]) {
                    eprintln!("guest-runner: {error}; waiting for a new start of the serial line");
                    self.streams.clear();
                }
            }
            Err(error) if is_temporary(&error) => {
                if events.contains(PollFlags::HUP) {
                    std::thread::sleep(DISCONNECTED);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn handle(&mut self, event: MuxEvent, server: &Server) {
        match event {
            MuxEvent::Restarted => self.streams.clear(),
            MuxEvent::Opened { stream, port } => match UnixStream::pair() {
                Ok((ours, theirs)) if ours.set_nonblocking(true).is_ok() => {
                    self.streams.insert(stream, Stream::new(ours));
                    server.accept(port, theirs.into());
                }
                _ => self.mux.reset(stream),
            },
            MuxEvent::Data { stream, bytes } => match self.streams.get_mut(&stream) {
                Some(known) => {
                    known.pending.extend(bytes);
                    self.deliver(stream);
                }
                None => self.mux.consumed(stream, bytes.len()),
            },
            MuxEvent::Closed { stream } => {
                if let Some(known) = self.streams.get_mut(&stream) {
                    known.host_closed = true;
                }
                self.deliver(stream);
            }
            MuxEvent::Reset { stream } => {
                self.streams.remove(&stream);
            }
        }
    }

    /// Host to connection.
    fn deliver(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        while !stream.pending.is_empty() {
            match stream.socket.write(stream.pending.as_slices().0) {
                Ok(n) => {
                    stream.pending.drain(..n);
                    self.mux.consumed(id, n);
                }
                Err(error) if is_temporary(&error) => return,
                Err(_) => {
                    // The connection is gone; what it has not taken nobody will.
                    self.mux.consumed(id, stream.pending.len());
                    stream.pending.clear();
                }
            }
        }
        if stream.host_closed {
            let _ = stream.socket.shutdown(Shutdown::Write);
            self.forget_if_done(id);
        }
    }

    /// Connection to host.
    fn collect(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let mut buffer = vec![0; READ_SIZE.min(self.mux.writable(id))];
        if buffer.is_empty() || stream.connection_closed {
            return;
        }
        match stream.socket.read(&mut buffer) {
            Ok(n) if n > 0 => {
                self.mux.send(id, &buffer[..n]);
            }
            Err(error) if is_temporary(&error) => {}
            Ok(_) | Err(_) => {
                stream.connection_closed = true;
                self.mux.close(id);
                self.forget_if_done(id);
            }
        }
    }

    fn forget_if_done(&mut self, id: StreamId) {
        let done =
            |stream: &Stream| stream.host_closed && stream.connection_closed && stream.pending.is_empty();
        if self.streams.get(&id).is_some_and(done) {
            self.streams.remove(&id);
        }
    }
}

impl Stream {
    fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            pending: VecDeque::new(),
            host_closed: false,
            connection_closed: false,
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
