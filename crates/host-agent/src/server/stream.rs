//! A client's connection: it has so much time to take what it is sent, it is told why even where hyper refuses what is no
//! HTTP, and it is not cut off while it still sends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_io_timeout::TimeoutStream;

use super::problem;
use super::trace::TraceId;

/// How long a client may take none of what it is sent.
const UNREAD: Duration = Duration::from_secs(30);
/// What is still read of a connection that has been closed from here, and for how long: closed at once, the kernel would reset it
/// and the client might never read why (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// A connection.
pub(super) struct Stream<S> {
    stream: Pin<Box<TimeoutStream<S>>>,
    /// In place of what hyper has written, and not sent yet.
    instead: Vec<u8>,
    end: Option<End>,
}

/// This side is closed, the other one perhaps not.
struct End {
    closed: bool,
    left: usize,
    at: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite> Stream<S> {
    pub(super) fn new(stream: S) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(UNREAD));
        Self {
            stream: Box::pin(stream),
            instead: Vec::new(),
            end: None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_empty() {
            match in_words(bytes) {
                Some(words) => self.instead = words,
                None => return self.stream.as_mut().poll_write(cx, bytes),
            }
        }
        let this = &mut *self;
        while !this.instead.is_empty() {
            match ready!(this.stream.as_mut().poll_write(cx, &this.instead))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(this.instead.drain(..written)),
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let end = this.end.get_or_insert_with(|| End {
            closed: false,
            left: LINGER_BYTES,
            at: Box::pin(sleep_until(Instant::now() + LINGER)),
        });
        if !end.closed {
            ready!(this.stream.as_mut().poll_shutdown(cx))?;
            end.closed = true;
        }
        let mut bytes = [0; 4096];
        while end.left > 0 && end.at.as_mut().poll(cx).is_pending() {
            let mut into = ReadBuf::new(&mut bytes);
            match ready!(this.stream.as_mut().poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {
                    end.left = end.left.saturating_sub(into.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What hyper refuses by itself, before there is a request to route, it refuses without a word. The same with a problem for its
/// body, if `bytes` are that: nothing else that is sent has no body, a status of 4xx and no trace id.
fn in_words(bytes: &[u8]) -> Option<Vec<u8>> {
    const LONGEST: usize = 256;
    if bytes.len() > LONGEST || !bytes.starts_with(b"HTTP/1.1 4") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?.to_ascii_lowercase();
    let has = |field: &str| head.lines().any(|line| line.starts_with(field));
    if !has("content-length: 0") || has("x-trace-id:") {
        return None;
    }
    let status: StatusCode = head.get(9..12)?.parse().ok()?;
    let trace_id = TraceId::random();
    let body = problem::text(status, &problem::bare(status), &trace_id);
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {}\r\nx-trace-id: {}\r\ncontent-length: {}\r\n\r\n",
        problem::CONTENT_TYPE,
        trace_id.as_str(),
        body.len()
    );
    Some((head + &body).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_hyper_s_own_is_put_into_words() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Fri, 27 Nov 2026 08:00:00 GMT\r\n\r\n";
        let words = String::from_utf8(in_words(own).unwrap()).unwrap();
        assert!(words.starts_with("HTTP/1.1 431 "), "{words}");
        let (head, body) = words.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "{words}"
        );
        assert!(body.contains("\"code\":\"request_too_large\""), "{words}");
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-trace-id: 1\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\n",
            b"{\"stdout\":\"HTTP/1.1 400",
            b"",
        ] {
            assert!(in_words(other).is_none());
        }
    }
}
