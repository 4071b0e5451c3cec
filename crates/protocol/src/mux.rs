//! Many streams over one serial port. Bytes from the port go in at [`Mux::receive`] and come out as [`MuxEvent`]s; what
//! is [sent](Mux::send) on a stream comes out of [`Mux::transmit`] as frames for the port.
//!
//! ```text
//! port:   … 00 │ COBS(body) │ 00 │ COBS(body) │ 00 …      00 occurs nowhere else, so any end can always resynchronise
//!
//! body:   ┌──────┬────────┬────────────────┬───────────────┐
//!         │ kind │ stream │ generation     │ payload       │
//!         │ u8   │ u8     │ u32 big-endian │ by kind       │
//!         └──────┴────────┴────────────────┴───────────────┘
//!
//!         1 Restart     host → guest   -             begin that generation; all older streams are gone
//!         2 RestartAck  guest → host   -             it has begun
//!         3 Open        host → guest   u32 port      a new stream, on an id that is free
//!         4 Data        both           1 to 16 KiB   within the credit
//!         5 Credit      both           u32 bytes     the reader took that many; at most 64 KiB are ever outstanding
//!         6 Close       both           -             the sender writes no more; it still reads
//!         7 Reset       both           -             the sender's last frame on this stream
//!
//! host                                   guest
//!   │ 00 Restart(7)  Open(7)  Data(7) ─────► │   the guest may not be up yet: the port holds what fits
//!   │ ◄────────── anything(6), fragments     │   from before a snapshot: dropped
//!   │ ◄────────────────────  RestartAck(7)   │   from here on every fault is an error
//!   │ ◄──────────────────────────  Data(7)   │
//! ```
//!
//! **Generations.** A frame of another generation than the current one is dropped silently, on both sides. The host
//! believes nothing until the acknowledgement of its own generation has come, so it must never name the generation that
//! a snapshot was taken in. A frame that a restart cut short does not decode; the guest, which cannot know what follows
//! it, believes nothing after it but a Restart.
//!
//! **Ends of streams.** Each side's last frame on a stream is exactly one Reset: to abandon it, in answer to the peer's,
//! or as the full stop once Close went both ways. What comes after one's own Reset is ignored up to the peer's; then the
//! id is free, and no frame of the old stream can be mistaken for one of the next. A side sends its Reset only when its
//! own reader has been told of the end, so neither can events be.
//!
//! **Bounds.** 64 streams; for each and in each direction 64 KiB in flight or unread and 64 KiB waiting to be sent; one
//! incomplete frame. Pending control frames are flags of a stream, so no queue grows. What the peer may not send is a
//! [`MuxError`], and nothing more is believed until the next restart.
//!
//! **Fairness.** [`Mux::transmit`] gives control frames first, then one Data frame of each stream in turn. Ask for the
//! next frame only when the port has taken the last one, and a flooded stream holds up another by one frame.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use crate::error::{ErrorCode, HostError};
use crate::limits::{MAX_STREAM_DATA, MAX_STREAMS, STREAM_BUFFER, STREAM_WINDOW};

const HEADER: usize = 6;
const MAX_ENCODED: usize = cobs::max_encoding_length(HEADER + MAX_STREAM_DATA);
/// Credit is given back in pieces of this size or more, so that a reader of single bytes does not cause a frame each.
const CREDIT_STEP: usize = STREAM_WINDOW / 4;

const RESTART: u8 = 1;
const RESTART_ACK: u8 = 2;
const OPEN: u8 = 3;
const DATA: u8 = 4;
const CREDIT: u8 = 5;
const CLOSE: u8 = 6;
const RESET: u8 = 7;

/// Which end of the port this is. Only the host restarts the link and opens streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The machine that runs the VMM.
    Host,
    /// The machine inside.
    Guest,
}

/// Names a stream, in 0 to [`MAX_STREAMS`] − 1; another stream may get the same number later.
pub type StreamId = u8;

/// What [`Mux::receive`] made of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MuxEvent {
    /// Both ends are of one generation now. In the guest: all streams from before are gone, without events of their own. On the
    /// host: the guest is there; streams opened since [`Mux::restart`] live.
    Restarted,
    /// The host opened a stream (in the guest only).
    Opened {
        /// The new stream.
        stream: StreamId,
        /// What it is for.
        port: u32,
    },
    /// Bytes of the peer, 1 to [`STREAM_WINDOW`]; to be given back with [`Mux::consumed`].
    Data {
        /// Where they came.
        stream: StreamId,
        /// What came.
        bytes: Vec<u8>,
    },
    /// The peer will write no more. It still reads what is sent here, until [`Mux::close`].
    Closed {
        /// Which stream.
        stream: StreamId,
    },
    /// The peer abandoned the stream; neither direction exists any more.
    Reset {
        /// Which stream.
        stream: StreamId,
    },
}

/// What is wrong with the peer's bytes, or with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// A frame is no COBS, or too short or too long for its kind.
    #[error("A frame on the serial port is malformed")]
    Malformed,
    /// More bytes without a delimiter than any frame has.
    #[error("A frame on the serial port is over {MAX_STREAM_DATA} bytes of data")]
    TooLong,
    /// A kind of frame that this version does not have, or that this side does not take at this point.
    #[error("A frame of kind {kind} for stream {stream} is out of place on the serial port")]
    Unexpected {
        /// As on the wire.
        kind: u8,
        /// As on the wire.
        stream: StreamId,
    },
    /// The peer sent more than its credit, or gave more credit than the window has.
    #[error("Stream {stream} of the serial port is over its window of {STREAM_WINDOW} bytes")]
    OverWindow {
        /// As on the wire.
        stream: StreamId,
    },
    /// [`Mux::open`]: all streams are in use, or the peer has not let go of them yet.
    #[error("All {MAX_STREAMS} streams of the serial port are in use")]
    NoFreeStream,
    /// [`Mux::open`] in the guest, or on the host without a [`Mux::restart`] since the beginning or the last error.
    #[error("The serial port is not ready to open a stream")]
    NotReady,
}

impl From<MuxError> for HostError {
    fn from(error: MuxError) -> Self {
        let code = match error {
            MuxError::NoFreeStream | MuxError::NotReady => ErrorCode::Internal,
            _ => ErrorCode::GuestProtocol,
        };
        Self::new(code, error.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Nothing but a restart is believed.
    Down,
    /// On the host: the restart was not acknowledged yet.
    Waiting,
    Up,
}

/// One end of the port. Pure: no I/O and no clock.
///
/// The owner writes what [`transmit`](Self::transmit) gives to the port, hands what it reads from there to
/// [`receive`](Self::receive), and after that takes all [events](Self::next_event), asks for frames again (there may be
/// answers) and looks at [`writable`](Self::writable) of the streams it has data for.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    generation: u32,
    link: Link,
    /// Restart (on the host) or its acknowledgement (in the guest) is to be transmitted.
    announce: bool,
    /// [`MuxEvent::Restarted`] is to be told.
    restarted: bool,
    /// In the guest: a malformed frame came, which only a Restart excuses.
    suspect: bool,
    streams: BTreeMap<StreamId, Stream>,
    next_id: StreamId,
    last_sent: StreamId,
    last_told: StreamId,
    /// The beginning of a frame; one byte over [`MAX_ENCODED`] when it is too long to be one.
    partial: Vec<u8>,
}

impl Mux {
    /// An end with no streams. The host's is of no use before [`restart`](Self::restart).
    #[must_use]
    pub const fn new(side: Side) -> Self {
        Self {
            side,
            generation: 0,
            link: Link::Down,
            announce: false,
            restarted: false,
            suspect: false,
            streams: BTreeMap::new(),
            next_id: 0,
            last_sent: 0,
            last_told: 0,
            partial: Vec::new(),
        }
    }

    /// Begins a generation: drops all streams without events, and has the guest do the same. The number must differ from all
    /// that bytes still in the port, or a snapshot that the guest was restored from, may carry. Streams may be opened
    /// and written to at once. Does nothing in the guest.
    pub fn restart(&mut self, generation: u32) {
        if self.side == Side::Host {
            self.begin(generation, Link::Waiting);
            self.partial.clear();
        }
    }

    /// Takes bytes from the port, in pieces of any size, and queues events.
    ///
    /// # Errors
    /// The first of the peer's faults. All streams are then gone, without events, and everything is ignored until a restart
    /// (in the guest the host's, which may come later in the same bytes).
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), MuxError> {
        let mut outcome = Ok(());
        while let Some(end) = memchr::memchr(0, bytes) {
            let frame = self.end_frame(&bytes[..end]);
            bytes = &bytes[end + 1..];
            if frame.is_err() {
                self.fail();
                outcome = outcome.and(frame);
            }
        }
        self.keep(bytes);
        if self.link == Link::Up && self.partial.len() > MAX_ENCODED {
            self.fail();
            outcome = outcome.and(Err(MuxError::TooLong));
        }
        outcome
    }

    /// The next thing that has come, each stream in turn.
    pub fn next_event(&mut self) -> Option<MuxEvent> {
        if std::mem::take(&mut self.restarted) {
            return Some(MuxEvent::Restarted);
        }
        let id = self.turn_after(self.last_told, Stream::has_event)?;
        self.last_told = id;
        self.streams.get_mut(&id)?.next_event(id)
    }

    /// Opens a stream to `port` of the guest.
    ///
    /// # Errors
    /// [`MuxError::NoFreeStream`] and [`MuxError::NotReady`].
    pub fn open(&mut self, port: u32) -> Result<StreamId, MuxError> {
        if self.side == Side::Guest || self.link == Link::Down {
            return Err(MuxError::NotReady);
        }
        let id = (0..MAX_STREAMS)
            .map(|offset| (self.next_id + offset) % MAX_STREAMS)
            .find(|id| !self.streams.contains_key(id))
            .ok_or(MuxError::NoFreeStream)?;
        self.next_id = (id + 1) % MAX_STREAMS;
        let stream = Stream {
            open: Some(port),
            ..Stream::new()
        };
        self.streams.insert(id, stream);
        Ok(id)
    }

    /// Takes as many of the bytes as the stream's send buffer has room for, and says how many; none on a stream that is
    /// closed, reset or unknown.
    pub fn send(&mut self, stream: StreamId, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.writable(stream));
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.unsent.extend(&bytes[..taken]);
        }
        taken
    }

    /// Bytes that [`send`](Self::send) would take now; at most [`STREAM_BUFFER`].
    #[must_use]
    pub fn writable(&self, stream: StreamId) -> usize {
        self.streams.get(&stream).map_or(0, Stream::writable)
    }

    /// Writes no more on the stream after what is in its send buffer.
    pub fn close(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(&stream)
            && stream.alive()
            && stream.close_out == Step::No
        {
            stream.close_out = Step::Due;
        }
    }

    /// Drops both directions of the stream and what is buffered. No event of it comes any more.
    pub fn reset(&mut self, stream: StreamId) {
        let Some(abandoned) = self.streams.get_mut(&stream) else {
            return;
        };
        if abandoned.open.is_some() {
            self.streams.remove(&stream); // The peer never heard of it.
        } else {
            abandoned.abandon();
        }
    }

    /// The reader took `n` bytes that came as [`MuxEvent::Data`]: the peer may send as many again. Not needed after the
    /// stream's [`MuxEvent::Closed`] or [`MuxEvent::Reset`].
    pub fn consumed(&mut self, stream: StreamId, n: usize) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.give_back += n.min(stream.unread());
        }
    }

    /// The next frame for the port, delimiter included; `None` when nothing may be sent now. It must be written whole
    /// and in order, except that the rest of a frame may be left out when a restart has begun since.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        if self.link == Link::Down {
            return None;
        }
        if std::mem::take(&mut self.announce) {
            return Some(self.announcement());
        }
        let control = self.streams.iter().find(|(_, stream)| stream.has_control());
        if let Some(id) = control.map(|(id, _)| *id) {
            return self.transmit_control(id);
        }
        let id = self.turn_after(self.last_sent, Stream::has_data)?;
        self.last_sent = id;
        let stream = self.streams.get_mut(&id)?;
        Some(stream.transmit_data(id, self.generation))
    }

    /// The delimiter in front ends whatever frame the restart cut short.
    fn announcement(&self) -> Vec<u8> {
        let kind = match self.side {
            Side::Host => RESTART,
            Side::Guest => RESTART_ACK,
        };
        let mut bytes = vec![0];
        bytes.extend(encode(kind, 0, self.generation, &[]));
        bytes
    }

    fn transmit_control(&mut self, id: StreamId) -> Option<Vec<u8>> {
        let stream = self.streams.get_mut(&id)?;
        let frame = stream.transmit_control(id, self.generation);
        if stream.is_over() {
            self.streams.remove(&id);
        }
        Some(frame)
    }

    /// The first stream after `last`, going round, that is `wanted`.
    fn turn_after(&self, last: StreamId, wanted: fn(&Stream) -> bool) -> Option<StreamId> {
        let later = self.streams.range((Excluded(last), Unbounded));
        let sooner = self.streams.range(..=last);
        later
            .chain(sooner)
            .find(|(_, stream)| wanted(stream))
            .map(|(id, _)| *id)
    }

    fn begin(&mut self, generation: u32, link: Link) {
        self.fail();
        self.generation = generation;
        self.link = link;
        self.announce = true;
    }

    fn fail(&mut self) {
        self.link = Link::Down;
        self.announce = false;
        self.restarted = false;
        self.suspect = false;
        self.streams.clear();
    }

    /// Keeps the beginning of a frame, and of one that is too long only enough to know it.
    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_ENCODED + 1 - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_frame(&mut self, last: &[u8]) -> Result<(), MuxError> {
        if self.partial.is_empty() {
            return self.frame(last);
        }
        self.keep(last);
        let mut encoded = std::mem::take(&mut self.partial);
        let outcome = self.frame(&encoded);
        encoded.clear();
        self.partial = encoded;
        outcome
    }

    fn frame(&mut self, encoded: &[u8]) -> Result<(), MuxError> {
        if encoded.is_empty() {
            return Ok(());
        }
        if encoded.len() > MAX_ENCODED {
            return self.fault(MuxError::TooLong);
        }
        let body = cobs::decode_vec(encoded).unwrap_or_default();
        let Some((&[kind, stream, g0, g1, g2, g3], payload)) = body.split_first_chunk::<HEADER>() else {
            return self.malformed();
        };
        let generation = u32::from_be_bytes([g0, g1, g2, g3]);
        if kind == RESTART && self.side == Side::Guest {
            return self.adopt(generation, payload);
        }
        if generation != self.generation {
            return Ok(());
        }
        match self.link {
            Link::Down => Ok(()),
            Link::Waiting => {
                self.acknowledged(kind, payload);
                Ok(())
            }
            Link::Up if self.suspect => Err(MuxError::Malformed),
            Link::Up => match self.dispatch(kind, stream, payload) {
                Err(MuxError::Malformed) => self.malformed(),
                outcome => outcome,
            },
        }
    }

    /// Before the link is up every fault is a remainder of something older.
    fn fault(&self, error: MuxError) -> Result<(), MuxError> {
        if self.link == Link::Up { Err(error) } else { Ok(()) }
    }

    /// In the guest the error comes only with the next frame that it could otherwise believe.
    fn malformed(&mut self) -> Result<(), MuxError> {
        self.suspect = self.side == Side::Guest;
        if self.suspect {
            return Ok(());
        }
        self.fault(MuxError::Malformed)
    }

    fn adopt(&mut self, generation: u32, payload: &[u8]) -> Result<(), MuxError> {
        if !payload.is_empty() {
            return self.malformed();
        }
        self.begin(generation, Link::Up);
        self.restarted = true;
        Ok(())
    }

    fn acknowledged(&mut self, kind: u8, payload: &[u8]) {
        if kind == RESTART_ACK && payload.is_empty() {
            self.link = Link::Up;
            self.restarted = true;
        }
    }

    fn dispatch(&mut self, kind: u8, id: StreamId, payload: &[u8]) -> Result<(), MuxError> {
        let unexpected = MuxError::Unexpected { kind, stream: id };
        if kind == OPEN {
            let port = number(payload)?;
            return self.opened(id, port).ok_or(unexpected);
        }
        let stream = self.streams.get_mut(&id).ok_or(unexpected)?;
        if stream.open.is_some() || stream.reset_in != Step::No {
            return Err(unexpected);
        }
        match kind {
            DATA => stream.data(id, payload)?,
            CREDIT => stream.credited(id, number(payload)?)?,
            CLOSE if payload.is_empty() => stream.closed().ok_or(unexpected)?,
            RESET if payload.is_empty() => stream.was_reset(),
            CLOSE | RESET => return Err(MuxError::Malformed),
            _ => return Err(unexpected),
        }
        if stream.is_over() {
            self.streams.remove(&id);
        }
        Ok(())
    }

    fn opened(&mut self, id: StreamId, port: u32) -> Option<()> {
        if self.side == Side::Host || id >= MAX_STREAMS || self.streams.contains_key(&id) {
            return None;
        }
        let stream = Stream {
            opened: Some(port),
            ..Stream::new()
        };
        self.streams.insert(id, stream);
        Some(())
    }
}

/// How far something that happens once to a stream has come: not asked for, to be passed on (to the peer or to the
/// owner), passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    No,
    Due,
    Done,
}

#[derive(Debug)]
struct Stream {
    /// The Open frame to be sent.
    open: Option<u32>,
    /// The Opened event to be told.
    opened: Option<u32>,
    unsent: VecDeque<u8>,
    /// Bytes the peer takes now.
    credit: usize,
    /// Bytes that came and were not told yet.
    arrived: Vec<u8>,
    /// Bytes the peer may still send.
    window: usize,
    /// Bytes taken by the reader that the peer does not know of yet.
    give_back: usize,
    close_out: Step,
    close_in: Step,
    reset_out: Step,
    reset_in: Step,
}

impl Stream {
    const fn new() -> Self {
        Self {
            open: None,
            opened: None,
            unsent: VecDeque::new(),
            credit: STREAM_WINDOW,
            arrived: Vec::new(),
            window: STREAM_WINDOW,
            give_back: 0,
            close_out: Step::No,
            close_in: Step::No,
            reset_out: Step::No,
            reset_in: Step::No,
        }
    }

    /// No reset, in either direction.
    fn alive(&self) -> bool {
        self.reset_out == Step::No && self.reset_in == Step::No
    }

    fn is_over(&self) -> bool {
        self.reset_out == Step::Done && self.reset_in == Step::Done
    }

    fn writable(&self) -> usize {
        if self.alive() && self.close_out == Step::No {
            STREAM_BUFFER - self.unsent.len()
        } else {
            0
        }
    }

    /// Bytes that were told and not consumed.
    fn unread(&self) -> usize {
        STREAM_WINDOW - self.window - self.give_back - self.arrived.len()
    }

    fn abandon(&mut self) {
        if self.reset_out == Step::No {
            self.reset_out = Step::Due;
        }
        for told in [&mut self.close_in, &mut self.reset_in] {
            if *told == Step::Due {
                *told = Step::Done;
            }
        }
        self.opened = None;
        self.unsent = VecDeque::new();
        self.arrived = Vec::new();
    }

    /// Both directions were closed and everyone was told: the full stop.
    fn finish_if_closed(&mut self) {
        if self.close_out == Step::Done && self.close_in == Step::Done && self.reset_out == Step::No {
            self.reset_out = Step::Due;
        }
    }

    fn data(&mut self, id: StreamId, payload: &[u8]) -> Result<(), MuxError> {
        if payload.is_empty() || payload.len() > MAX_STREAM_DATA {
            return Err(MuxError::Malformed);
        }
        if self.close_in != Step::No {
            return Err(MuxError::Unexpected {
                kind: DATA,
                stream: id,
            });
        }
        let window = self.window.checked_sub(payload.len());
        self.window = window.ok_or(MuxError::OverWindow { stream: id })?;
        if self.reset_out == Step::No {
            self.arrived.extend_from_slice(payload);
        }
        Ok(())
    }

    fn credited(&mut self, id: StreamId, bytes: u32) -> Result<(), MuxError> {
        let credit = self.credit.saturating_add(bytes as usize);
        if bytes == 0 || credit > STREAM_WINDOW {
            return Err(MuxError::OverWindow { stream: id });
        }
        self.credit = credit;
        Ok(())
    }

    fn closed(&mut self) -> Option<()> {
        if self.close_in != Step::No {
            return None;
        }
        self.close_in = if self.reset_out == Step::No {
            Step::Due
        } else {
            Step::Done
        };
        Some(())
    }

    fn was_reset(&mut self) {
        let expected =
            self.reset_out != Step::No || (self.close_out == Step::Done && self.close_in != Step::No);
        self.reset_in = if expected { Step::Done } else { Step::Due };
        self.unsent = VecDeque::new();
    }

    fn has_event(&self) -> bool {
        self.opened.is_some()
            || !self.arrived.is_empty()
            || self.close_in == Step::Due
            || self.reset_in == Step::Due
    }

    fn next_event(&mut self, stream: StreamId) -> Option<MuxEvent> {
        if let Some(port) = self.opened.take() {
            return Some(MuxEvent::Opened { stream, port });
        }
        if !self.arrived.is_empty() {
            let bytes = std::mem::take(&mut self.arrived);
            return Some(MuxEvent::Data { stream, bytes });
        }
        if self.close_in == Step::Due {
            self.close_in = Step::Done;
            self.finish_if_closed();
            return Some(MuxEvent::Closed { stream });
        }
        if self.reset_in == Step::Due {
            self.abandon();
            return Some(MuxEvent::Reset { stream });
        }
        None
    }

    fn owes_credit(&self) -> bool {
        self.give_back >= CREDIT_STEP && self.alive() && self.close_in == Step::No
    }

    fn has_control(&self) -> bool {
        self.open.is_some() || self.reset_out == Step::Due || self.owes_credit()
    }

    fn transmit_control(&mut self, id: StreamId, generation: u32) -> Vec<u8> {
        if let Some(port) = self.open.take() {
            return encode(OPEN, id, generation, &[&port.to_be_bytes()]);
        }
        if self.reset_out == Step::Due {
            self.reset_out = Step::Done;
            return encode(RESET, id, generation, &[]);
        }
        let bytes = std::mem::take(&mut self.give_back);
        self.window += bytes;
        encode(CREDIT, id, generation, &[&(bytes as u32).to_be_bytes()])
    }

    fn has_data(&self) -> bool {
        let closes = self.close_out == Step::Due && self.unsent.is_empty();
        self.alive() && (closes || self.sendable() > 0)
    }

    fn sendable(&self) -> usize {
        self.unsent.len().min(self.credit).min(MAX_STREAM_DATA)
    }

    /// A Data frame, or the Close after the last of them.
    fn transmit_data(&mut self, id: StreamId, generation: u32) -> Vec<u8> {
        let n = self.sendable();
        if n == 0 {
            self.close_out = Step::Done;
            self.finish_if_closed();
            return encode(CLOSE, id, generation, &[]);
        }
        let (front, back) = self.unsent.as_slices();
        let from_front = n.min(front.len());
        let payload = [&front[..from_front], &back[..n - from_front]];
        let frame = encode(DATA, id, generation, &payload);
        self.unsent.drain(..n);
        self.credit -= n;
        frame
    }
}

fn number(payload: &[u8]) -> Result<u32, MuxError> {
    let bytes = payload.try_into().map_err(|_| MuxError::Malformed)?;
    Ok(u32::from_be_bytes(bytes))
}

fn encode(kind: u8, stream: StreamId, generation: u32, payload: &[&[u8]]) -> Vec<u8> {
    let [g0, g1, g2, g3] = generation.to_be_bytes();
    let header = [kind, stream, g0, g1, g2, g3];
    let length = HEADER + payload.iter().map(|part| part.len()).sum::<usize>();
    let mut body = Vec::with_capacity(length);
    body.extend_from_slice(&header);
    for part in payload {
        body.extend_from_slice(part);
    }
    let mut frame = vec![0; cobs::max_encoding_length(length) + 1];
    let encoded = cobs::encode(&body, &mut frame);
    frame.truncate(encoded);
    frame.push(0);
    frame
}

#[cfg(test)]
mod tests;
