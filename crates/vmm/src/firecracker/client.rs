//! A client for Firecracker's API: one request in, one answer out, over a connection of its own on a Unix socket. Every
//! request has a deadline and every answer a bound, because the VMM is what a guest would break into first.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::api::Request;
use crate::error::VmmError;

/// How long an answer may take. Starting a guest is the longest: its kernel is read meanwhile, in milliseconds on hardware, in
/// many seconds on a nested host that does other things too.
const ANSWER: Duration = Duration::from_secs(30);
/// The most bytes that an answer's head, and that its body, may have.
pub(super) const MAX_ANSWER: usize = 64 << 10;
/// Between two attempts to reach a socket that is not there yet.
const RETRY: Duration = Duration::from_millis(1);

/// Firecracker's API socket.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Waits until the socket takes connections.
    ///
    /// # Errors
    /// [`VmmError::Unanswered`] after `patience`.
    pub(super) async fn listening(&self, patience: Duration) -> Result<(), VmmError> {
        let deadline = Instant::now() + patience;
        while let Err(error) = UnixStream::connect(&self.socket).await {
            if Instant::now() >= deadline {
                return Err(VmmError::Unanswered {
                    request: "the API socket".to_owned(),
                    reason: error.to_string(),
                });
            }
            sleep(RETRY).await;
        }
        Ok(())
    }

    /// Sends a request and returns the body of the answer.
    ///
    /// # Errors
    /// [`VmmError::Refused`] with Firecracker's own words, [`VmmError::Unanswered`] when there is no answer that could be used.
    pub(super) async fn send(&self, request: Request) -> Result<Bytes, VmmError> {
        self.send_within(request, ANSWER).await
    }

    /// Like [`Self::send`], with another deadline.
    pub(super) async fn send_within(&self, request: Request, patience: Duration) -> Result<Bytes, VmmError> {
        let name = request.to_string();
        let unanswered = |reason| VmmError::Unanswered {
            request: name.clone(),
            reason,
        };
        let exchanged = async { exchange(UnixStream::connect(&self.socket).await?, request).await };
        let (ok, body) = timeout(patience, exchanged)
            .await
            .map_err(|_| unanswered(format!("no answer within {:.1} s", patience.as_secs_f64())))?
            .map_err(|error| unanswered(error.to_string()))?;
        if ok {
            Ok(body)
        } else {
            Err(VmmError::Refused {
                request: name,
                fault: fault(&body),
            })
        }
    }
}

/// Gives whether the status was one of success, and the body.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request,
) -> Result<(bool, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER)
        .handshake(TokioIo::new(stream))
        .await?;
    let request = hyper::Request::builder()
        .method(request.method)
        .uri(request.path)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(request.body)))?;
    let answer = async move {
        let answer = sender.send_request(request).await?;
        let ok = answer.status().is_success();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await?
            .to_bytes();
        Ok((ok, body))
        // The sender goes here, which ends the connection.
    };
    tokio::join!(answer, connection).0
}

/// The `fault_message` of an error's body; where there is none, what there is.
pub(super) fn fault(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Fault {
        fault_message: String,
    }
    match serde_json::from_slice::<Fault>(body) {
        Ok(fault) => fault.fault_message.trim_end().to_owned(),
        Err(_) => String::from_utf8_lossy(body).escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;
    use crate::firecracker::api::actions::Action;

    const PATIENCE: Duration = Duration::from_millis(200);

    /// Sends a request to a server that answers with these bytes, and then is silent, or closes.
    async fn ask(answer: Vec<u8>, close: bool) -> Result<Bytes, VmmError> {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("api.sock"));
        let listener = UnixListener::bind(&client.socket).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&answer).await;
            if !close {
                std::future::pending::<()>().await;
            }
        });
        let result = client
            .send_within(Action::InstanceStart.request(), PATIENCE)
            .await;
        server.abort();
        result
    }

    async fn failure(answer: impl Into<Vec<u8>>, close: bool) -> String {
        ask(answer.into(), close).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn answers_and_faults_are_told_apart() {
        let fine = ask(b"HTTP/1.1 204 \r\n\r\n".to_vec(), false).await.unwrap();
        assert!(fine.is_empty());
        let fault = "HTTP/1.1 400 \r\nContent-Length: 26\r\n\r\n{\"fault_message\":\"Not so\"}";
        assert_eq!(
            failure(fault, false).await,
            "The VMM refused PUT /actions: Not so"
        );
        let other = "HTTP/1.1 500 \r\nContent-Length: 4\r\n\r\n\x1b[2J";
        assert_eq!(
            failure(other, false).await,
            "The VMM refused PUT /actions: \\u{1b}[2J"
        );
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let expected = "The VMM did not answer PUT /actions as it should: no answer within 0.2 s";
        assert_eq!(failure("", false).await, expected);
        assert_eq!(
            failure("HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{", false).await,
            expected
        );
    }

    #[tokio::test]
    async fn no_answer_is_too_large() {
        let mut body = b"HTTP/1.1 200 \r\nContent-Length: 1000000\r\n\r\n".to_vec();
        body.resize(1_000_000, b' ');
        assert!(failure(body, false).await.ends_with("length limit exceeded"));
        let mut head = b"HTTP/1.1 200 \r\nX: ".to_vec();
        head.resize(1_000_000, b'x');
        assert!(failure(head, false).await.contains("did not answer PUT /actions"));
    }

    #[tokio::test]
    async fn a_broken_conversation_is_an_error() {
        for answer in [
            "",
            "HTTP/1.1 200 \r\nContent-Le",
            "HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{",
            "+OK\r\n",
        ] {
            let error = failure(answer, true).await;
            assert!(
                error.starts_with("The VMM did not answer PUT /actions as it should: "),
                "{error}"
            );
            assert!(!error.contains("within"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("api.sock"));
        let error = client.listening(Duration::from_millis(20)).await.unwrap_err();
        assert!(error.to_string().contains("the API socket"), "{error}");
        let path = client.socket.clone();
        let late = tokio::spawn(async move {
            sleep(Duration::from_millis(20)).await;
            UnixListener::bind(path).unwrap()
        });
        client.listening(Duration::from_secs(10)).await.unwrap();
        late.await.unwrap();
    }
}
