//! Whatever the pieces, the payloads that went in come out; whatever the bytes, nothing panics.

use std::io::Read;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use protocol::frame::{FrameCodec, FrameDecoder, FrameError, HEADER, encode, read_frame, write_frame};
use protocol::limits::MAX_FRAME;
use tokio_util::codec::{Decoder, Encoder};

/// Gives its bytes in pieces of the given sizes, over and over.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], sizes: &'a [usize]) -> Self {
        let sizes = sizes.iter().cycle();
        Self { bytes, sizes }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let size = (*self.sizes.next()?).min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(size);
        self.bytes = rest;
        (!piece.is_empty()).then_some(piece)
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.sizes.next().map_or(0, |size| *size).min(buffer.len());
        self.bytes.read(&mut buffer[..size])
    }
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..200), 0..10)
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(1..50_usize, 1..10)
}

fn joined(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in payloads {
        write_frame(&mut bytes, payload).unwrap();
    }
    bytes
}

fn decoded(pieces: Pieces<'_>) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut decoder = FrameDecoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    decoder.finish()?;
    Ok(frames)
}

fn decoded_by_codec(pieces: Pieces<'_>) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(frame) = FrameCodec.decode(&mut buffer)? {
            frames.push(frame.to_vec());
        }
    }
    match FrameCodec.decode_eof(&mut buffer)? {
        None => Ok(frames),
        Some(frame) => panic!("{frame:?} was not given out before the end"),
    }
}

fn read(mut pieces: Pieces<'_>) -> Result<Vec<Vec<u8>>, FrameError> {
    std::iter::from_fn(|| read_frame(&mut pieces).transpose()).collect()
}

type Reader = fn(Pieces<'_>) -> Result<Vec<Vec<u8>>, FrameError>;
const READERS: [Reader; 3] = [decoded, decoded_by_codec, read];

proptest! {
    #[test]
    fn payloads_come_back_whatever_the_pieces(payloads in payloads(), sizes in sizes()) {
        let bytes = joined(&payloads);
        for reader in READERS {
            prop_assert_eq!(&reader(Pieces::new(&bytes, &sizes)).unwrap(), &payloads);
        }
    }

    #[test]
    fn the_codec_writes_the_same_frames(payload in vec(any::<u8>(), 0..500)) {
        let mut bytes = BytesMut::new();
        FrameCodec.encode(&payload, &mut bytes).unwrap();
        prop_assert_eq!(&bytes[..], &encode(&payload).unwrap()[..]);
        prop_assert_eq!(bytes.len(), HEADER + payload.len());
    }

    #[test]
    fn a_cut_frame_is_truncated(
        payload in vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>(), sizes in sizes(),
    ) {
        let bytes = encode(&payload).unwrap();
        let bytes = &bytes[..1 + cut.index(bytes.len() - 1)];
        for reader in READERS {
            let result = reader(Pieces::new(bytes, &sizes));
            prop_assert!(matches!(result, Err(FrameError::Truncated)), "{result:?}");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_the_header_alone(
        length in (MAX_FRAME as u32 + 1)..=u32::MAX, rest in vec(any::<u8>(), 0..20), sizes in sizes(),
    ) {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(rest);
        for reader in READERS {
            let result = reader(Pieces::new(&bytes, &sizes));
            prop_assert!(matches!(result, Err(FrameError::TooLarge(n)) if n == length as usize), "{result:?}");
        }
    }

    #[test]
    fn garbage_is_taken_alike_by_all_readers(bytes in vec(prop_oneof![Just(0), any::<u8>()], 0..300), sizes in sizes()) {
        let outcome = |reader: Reader| reader(Pieces::new(&bytes, &sizes)).map_err(|error| error.to_string());
        prop_assert_eq!(outcome(decoded), outcome(read));
        prop_assert_eq!(outcome(decoded_by_codec), outcome(read));
    }
}

#[test]
fn the_largest_frame_passes_in_small_pieces_and_one_byte_more_does_not() {
    let mut payload: Vec<u8> = (0..MAX_FRAME).map(|at| at as u8).collect();
    let bytes = encode(&payload).unwrap();
    let frames = decoded(Pieces::new(&bytes, &[1000])).unwrap();
    assert!(frames == [payload.as_slice()]);

    payload.push(0);
    assert!(matches!(encode(&payload), Err(FrameError::TooLarge(_))));
    let result = FrameCodec.encode(&payload, &mut BytesMut::new());
    assert!(matches!(result, Err(FrameError::TooLarge(_))));
}

/// A million of the smallest frames in one piece: what is left must not be moved for each of them.
#[test]
fn many_frames_at_a_time_cost_no_more_than_their_bytes() {
    let bytes = vec![0; HEADER << 20];
    let frames = decoded(Pieces::new(&bytes, &[bytes.len()])).unwrap();
    assert_eq!(frames.len(), 1 << 20);
}
