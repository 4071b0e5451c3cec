//! Reaches a port of the guest through the Unix socket of Firecracker's vsock device:
//!
//! ```text
//! connect ─► "CONNECT <port>\n" ─► "OK <host's port>\n" ─► the guest's bytes
//!     ▲            └─ closed: nobody listens yet;  silent: the guest has no driver yet, or the request was lost
//!     └──── again ─────────────────┘
//! ```
//!
//! See Firecracker's `docs/vsock.md`, "Host-Initiated Connections".

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::error::VmmError;

/// The longest answer that there can be: `OK 4294967295\n`.
const MAX_LINE: usize = 14;
/// Before the next attempt when nobody listened.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the first attempt may be silent; each silent one doubles it.
const FIRST_PATIENCE: Duration = Duration::from_millis(100);
/// How long any attempt may be silent. Firecracker itself gives up a request after two seconds.
const MAX_PATIENCE: Duration = Duration::from_secs(2);

/// Connects to `port`, trying until `deadline`.
///
/// # Errors
/// [`VmmError::Silent`] at the deadline, [`VmmError::Unanswered`] for an answer that is not Firecracker's.
pub(super) async fn connect(socket: &Path, port: u32, deadline: Instant) -> Result<UnixStream, VmmError> {
    let began = Instant::now();
    let mut patience = FIRST_PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(patience.min(left), attempt(socket, port)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                let request = format!("CONNECT {port}");
                return Err(VmmError::Unanswered {
                    request,
                    reason: error.to_string(),
                });
            }
            Ok(Err(_)) => sleep(PAUSE.min(left)).await,
            Err(_) => patience = (patience * 2).min(MAX_PATIENCE),
        }
        if Instant::now() >= deadline {
            return Err(VmmError::Silent {
                what: "The guest",
                after: began.elapsed(),
            });
        }
    }
}

/// `InvalidData` means that trying again is of no use.
async fn attempt(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    ask(&mut stream, port).await?;
    Ok(stream)
}

/// Asks for the port, and leaves the stream where the guest's bytes begin.
pub(super) async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), port: u32) -> io::Result<()> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let line = read_line(stream).await?;
    let answer = line
        .strip_prefix(b"OK ")
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    match answer {
        Some(_) => Ok(()),
        None => Err(invalid(&line)),
    }
}

/// Reads up to a newline and not one byte further: what follows is the guest's.
async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(MAX_LINE);
    while line.len() < MAX_LINE {
        match stream.read_u8().await? {
            b'\n' => return Ok(line),
            byte => line.push(byte),
        }
    }
    Err(invalid(&line))
}

fn invalid(line: &[u8]) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("answered with \"{}\"", line.escape_ascii()),
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Connects to a device that does one of `attempts` with each connection: answers with these bytes and closes, or, with
    /// `None`, says nothing.
    async fn reach(attempts: Vec<Option<&'static [u8]>>, patience: Duration) -> Result<UnixStream, VmmError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let device = tokio::spawn(async move {
            let mut silent = Vec::new();
            for answer in attempts {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 13];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(&request, b"CONNECT 5000\n");
                match answer {
                    Some(bytes) => stream.write_all(bytes).await.unwrap(),
                    None => silent.push(stream),
                }
            }
            std::future::pending::<()>().await;
        });
        let result = connect(&path, 5000, Instant::now() + patience).await;
        device.abort();
        result
    }

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_guest_that_listens_late_is_reached() {
        let attempts = vec![Some(&b""[..]), None, Some(b""), Some(b"OK 1073741824\nhello")];
        let mut stream = reach(attempts, LONG).await.unwrap();
        let mut first = Vec::new();
        stream.read_to_end(&mut first).await.unwrap();
        assert_eq!(first, b"hello", "what follows the line is the guest's");
    }

    #[tokio::test]
    async fn garbage_is_refused_at_once() {
        for garbage in [
            "HTTP/1.1 400 \r\n",
            "OK\n",
            "OK -1\n",
            "OK +1\n",
            "OK 99999999999",
            "ok 5\n",
            "\n",
        ] {
            let error = reach(vec![Some(garbage.as_bytes())], LONG).await.unwrap_err();
            assert!(
                matches!(error, VmmError::Unanswered { .. }),
                "{garbage:?}: {error}"
            );
            assert!(error.to_string().contains("CONNECT 5000"), "{error}");
        }
        let error = reach(vec![Some(&[b'A'; 1000])], LONG).await.unwrap_err();
        assert!(
            error.to_string().ends_with("answered with \"AAAAAAAAAAAAAA\""),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_silent_guest_is_given_up_at_the_deadline() {
        let began = Instant::now();
        let error = reach(vec![None, None, None], Duration::from_millis(250))
            .await
            .unwrap_err();
        assert!(matches!(error, VmmError::Silent { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
