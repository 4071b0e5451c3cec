//! Frames: a 4-byte big-endian length, then that many bytes of JSON. A length over [`MAX_FRAME`] is refused before
//! anything is allocated for it.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// The bytes of one frame around `payload`.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn encode(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= MAX_FRAME);
    let length = length.ok_or(FrameError::TooLarge(payload.len()))?;
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// The bytes of one frame around `message` as JSON.
///
/// # Errors
/// [`FrameError::TooLarge`], and [`FrameError::Json`] when the message has no JSON form.
pub fn encode_message(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    encode(&serde_json::to_vec(message).map_err(FrameError::Json)?)
}

/// The message in a frame's payload.
///
/// # Errors
/// [`FrameError::Json`].
pub fn decode_message<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(FrameError::Json)
}

/// Takes bytes as they come, in pieces of any size, and gives whole payloads.
///
/// Holds at most one incomplete frame; its buffer grows with what has arrived, not with what the header promises.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
}

impl FrameDecoder {
    /// Adds bytes from the transport.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole payload, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; the decoder is of no use after that.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(length) = self.announced()? else {
            return Ok(None);
        };
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(HEADER + length);
        let mut payload = std::mem::replace(&mut self.buffer, rest);
        payload.drain(..HEADER);
        Ok(Some(payload))
    }

    /// The transport has ended.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }

    fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if length > MAX_FRAME {
            Err(FrameError::TooLarge(length))
        } else {
            Ok(Some(length))
        }
    }
}

/// Reads one frame's payload; `None` when the peer closed between frames.
///
/// # Errors
/// Any [`FrameError`] but `Json`.
pub fn read_frame(from: &mut impl Read) -> Result<Option<Vec<u8>>, FrameError> {
    let mut header = [0; HEADER];
    match read_up_to(from, &mut header)? {
        0 => return Ok(None),
        HEADER => {}
        _ => return Err(FrameError::Truncated),
    }
    let length = u32::from_be_bytes(header) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLarge(length));
    }
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

fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(feature = "codec")]
mod codec {
    use bytes::{Buf, BufMut, Bytes, BytesMut};
    use tokio_util::codec::{Decoder, Encoder};

    use super::{FrameError, HEADER};
    use crate::limits::MAX_FRAME;

    /// Frames as a [`tokio_util::codec`]: payloads in, payloads out.
    #[derive(Debug, Default, Clone, Copy)]
    pub struct FrameCodec;

    impl Decoder for FrameCodec {
        type Item = Bytes;
        type Error = FrameError;

        fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
            let Some(header) = from.first_chunk::<HEADER>() else {
                return Ok(None);
            };
            let length = u32::from_be_bytes(*header) as usize;
            if length > MAX_FRAME {
                return Err(FrameError::TooLarge(length));
            }
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
            if payload.len() > MAX_FRAME {
                return Err(FrameError::TooLarge(payload.len()));
            }
            to.reserve(HEADER + payload.len());
            to.put_u32(u32::try_from(payload.len()).map_err(|_| FrameError::TooLarge(payload.len()))?);
            to.put_slice(payload);
            Ok(())
        }
    }
}

#[cfg(feature = "codec")]
pub use codec::FrameCodec;
