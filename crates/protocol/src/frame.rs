//! Frames: a 4-byte big-endian length, then that many bytes of JSON. A length over [`MAX_FRAME`] is refused before
//! anything is allocated for it.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ErrorCode, HostError};
use crate::limits::MAX_FRAME;

/// Bytes before the payload.
pub const HEADER: usize = 4;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length in the header is over the limit.
    #[error("A frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLarge(usize),
    /// The peer went away in the middle of a frame.
    #[error("The connection ended in the middle of a frame")]
    Truncated,
    /// The payload is not the JSON that it should be.
    #[error("A frame is not the JSON that it should be")]
    Json(#[source] serde_json::Error),
    /// The transport failed.
    #[error("The connection failed")]
    Io(#[from] io::Error),
}

impl From<FrameError> for HostError {
    fn from(error: FrameError) -> Self {
        match &error {
            FrameError::Io(source) => Self::new(ErrorCode::GuestSilent, format!("{error}: {source}")),
            FrameError::Json(source) => Self::new(ErrorCode::GuestProtocol, format!("{error}: {source}")),
            _ => Self::new(ErrorCode::GuestProtocol, error.to_string()),
        }
    }
}

/// The bytes of one frame around `payload`.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn encode(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let header = header(payload.len())?;
    Ok([header.as_slice(), payload].concat())
}

/// The bytes of one frame around `message` as JSON.
///
/// # Errors
/// [`FrameError::TooLarge`], and [`FrameError::Json`] when the message has no JSON form.
pub fn encode_message(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Json)?;
    let header = header(frame.len() - HEADER)?;
    frame[..HEADER].copy_from_slice(&header);
    Ok(frame)
}

/// The message in a frame's payload.
///
/// # Errors
/// [`FrameError::Json`].
pub fn decode_message<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(FrameError::Json)
}

fn header(length: usize) -> Result<[u8; HEADER], FrameError> {
    match u32::try_from(length) {
        Ok(short) if length <= MAX_FRAME => Ok(short.to_be_bytes()),
        _ => Err(FrameError::TooLarge(length)),
    }
}

/// The length that a header announces, once all of it is there.
fn announced(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    match u32::from_be_bytes(*header) as usize {
        length if length > MAX_FRAME => Err(FrameError::TooLarge(length)),
        length => Ok(Some(length)),
    }
}

/// Takes bytes as they come, in pieces of any size, and gives whole payloads.
///
/// Its buffer grows with what has arrived, not with what a header promises: one incomplete frame at most, if all whole
/// ones are taken out after every [`push`](Self::push).
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    /// Where the next frame begins; what is before has been given out.
    start: usize,
}

impl FrameDecoder {
    /// Adds bytes from the transport.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole payload, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; the decoder is of no use after that.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some(length) = announced(rest)? else {
            return Ok(None);
        };
        let Some(payload) = rest.get(HEADER..HEADER + length) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.start += HEADER + length;
        if self.start == self.buffer.len() {
            *self = Self::default(); // A large frame leaves no large buffer behind.
        }
        Ok(Some(payload))
    }

    /// The transport has ended.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.start == self.buffer.len() {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }
}

/// Reads one frame's payload; `None` when the peer closed between frames.
///
/// # Errors
/// Any [`FrameError`] but `Json`.
pub fn read_frame(from: &mut impl Read) -> Result<Option<Vec<u8>>, FrameError> {
    let mut header = Vec::with_capacity(HEADER);
    if from.by_ref().take(HEADER as u64).read_to_end(&mut header)? == 0 {
        return Ok(None);
    }
    let length = announced(&header)?.ok_or(FrameError::Truncated)?;
    let mut payload = Vec::new();
    let read = from.take(length as u64).read_to_end(&mut payload)?;
    if read < length {
        Err(FrameError::Truncated)
    } else {
        Ok(Some(payload))
    }
}

/// Writes one frame.
///
/// # Errors
/// [`FrameError::TooLarge`] and [`FrameError::Io`].
pub fn write_frame(to: &mut impl Write, payload: &[u8]) -> Result<(), FrameError> {
    to.write_all(&encode(payload)?)?;
    Ok(to.flush()?)
}

#[cfg(feature = "codec")]
mod codec {
    use bytes::{Buf, BufMut, Bytes, BytesMut};
    use tokio_util::codec::{Decoder, Encoder};

    use super::{FrameError, HEADER, announced, header};

    /// Frames as a [`tokio_util::codec`]: payloads in, payloads out.
    #[derive(Debug, Default, Clone, Copy)]
    pub struct FrameCodec;

    impl Decoder for FrameCodec {
        type Item = Bytes;
        type Error = FrameError;

        fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
            let Some(length) = announced(from)? else {
                return Ok(None);
            };
            if from.len() < HEADER + length {
                return Ok(None);
            }
            from.advance(HEADER);
            Ok(Some(from.split_to(length).freeze()))
        }

        fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
            match self.decode(from)? {
                None if !from.is_empty() => Err(FrameError::Truncated),
                frame => Ok(frame),
            }
        }
    }

    impl Encoder<&[u8]> for FrameCodec {
        type Error = FrameError;

        fn encode(&mut self, payload: &[u8], to: &mut BytesMut) -> Result<(), FrameError> {
            let header = header(payload.len())?;
            to.reserve(HEADER + payload.len());
            to.put_slice(&header);
            to.put_slice(payload);
            Ok(())
        }
    }
}

#[cfg(feature = "codec")]
pub use codec::FrameCodec;
