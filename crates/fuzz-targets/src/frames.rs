//! Frames, read in the three ways that there are.

use bytes::BytesMut;
use protocol::frame::{FrameCodec, FrameDecoder, FrameError, encode, read_frame};
use protocol::limits::MAX_FRAME;
use tokio_util::codec::Decoder as _;

use crate::memory::within;

/// How a stream of frames ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Clean,
    Truncated,
    TooLarge(usize),
}

fn end(error: FrameError) -> End {
    match error {
        FrameError::Truncated => End::Truncated,
        FrameError::TooLarge(length) => {
            assert!(length > MAX_FRAME);
            End::TooLarge(length)
        }
        error => panic!("bytes in memory do not fail: {error}"),
    }
}

/// The first byte says into pieces of what size the rest is cut.
pub(crate) fn all_readers_agree(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else {
        return;
    };
    let most = 8 * bytes.len() + (64 << 10);
    let decoded = within(most, || decoder(bytes, usize::from(cut) + 1));
    let read = within(most, || reader(bytes));
    let coded = within(most, || codec(bytes));
    assert_eq!(decoded, read);
    assert_eq!(decoded, coded);
    let mut again = Vec::new();
    for payload in &decoded.0 {
        again.extend(encode(payload).expect("it was within the limit"));
    }
    assert!(bytes.starts_with(&again), "what is encoded is what was decoded");
    assert_eq!(decoded.1 == End::Clean, again.len() == bytes.len());
}

fn decoder(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, End) {
    let mut decoder = FrameDecoder::default();
    let mut payloads = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(payload)) => payloads.push(payload),
                Ok(None) => break,
                Err(error) => return (payloads, end(error)),
            }
        }
    }
    (payloads, decoder.finish().map_or_else(end, |()| End::Clean))
}

fn reader(mut bytes: &[u8]) -> (Vec<Vec<u8>>, End) {
    let mut payloads = Vec::new();
    loop {
        match read_frame(&mut bytes) {
            Ok(Some(payload)) => payloads.push(payload),
            Ok(None) => return (payloads, End::Clean),
            Err(error) => return (payloads, end(error)),
        }
    }
}

fn codec(bytes: &[u8]) -> (Vec<Vec<u8>>, End) {
    let mut bytes = BytesMut::from(bytes);
    let mut payloads = Vec::new();
    loop {
        match FrameCodec.decode_eof(&mut bytes) {
            Ok(Some(payload)) => payloads.push(payload.to_vec()),
            Ok(None) => return (payloads, End::Clean),
            Err(error) => return (payloads, end(error)),
        }
    }
}
