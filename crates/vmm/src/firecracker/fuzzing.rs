//! Firecracker's part of [`crate::fuzzing`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::api::actions::Action;
use super::{api, client, fifo, handshake};

/// The most bytes that the body of an answer may have.
pub const MAX_HTTP_ANSWER: usize = client::MAX_ANSWER;

/// An answer of the API.
#[derive(Debug)]
pub struct HttpAnswer {
    /// Its status was one of success.
    pub ok: bool,
    /// Its body.
    pub body: Vec<u8>,
    /// What an error would say of the body.
    pub fault: String,
}

/// What the client makes of an API that sends these bytes and hangs up.
///
/// # Errors
/// That is no answer.
pub async fn http_answer(bytes: &[u8]) -> Result<HttpAnswer, String> {
    let answer = client::exchange(Peer::new(bytes), Action::InstanceStart.request()).await;
    let (ok, body) = answer.map_err(|error| error.to_string())?;
    Ok(HttpAnswer {
        ok,
        fault: client::fault(&body),
        body: body.to_vec(),
    })
}

/// The version in the body of an answer.
#[must_use]
pub fn version(body: &[u8]) -> Option<(u32, u32, u32)> {
    api::version::answer(body)
}

/// What comes of a request for a port that is answered with these bytes, and how many of them were taken.
pub async fn handshake(bytes: &[u8]) -> (io::Result<()>, usize) {
    let mut peer = Peer::new(bytes);
    let outcome = handshake::ask(&mut peer, 5000).await;
    (outcome, bytes.len() - peer.answer.len())
}

/// The last line of metrics in these bytes.
pub async fn metrics(bytes: &[u8]) -> Option<Value> {
    let (last, seen) = watch::channel(None);
    fifo::read_lines(bytes, last).await;
    seen.borrow().clone()
}

/// Answers with these bytes once it was asked something, and hangs up.
struct Peer<'a> {
    answer: &'a [u8],
    asked: bool,
    reader: Option<Waker>,
}

impl<'a> Peer<'a> {
    fn new(answer: &'a [u8]) -> Self {
        Self {
            answer,
            asked: false,
            reader: None,
        }
    }
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (piece, rest) = self.answer.split_at(self.answer.len().min(buffer.remaining()));
        buffer.put_slice(piece);
        self.answer = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
