//! `run` as a client of `serve`: of one that listens in the same runtime directory, or of one that was named.
//!
//! ```text
//! RunArgs ─► ExecuteRequest ─► POST /v1/execute ─► stdout, stderr… ─► result
//! ```
//!
//! The service may be trusted, but its guests are not: what it passes on is bounded like any answer.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper::{Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use protocol::job::Chunk;
use protocol::limits::MAX_FRAME;
use protocol::{ErrorCode, Event, HostError, JobResponse};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::server::events;
use crate::service::ExecuteRequest;

/// How long connecting over TCP may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A service that listens.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    host: String,
    key: Option<HeaderValue>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Client {
    /// Connects, if somebody listens.
    pub(crate) async fn find(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).await.ok()?;
        Some(Self {
            stream: Box::new(stream),
            host: "localhost".to_owned(),
            key: None,
        })
    }

    /// Connects to the service at a URL, which is to be shown the key.
    ///
    /// # Errors
    /// The URL or key is none, or nobody answers there.
    pub(crate) async fn connect(url: &str, key: Option<&str>) -> Result<Self, HostError> {
        let wrong = |why: &str| {
            HostError::new(ErrorCode::InvalidRequest, format!("--server {url}: {why}"))
                .remedy("give it as http://HOST:PORT; to another machine, through a tunnel such as `ssh -L`")
        };
        let uri: Uri = url.parse().map_err(|_| wrong("that is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("only http is spoken here"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let connecting = timeout(CONNECT, TcpStream::connect(&address)).await;
        let connected = connecting.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|error| {
            let cause = format!("cannot connect to {address}: {error}");
            HostError::new(ErrorCode::ServiceUnreachable, cause)
        })?;
        let key = key.map(|key| HeaderValue::try_from(format!("Bearer {key}")));
        let key = key
            .transpose()
            .map_err(|_| HostError::new(ErrorCode::Unauthorized, "the key has characters that no key has"))?;
        Ok(Self {
            stream: Box::new(stream),
            host: address,
            key,
        })
    }

    /// Runs a job, and passes its events on as they come if it asks for them.
    ///
    /// # Errors
    /// The service's own, or that it did not answer as it should.
    pub(crate) async fn execute(
        self,
        request: &ExecuteRequest,
        mut on_event: impl FnMut(Event),
    ) -> Result<JobResponse, HostError> {
        let body = serde_json::to_vec(request).map_err(|error| broken(&error))?;
        let mut http = Request::post("/v1/execute")
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json");
        if request.job.stream {
            http = http.header(header::ACCEPT, events::CONTENT_TYPE);
        }
        if let Some(mut key) = self.key {
            key.set_sensitive(true);
            http = http.header(header::AUTHORIZATION, key);
        }
        let http = http
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| broken(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.stream))
            .await
            .map_err(|error| broken(&error))?;
        let answer = async {
            let response = sender.send_request(http).await.map_err(|error| broken(&error))?;
            read(response, &mut on_event).await
        };
        tokio::pin!(answer);
        tokio::select! {
            answered = &mut answer => answered,
            // What it has read is still to be taken in.
            _ = connection => answer.await,
        }
    }
}

async fn read(
    mut response: Response<Incoming>,
    on_event: &mut impl FnMut(Event),
) -> Result<JobResponse, HostError> {
    let streams = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value == events::CONTENT_TYPE);
    let succeeded = response.status().is_success();
    let mut pending = Vec::new();
    while let Some(frame) = response.body_mut().frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else {
            continue;
        };
        pending.extend_from_slice(&data);
        if pending.len() > MAX_FRAME + 1024 {
            return Err(broken(&"its answer is too long"));
        }
        while let Some(end) = streams.then(|| find(&pending, b"\n\n")).flatten() {
            let event: Vec<u8> = pending.drain(..end + 2).collect();
            match parse(&event)? {
                Message::Event(event) => on_event(event),
                Message::Result(response) => return Ok(*response),
                Message::Nothing => {}
            }
        }
    }
    match (streams, succeeded) {
        (false, true) => decode(&pending),
        (false, false) => Err(decode::<HostError>(&pending).unwrap_or_else(|error| error)),
        (true, _) => Err(broken(&"it hung up before the result")),
    }
}

enum Message {
    Event(Event),
    Result(Box<JobResponse>),
    /// One that this client has no use for.
    Nothing,
}

fn parse(event: &[u8]) -> Result<Message, HostError> {
    let mut lines = event.split(|byte| *byte == b'\n');
    let mut field = |name: &[u8]| lines.next().and_then(|line| line.strip_prefix(name));
    let (Some(name), Some(data)) = (field(b"event: "), field(b"data: ")) else {
        return Ok(Message::Nothing);
    };
    let name = std::str::from_utf8(name).unwrap_or_default();
    Ok(match name {
        events::STDOUT => Message::Event(Event::Stdout(decode::<Chunk>(data)?)),
        events::STDERR => Message::Event(Event::Stderr(decode::<Chunk>(data)?)),
        events::RESULT => Message::Result(decode(data)?),
        events::ERROR => return Err(decode::<HostError>(data)?),
        _ => Message::Nothing,
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn decode<T: DeserializeOwned>(data: &[u8]) -> Result<T, HostError> {
    serde_json::from_slice(data).map_err(|error| broken(&error))
}

fn broken(error: &dyn std::fmt::Display) -> HostError {
    HostError::new(
        ErrorCode::Internal,
        format!("the service did not answer as it should: {error}"),
    )
    .remedy("look at what `host-agent serve` says, or run with --cold, which goes without it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let stdout = parse(b"event: stdout\ndata: {\"data\":\"hi\"}\n\n").unwrap();
        assert!(matches!(stdout, Message::Event(Event::Stdout(chunk)) if chunk.data == "hi"));
        assert!(matches!(parse(b": comment\n\n").unwrap(), Message::Nothing));
        assert!(matches!(
            parse(b"event: started\ndata: {}\n\n").unwrap(),
            Message::Nothing
        ));
        let error = HostError::new(ErrorCode::VmmDied, "gone");
        let text = format!(
            "event: error\ndata: {}\n\n",
            serde_json::to_string(&error).unwrap()
        );
        assert_eq!(parse(text.as_bytes()).err(), Some(error));
        assert!(parse(b"event: result\ndata: {\n\n").is_err());
    }
}
