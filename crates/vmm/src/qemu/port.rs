//! The virtio-serial port: one byte stream to the guest, shared by many connections through the multiplexer.
//!
//! ```text
//! MuxStream ─┐ write: Mux::send ──► Mux ──transmit──► socket ─► QEMU ─► guest
//! MuxStream ─┤                       ▲
//!            └ read ◄── received ◄───┴──receive─────── socket ◄─ QEMU ◄─ guest
//! ```
//!
//! One task moves bytes between the socket and the multiplexer; streams touch only the multiplexer, under a lock that is
//! never held across an await. What is buffered is bounded by the multiplexer's windows. QEMU holds what is written before
//! the guest opens its end, so a connection may be opened and used before there is a guest.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use protocol::mux::{Mux, MuxEvent, Side, StreamId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};

use crate::error::VmmError;

/// Bytes taken from the socket at a time.
const READ: usize = 64 << 10;

/// Our end of the port.
#[derive(Debug)]
pub(super) struct Port {
    shared: Arc<Shared>,
    /// How the guest broke the multiplexer's rules, once it has.
    broken: watch::Receiver<Option<String>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There may be something to transmit.
    transmit: Notify,
}

#[derive(Debug)]
struct State {
    mux: Mux,
    streams: HashMap<Serial, Stream>,
    /// Whom the multiplexer means by a number.
    current: HashMap<StreamId, Serial>,
    opened: Serial,
    /// Nothing comes or goes any more.
    ended: bool,
}

/// Counts the streams of a port. The multiplexer uses a number again as soon as both ends have closed, when here somebody
/// may still be reading.
type Serial = u64;

/// What the multiplexer does not keep of a stream.
#[derive(Debug, Default)]
struct Stream {
    received: VecDeque<u8>,
    /// We write no more.
    shut: bool,
    /// The guest will write no more.
    closed: bool,
    /// The guest dropped it.
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Port {
    /// Starts a new conversation on `socket`: whatever an earlier one left on the way is discarded. `generation` must be none
    /// that the guest has seen: a restored one has seen that of the machine it was made from.
    pub(super) fn open(socket: UnixStream, generation: u32) -> Self {
        let mut mux = Mux::new(Side::Host);
        mux.restart(generation);
        let state = State {
            mux,
            streams: HashMap::new(),
            current: HashMap::new(),
            opened: 0,
            ended: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            transmit: Notify::new(),
        });
        let (breach, broken) = watch::channel(None);
        tokio::spawn(drive(socket, Arc::clone(&shared), breach));
        Self { shared, broken }
    }

    /// Opens a stream to a port of the guest; whether somebody listens there shows on the stream.
    ///
    /// # Errors
    /// [`VmmError::Transport`] when the port has ended or has no stream left.
    pub(super) fn connect(&self, port: u32) -> Result<MuxStream, VmmError> {
        let mut state = self.shared.lock();
        if state.ended {
            return Err(VmmError::Transport("the port is closed".to_owned()));
        }
        let id = state
            .mux
            .open(port)
            .map_err(|error| VmmError::Transport(error.to_string()))?;
        state.opened += 1;
        let serial = state.opened;
        state.streams.insert(serial, Stream::default());
        state.current.insert(id, serial);
        drop(state);
        self.shared.transmit.notify_one();
        Ok(MuxStream {
            shared: Arc::clone(&self.shared),
            id,
            serial,
        })
    }

    /// QEMU has not closed the port and the guest has kept to the rules.
    pub(super) fn is_open(&self) -> bool {
        !self.shared.lock().ended
    }

    /// Resolves when the guest has broken the multiplexer's rules.
    pub(super) async fn broken(&self) -> VmmError {
        let mut broken = self.broken.clone();
        loop {
            if let Some(reason) = &*broken.borrow_and_update() {
                return VmmError::Transport(reason.clone());
            }
            if broken.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Moves bytes until the socket ends or the guest breaks the rules; then no stream waits any longer.
async fn drive(socket: UnixStream, shared: Arc<Shared>, breach: watch::Sender<Option<String>>) {
    let (from, to) = socket.into_split();
    let broken = tokio::select! {
        received = receive(from, &shared) => received.err(),
        () = transmit(to, &shared) => None,
    };
    breach.send_replace(broken);
    let mut state = shared.lock();
    state.ended = true;
    for stream in state.streams.values_mut() {
        stream.wake();
    }
}

async fn receive(mut from: OwnedReadHalf, shared: &Shared) -> Result<(), String> {
    let mut buffer = vec![0; READ];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        shared.lock().receive(&buffer[..read])?;
        shared.transmit.notify_one();
    }
    Ok(())
}

async fn transmit(mut to: OwnedWriteHalf, shared: &Shared) {
    loop {
        let frame = shared.lock().next_frame();
        match frame {
            None => shared.transmit.notified().await,
            Some(frame) if to.write_all(&frame).await.is_ok() => {}
            Some(_) => return,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.mux.receive(bytes).map_err(|error| error.to_string())?;
        while let Some(event) = self.mux.next_event() {
            self.take(event);
        }
        self.wake_writers();
        Ok(())
    }

    /// An event for a stream that has been dropped here is late, not wrong.
    fn take(&mut self, event: MuxEvent) {
        let (MuxEvent::Data { stream: id, .. }
        | MuxEvent::Closed { stream: id }
        | MuxEvent::Reset { stream: id }) = event
        else {
            return; // The guest answers a restart, and opens nothing.
        };
        let Some(stream) = self
            .current
            .get(&id)
            .and_then(|serial| self.streams.get_mut(serial))
        else {
            return;
        };
        match event {
            MuxEvent::Data { bytes, .. } => stream.received.extend(bytes),
            MuxEvent::Closed { .. } => stream.closed = true,
            _ => stream.reset = true,
        }
        stream.wake();
    }

    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let frame = self.mux.transmit();
        self.wake_writers();
        frame
    }

    fn wake_writers(&mut self) {
        for (id, serial) in &self.current {
            if let Some(stream) = self.streams.get_mut(serial)
                && stream.writer.is_some()
                && self.mux.writable(*id) > 0
            {
                stream.wake();
            }
        }
    }
}

impl Stream {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// A connection to a port of the guest.
#[derive(Debug)]
pub(crate) struct MuxStream {
    shared: Arc<Shared>,
    id: StreamId,
    serial: Serial,
}

impl MuxStream {
    /// `act` gets the multiplexer only while it still means this stream by its number.
    fn with<T>(&self, act: impl FnOnce(Option<&mut Mux>, &mut Stream, bool) -> T) -> T {
        let mut state = self.shared.lock();
        let State {
            mux,
            streams,
            current,
            ended,
            ..
        } = &mut *state;
        let mux = (current.get(&self.id) == Some(&self.serial)).then_some(mux);
        // The entry is there for as long as this value is.
        let done = act(mux, streams.entry(self.serial).or_default(), *ended);
        drop(state);
        self.shared.transmit.notify_one();
        done
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|mux, stream, ended| {
            let (piece, _) = stream.received.as_slices();
            let take = piece.len().min(buffer.remaining());
            if take > 0 {
                buffer.put_slice(&piece[..take]);
                stream.received.drain(..take);
                if let Some(mux) = mux {
                    mux.consumed(self.id, take);
                }
                Poll::Ready(Ok(()))
            } else if stream.reset {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            } else if stream.closed || ended || buffer.remaining() == 0 {
                Poll::Ready(Ok(()))
            } else {
                stream.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        })
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|mux, stream, ended| {
            if stream.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let Some(mux) = mux.filter(|_| !ended && !stream.shut) else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            match mux.send(self.id, bytes) {
                0 if !bytes.is_empty() => {
                    stream.writer = Some(cx.waker().clone());
                    Poll::Pending
                }
                sent => Poll::Ready(Ok(sent)),
            }
        })
    }

    /// What is written is on its way at once.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|mux, stream, _| {
            stream.shut = true;
            if let Some(mux) = mux {
                mux.close(self.id);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.streams.remove(&self.serial);
        if state.current.get(&self.id) == Some(&self.serial) {
            state.current.remove(&self.id);
            state.mux.reset(self.id);
        }
        drop(state);
        self.shared.transmit.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A guest that sends back what it gets on each stream, and closes when the host does.
    async fn echo(mut socket: UnixStream) {
        let mut mux = Mux::new(Side::Guest);
        let mut pending: BTreeMap<StreamId, VecDeque<u8>> = BTreeMap::new();
        let mut closing = Vec::new();
        let mut buffer = vec![0; 4096];
        loop {
            for (&stream, bytes) in &mut pending {
                let sent = mux.send(stream, bytes.make_contiguous());
                bytes.drain(..sent);
                mux.consumed(stream, sent);
                if bytes.is_empty() && closing.contains(&stream) {
                    mux.close(stream);
                }
            }
            while let Some(frame) = mux.transmit() {
                socket.write_all(&frame).await.unwrap();
            }
            let Ok(read @ 1..) = socket.read(&mut buffer).await else {
                return;
            };
            mux.receive(&buffer[..read]).unwrap();
            while let Some(event) = mux.next_event() {
                match event {
                    MuxEvent::Opened { stream, .. } => {
                        pending.insert(stream, VecDeque::new());
                        closing.retain(|closed| *closed != stream);
                    }
                    MuxEvent::Data { stream, bytes } => pending.entry(stream).or_default().extend(bytes),
                    MuxEvent::Closed { stream } => closing.push(stream),
                    MuxEvent::Reset { stream } => drop(pending.remove(&stream)),
                    MuxEvent::Restarted => {}
                }
            }
        }
    }

    fn port() -> (Port, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Port::open(ours, 1), theirs)
    }

    async fn exchange(mut stream: MuxStream, length: usize) {
        let sent: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let (written, received) = tokio::join!(
            async {
                write.write_all(&sent).await?;
                write.shutdown().await
            },
            async {
                let mut received = Vec::new();
                read.read_to_end(&mut received).await.map(|_| received)
            }
        );
        written.unwrap();
        assert!(received.unwrap() == sent);
    }

    #[tokio::test]
    async fn streams_work_before_the_guest_is_there_and_side_by_side() {
        let (port, guest) = port();
        let mut early = port.connect(5001).unwrap();
        early.write_all(b"hello").await.unwrap();
        tokio::spawn(echo(guest));
        let mut answer = [0; 5];
        early.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
        let streams: Vec<_> = (0..8)
            .map(|_| exchange(port.connect(5000).unwrap(), 300_000))
            .collect();
        futures_util::future::join_all(streams).await;
    }

    #[tokio::test]
    async fn numbers_are_used_again_and_nobody_is_confused() {
        let (port, guest) = port();
        tokio::spawn(echo(guest));
        let mut kept = Vec::new();
        for round in 0..200_u8 {
            let mut stream = port.connect(5000).unwrap();
            stream.write_all(&[round]).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, [round]);
            if round % 2 == 0 {
                kept.push(stream); // closed by both, but not dropped
            }
        }
        assert!(kept[0].write_all(b"more").await.is_err());
        drop(kept);
        exchange(port.connect(5000).unwrap(), 100_000).await;
    }

    #[tokio::test]
    async fn what_had_come_is_read_after_the_port_has_ended() {
        let (port, guest) = port();
        let guest = tokio::spawn(echo(guest));
        let mut stream = port.connect(5000).unwrap();
        stream.write_all(b"last words").await.unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.unwrap();
        guest.abort();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"ast words");
        assert!(stream.write_all(b"x").await.is_err());
        assert!(!port.is_open());
        assert!(port.connect(5000).is_err());
    }

    #[tokio::test]
    async fn a_guest_that_breaks_the_rules_is_cut_off() {
        let (port, mut guest) = port();
        let mut stream = port.connect(5000).unwrap();
        let mut mux = Mux::new(Side::Guest);
        let mut buffer = [0; 256];
        let read = guest.read(&mut buffer).await.unwrap();
        mux.receive(&buffer[..read]).unwrap();
        guest.write_all(&mux.transmit().unwrap()).await.unwrap();
        guest.write_all(&vec![0xff; 64 << 10]).await.unwrap();
        assert!(matches!(port.broken().await, VmmError::Transport(_)));
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
    }
}
