//! A connection to a port of the guest: bytes both ways.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::qemu::MuxStream;

/// A connection to the guest-runner. When the VMM dies, what had arrived is still read, then reads end and writes fail.
#[derive(Debug)]
pub struct Channel(Transport);

#[derive(Debug)]
enum Transport {
    /// Firecracker's vsock, after its handshake.
    Unix(UnixStream),
    /// A stream of QEMU's serial port.
    Mux(MuxStream),
}

impl From<UnixStream> for Channel {
    fn from(stream: UnixStream) -> Self {
        Self(Transport::Unix(stream))
    }
}

impl From<MuxStream> for Channel {
    fn from(stream: MuxStream) -> Self {
        Self(Transport::Mux(stream))
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Mux(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Mux(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Mux(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Mux(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
