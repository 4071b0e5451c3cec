//! The multiplexer of the serial port: one end that hears anything, and two ends that talk to each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::limits::{MAX_STREAM_DATA, MAX_STREAMS, STREAM_BUFFER, STREAM_WINDOW};
use protocol::mux::{Mux, MuxEvent, Side, StreamId};

use crate::memory::within;

const HEADER: usize = 6;
/// What all streams may hold both ways, twice while a buffer grows.
const MOST: usize = 4 * MAX_STREAMS as usize * (STREAM_WINDOW + STREAM_BUFFER);

/// A frame, with its end.
fn frame(kind: u8, stream: u8, generation: u32, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, stream];
    body.extend(generation.to_be_bytes());
    body.extend(payload);
    let mut frame = cobs::encode_vec(&body);
    frame.push(0);
    frame
}

/// The first byte says which end this is and what the rest is: bytes of the port, or frames of four bytes each: kind, stream, size and
/// generation, content.
pub(crate) fn any_bytes(data: &[u8]) {
    let Some((&flags, rest)) = data.split_first() else {
        return;
    };
    let side = if flags & 1 == 0 { Side::Host } else { Side::Guest };
    let port: Vec<u8> = if flags & 2 == 0 {
        rest.to_vec()
    } else {
        rest.chunks_exact(4).flat_map(plausible).collect()
    };
    within(MOST + 2 * port.len(), || {
        let mut end = End::new(side);
        for piece in port.chunks(1 + usize::from(flags >> 2) * 97) {
            if !end.hear(piece) {
                return;
            }
        }
    });
}

fn plausible(record: &[u8]) -> Vec<u8> {
    let &[kind, stream, size, fill] = record else {
        return Vec::new();
    };
    let length = [0, 1, 4, 4, 5, 1000, MAX_STREAM_DATA, MAX_STREAM_DATA + 1][usize::from(size % 8)];
    let generation = if size >= 0xf0 { 2 } else { 1 };
    let payload = if length == 4 {
        // A port, or a credit of up to twice the window.
        (u32::from(fill) << 9).to_be_bytes().to_vec()
    } else {
        vec![fill; length]
    };
    frame(kind % 9, stream % (MAX_STREAMS + 2), generation, &payload)
}

/// One end, and what it may have told.
struct End {
    side: Side,
    mux: Mux,
    unread: BTreeMap<StreamId, usize>,
}

impl End {
    /// That is up, with three streams.
    fn new(side: Side) -> Self {
        let mut end = Self {
            side,
            mux: Mux::new(side),
            unread: BTreeMap::new(),
        };
        if side == Side::Host {
            end.mux.restart(1);
            for port in 0..3 {
                let stream = end.mux.open(port).expect("all are free");
                end.unread.insert(stream, 0);
                end.mux.send(stream, b"question");
            }
            assert!(end.hear(&frame(2, 0, 1, &[])));
        } else {
            assert!(end.hear(&frame(1, 0, 1, &[])));
            for stream in 0..3 {
                assert!(end.hear(&frame(3, stream, 1, &u32::from(stream).to_be_bytes())));
                end.mux.send(stream, b"answer");
            }
        }
        end
    }

    /// Whether it still believes the port.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let heard = self.mux.receive(bytes);
        while let Some(event) = self.mux.next_event() {
            self.told(event);
        }
        for _ in 0..4 * usize::from(MAX_STREAMS) {
            let Some(frame) = self.mux.transmit() else { break };
            self.sent(&frame);
        }
        if heard.is_err() && self.side == Side::Host {
            assert!((0..MAX_STREAMS).all(|stream| self.mux.writable(stream) == 0));
        }
        heard.is_ok()
    }

    fn told(&mut self, event: MuxEvent) {
        match event {
            MuxEvent::Restarted if self.side == Side::Guest => self.unread.clear(),
            MuxEvent::Restarted => {}
            MuxEvent::Opened { stream, .. } => {
                assert!(self.side == Side::Guest && stream < MAX_STREAMS);
                self.unread.insert(stream, 0);
            }
            MuxEvent::Data { stream, bytes } => {
                let unread = self
                    .unread
                    .get_mut(&stream)
                    .expect("no data before a stream is open");
                *unread += bytes.len();
                assert!(
                    !bytes.is_empty() && *unread <= STREAM_WINDOW,
                    "{unread} bytes unread"
                );
                // Every other stream is read at once.
                if stream % 2 == 0 {
                    self.mux.consumed(stream, std::mem::take(unread));
                }
            }
            MuxEvent::Closed { stream } | MuxEvent::Reset { stream } => {
                assert!(self.unread.contains_key(&stream));
            }
        }
    }

    /// Frames are whole, delimited, and no longer than any may be.
    fn sent(&self, frame: &[u8]) {
        let frame = frame.strip_prefix(&[0]).unwrap_or(frame);
        let body = frame.strip_suffix(&[0]).expect("a frame has an end");
        assert!(!body.contains(&0));
        let body = cobs::decode_vec(body).expect("a frame is COBS");
        assert!((HEADER..=HEADER + MAX_STREAM_DATA).contains(&body.len()));
        assert!(body[1] < MAX_STREAMS);
    }
}

/// Every three bytes are a step of one end or of the pipe between them. What is read is what was sent.
pub(crate) fn dialogue(data: &[u8]) {
    within(2 * MOST + 64 * data.len(), || {
        let mut world = World::new();
        for step in data.chunks_exact(3).take(2000) {
            world.step(step);
        }
        world.settle();
        world.check();
    });
}

/// The byte that a side sends at a place of a stream.
fn byte(serial: u32, side: usize, at: usize) -> u8 {
    (serial.wrapping_mul(2_654_435_761) as usize ^ side << 7 ^ at ^ at >> 8).wrapping_mul(31) as u8
}

/// What a side knows of a stream.
#[derive(Debug, Default, Clone, Copy)]
struct Half {
    serial: u32,
    sent: usize,
    received: usize,
    unread: usize,
}

struct World {
    ends: [Mux; 2],
    /// By writer.
    pipes: [VecDeque<u8>; 2],
    streams: [BTreeMap<StreamId, Half>; 2],
    opened: u32,
    /// By side and serial number, when a stream ends.
    sent: [BTreeMap<u32, usize>; 2],
    received: [BTreeMap<u32, usize>; 2],
    abandoned: BTreeSet<u32>,
}

impl World {
    fn new() -> Self {
        let mut ends = [Side::Host, Side::Guest].map(Mux::new);
        ends[0].restart(1);
        Self {
            ends,
            pipes: Default::default(),
            streams: Default::default(),
            opened: 0,
            sent: Default::default(),
            received: Default::default(),
            abandoned: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &[u8]) {
        let &[what, which, amount] = step else { return };
        let me = usize::from(what >> 7);
        let amount = usize::from(amount).pow(2);
        match what & 7 {
            0 => self.open(),
            1 | 2 => self.send(me, which, amount),
            3 => self.transmit(me, amount / 256),
            4 => self.deliver(me, amount),
            5 => self.read(me, amount),
            6 => {
                if let Some(id) = self.living(me, which) {
                    self.ends[me].close(id);
                }
            }
            _ => {
                if let Some(id) = self.living(me, which) {
                    self.ends[me].reset(id);
                    self.forget(me, id, true);
                }
            }
        }
    }

    fn living(&self, me: usize, which: u8) -> Option<StreamId> {
        let streams = &self.streams[me];
        streams
            .keys()
            .nth(usize::from(which) % streams.len().max(1))
            .copied()
    }

    fn open(&mut self) {
        if let Ok(id) = self.ends[0].open(self.opened) {
            self.enter(0, id, self.opened);
            self.opened += 1;
        }
    }

    fn enter(&mut self, me: usize, id: StreamId, serial: u32) {
        // One that ended both ways has no event of its own for that.
        self.forget(me, id, false);
        let half = Half {
            serial,
            ..Half::default()
        };
        self.streams[me].insert(id, half);
    }

    fn forget(&mut self, me: usize, id: StreamId, abandoned: bool) {
        if let Some(half) = self.streams[me].remove(&id) {
            self.sent[me].insert(half.serial, half.sent);
            self.received[me].insert(half.serial, half.received);
            if abandoned {
                self.abandoned.insert(half.serial);
            }
        }
    }

    fn send(&mut self, me: usize, which: u8, size: usize) {
        let Some(id) = self.living(me, which) else { return };
        let half = self.streams[me].get_mut(&id).expect("it lives");
        let range = half.sent..half.sent + size;
        let bytes: Vec<u8> = range.map(|at| byte(half.serial, me, at)).collect();
        let room = self.ends[me].writable(id);
        let taken = self.ends[me].send(id, &bytes);
        assert!(taken == size.min(room) && room <= STREAM_BUFFER);
        half.sent += taken;
    }

    fn transmit(&mut self, me: usize, frames: usize) {
        for _ in 0..=frames {
            let Some(frame) = self.ends[me].transmit() else {
                return;
            };
            self.pipes[me].extend(frame);
        }
    }

    fn deliver(&mut self, writer: usize, bytes: usize) {
        let pipe = &mut self.pipes[writer];
        let piece: Vec<u8> = pipe.drain(..bytes.min(pipe.len())).collect();
        let heard = self.ends[1 - writer].receive(&piece);
        heard.expect("an honest end says nothing that is not believed");
    }

    fn read(&mut self, me: usize, bytes: usize) {
        while let Some(event) = self.ends[me].next_event() {
            match event {
                MuxEvent::Restarted => {}
                MuxEvent::Opened { stream, port } => self.enter(me, stream, port),
                MuxEvent::Data { stream, bytes } => {
                    let half = self.streams[me]
                        .get_mut(&stream)
                        .expect("no data of what is not open");
                    for found in &bytes {
                        assert_eq!(*found, byte(half.serial, 1 - me, half.received));
                        half.received += 1;
                    }
                    half.unread += bytes.len();
                    assert!(half.unread <= STREAM_WINDOW);
                }
                MuxEvent::Closed { stream } => assert!(self.streams[me].contains_key(&stream)),
                MuxEvent::Reset { stream } => self.forget(me, stream, true),
            }
        }
        for (id, half) in &mut self.streams[me] {
            let taken = bytes.min(half.unread);
            half.unread -= taken;
            self.ends[me].consumed(*id, taken);
        }
    }

    /// Lets everything arrive and be read, until nothing moves any more.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            quiet += 1;
            for me in [0, 1] {
                self.transmit(me, usize::MAX - 1);
                if !self.pipes[me].is_empty() {
                    quiet = 0;
                }
                self.deliver(me, usize::MAX);
                self.read(0, usize::MAX);
                self.read(1, usize::MAX);
            }
        }
    }

    /// All that was sent on a stream that nobody abandoned has come.
    fn check(&mut self) {
        for me in [0, 1] {
            let ids: Vec<StreamId> = self.streams[me].keys().copied().collect();
            for id in ids {
                self.forget(me, id, false);
            }
        }
        for serial in (0..self.opened).filter(|serial| !self.abandoned.contains(serial)) {
            for me in [0, 1] {
                let [sent, received] = [self.sent[1 - me].get(&serial), self.received[me].get(&serial)];
                assert_eq!(
                    sent.unwrap_or(&0),
                    received.unwrap_or(&0),
                    "stream {serial} of side {me}"
                );
            }
        }
    }
}
