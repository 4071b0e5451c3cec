//! A request and its answers over one channel.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use protocol::frame::{FrameCodec, FrameError, decode_message};
use protocol::{ControlRequest, ControlResponse, Event, Hello, JobRequest, JobResponse, control};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;
use vmm::VmmError;

use crate::answer::{self, Allowance};
use crate::error::EngineError;
use crate::shape::{Shape, shape};

/// The longest answer to a control request, in bytes.
const MAX_CONTROL: usize = 64 << 10;
/// When a connection ends, the VMM's death may be the reason, and shows a moment later.
const REASON: Duration = Duration::from_secs(1);

/// Waits for `work`, but no longer than until `deadline`, and not at all once the machine has `failed`.
///
/// # Errors
/// Those of `work`; [`EngineError::Vmm`] with what `failed`; `None` at the deadline.
pub(crate) async fn guarded<T>(
    work: impl Future<Output = Result<T, EngineError>>,
    failed: impl Future<Output = VmmError>,
    deadline: Instant,
) -> Option<Result<T, EngineError>> {
    tokio::pin!(failed);
    let done = tokio::select! {
        biased;
        done = work => done,
        failure = &mut failed => return Some(Err(failure.into())),
        () = tokio::time::sleep_until(deadline.into()) => return None,
    };
    match done {
        Err(
            error @ (EngineError::Closed(_) | EngineError::Frame(FrameError::Io(_) | FrameError::Truncated)),
        ) => {
            let failure = tokio::time::timeout(REASON, failed).await;
            Some(Err(failure.map_or(error, EngineError::from)))
        }
        done => Some(done),
    }
}

fn not_json(error: serde_json::Error) -> EngineError {
    EngineError::Frame(FrameError::Json(error))
}

fn other_answer() -> EngineError {
    EngineError::Answer("it answered another request".to_owned())
}

/// One connection to the guest-runner.
#[derive(Debug)]
pub(crate) struct Conversation<T>(Framed<T, FrameCodec>);

impl<T: AsyncRead + AsyncWrite + Unpin> Conversation<T> {
    pub(crate) fn new(channel: T) -> Self {
        Self(Framed::new(channel, FrameCodec))
    }

    /// Asks who is there.
    ///
    /// # Errors
    /// Any but [`EngineError::Vmm`] and [`EngineError::Silent`].
    pub(crate) async fn hello(&mut self) -> Result<Hello, EngineError> {
        match self.ask("hello", &ControlRequest::Hello).await? {
            ControlResponse::Hello(hello) if hello.version == control::VERSION => Ok(hello),
            ControlResponse::Hello(hello) => Err(EngineError::Answer(format!(
                "it speaks version {} of the control protocol, not {}",
                hello.version,
                control::VERSION
            ))),
            _ => Err(other_answer()),
        }
    }

    /// Has interpreters started that wait for a job.
    ///
    /// # Errors
    /// As [`Self::hello`].
    pub(crate) async fn park(&mut self, wanted: control::Park) -> Result<control::Parked, EngineError> {
        match self.ask("park", &ControlRequest::Park(wanted)).await? {
            ControlResponse::Parked(parked) => Ok(parked),
            _ => Err(other_answer()),
        }
    }

    /// Has a restored guest become a machine of its own.
    ///
    /// # Errors
    /// As [`Self::hello`]. The machine must not be used then.
    pub(crate) async fn identity(
        &mut self,
        identity: &control::Identity,
    ) -> Result<control::Confirmed, EngineError> {
        match self
            .ask("identity", &ControlRequest::Identity(identity.clone()))
            .await?
        {
            ControlResponse::Identity(confirmed) if confirmed.machine_id == identity.machine_id => {
                Ok(confirmed)
            }
            _ => Err(other_answer()),
        }
    }

    async fn ask(
        &mut self,
        name: &'static str,
        request: &ControlRequest,
    ) -> Result<ControlResponse, EngineError> {
        self.send(request).await?;
        let payload = self.receive(name).await?;
        if payload.len() > MAX_CONTROL {
            return Err(EngineError::Frame(FrameError::TooLarge(payload.len())));
        }
        match decode_message(&payload).map_err(EngineError::Frame)? {
            ControlResponse::Error(error) => Err(EngineError::Refused {
                request: name,
                error: answer::bounded(error),
            }),
            response => Ok(response),
        }
    }

    /// Sends a job.
    ///
    /// # Errors
    /// [`EngineError::Request`] when it fits no frame, [`EngineError::Frame`] when the channel fails.
    pub(crate) async fn submit(&mut self, request: &JobRequest) -> Result<(), EngineError> {
        self.send(request).await
    }

    /// Passes on the job's events, and gives its response once that has been found acceptable.
    ///
    /// # Errors
    /// [`EngineError::Frame`], [`EngineError::Answer`], [`EngineError::Closed`].
    pub(crate) async fn response(
        &mut self,
        request: &JobRequest,
        mut on_event: impl FnMut(Event),
    ) -> Result<JobResponse, EngineError> {
        let mut allowance = Allowance::of(request);
        loop {
            let payload = self.receive("the job").await?;
            if shape(&payload).map_err(not_json)? == Shape::Response {
                let response = decode_message(&payload).map_err(EngineError::Frame)?;
                return answer::check(response, request).map_err(EngineError::Answer);
            }
            let event = decode_message(&payload).map_err(EngineError::Frame)?;
            allowance.take(&event).map_err(EngineError::Answer)?;
            on_event(event);
        }
    }

    async fn send(&mut self, message: &impl serde::Serialize) -> Result<(), EngineError> {
        let payload = serde_json::to_vec(message).map_err(not_json)?;
        self.0
            .send(payload.as_slice())
            .await
            .map_err(|error| match error {
                FrameError::TooLarge(length) => EngineError::Request(answer::too_large(length)),
                error => EngineError::Frame(error),
            })
    }

    async fn receive(&mut self, request: &'static str) -> Result<bytes::Bytes, EngineError> {
        match self.0.next().await {
            Some(frame) => frame.map_err(EngineError::Frame),
            None => Err(EngineError::Closed(request)),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::frame::encode_message;
    use protocol::job::Chunk;
    use protocol::{ErrorCode, HostError, Language};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn request() -> JobRequest {
        JobRequest {
            stream: true,
            ..JobRequest::new("t-1", Language::Bash, "echo hi")
        }
    }

    fn answer() -> JobResponse {
        JobResponse {
            trace_id: "t-1".into(),
            stdout: "hi\n".into(),
            ..JobResponse::default()
        }
    }

    async fn died() -> VmmError {
        VmmError::Transport("the machine has failed".to_owned())
    }

    /// What the host makes of a guest that says exactly `bytes` and then hangs up.
    async fn hear(bytes: Vec<u8>) -> Result<(JobResponse, Vec<Event>), HostError> {
        let (host, mut guest) = duplex(1 << 10);
        let guest = async move {
            let mut header = [0; 4];
            guest.read_exact(&mut header).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes(header) as usize];
            guest.read_exact(&mut payload).await.unwrap();
            let _ = guest.write_all(&bytes).await;
        };
        let host = async {
            let mut conversation = Conversation::new(host);
            let mut events = Vec::new();
            conversation.submit(&request()).await?;
            let response = conversation
                .response(&request(), |event| events.push(event))
                .await?;
            Ok::<_, EngineError>((response, events))
        };
        let (heard, ()) = tokio::join!(host, guest);
        heard.map_err(HostError::from)
    }

    async fn refused(bytes: Vec<u8>) -> String {
        let error = hear(bytes).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::GuestProtocol);
        error.cause
    }

    #[tokio::test]
    async fn events_come_before_the_response() {
        let chunk = Event::Stdout(Chunk {
            data: "hi\n".into(),
            data_base64: None,
        });
        let mut bytes = encode_message(&Event::Started).unwrap();
        bytes.extend(encode_message(&chunk).unwrap());
        bytes.extend(encode_message(&answer()).unwrap());
        assert_eq!(
            hear(bytes).await.unwrap(),
            (answer(), vec![Event::Started, chunk])
        );
    }

    #[tokio::test]
    async fn an_oversized_frame_is_refused_before_it_is_read() {
        let cause = refused(vec![0xff; 8]).await;
        assert!(cause.contains("4294967295 bytes"), "{cause}");
    }

    #[tokio::test]
    async fn truncated_frames_and_hanging_up_are_told_apart() {
        let mut bytes = encode_message(&answer()).unwrap();
        bytes.pop();
        assert!(refused(bytes).await.contains("middle of a frame"));
        assert!(refused(Vec::new()).await.contains("closed the connection"));
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        for payload in ["", "hello", "{}", "[1]", "{\"event\":\"bang\"}", "\u{feff}{}"] {
            let bytes = protocol::frame::encode(payload.as_bytes()).unwrap();
            assert!(refused(bytes).await.contains("not the JSON"), "{payload}");
        }
        assert!(
            refused(protocol::frame::encode(&[b'['; 100_000]).unwrap())
                .await
                .contains("not the JSON")
        );
    }

    #[tokio::test]
    async fn another_job_s_answer_is_refused() {
        let other = JobResponse {
            trace_id: "t-2".into(),
            ..answer()
        };
        assert!(
            refused(encode_message(&other).unwrap())
                .await
                .contains("trace_id")
        );
    }

    async fn say_hello(reply: &ControlResponse) -> Result<Hello, EngineError> {
        let (host, mut guest) = duplex(1 << 20);
        guest.write_all(&encode_message(reply).unwrap()).await.unwrap();
        Conversation::new(host).hello().await
    }

    #[tokio::test]
    async fn hello_is_of_our_version_and_of_modest_size() {
        let hello = Hello {
            version: control::VERSION,
            ..Hello::default()
        };
        assert_eq!(
            say_hello(&ControlResponse::Hello(hello.clone())).await.unwrap(),
            hello
        );
        let newer = Hello {
            version: 99,
            ..Hello::default()
        };
        let error = say_hello(&ControlResponse::Hello(newer)).await.unwrap_err();
        assert!(error.to_string().contains("version 99"));
        let huge = Hello {
            kernel: "x".repeat(MAX_CONTROL),
            ..hello
        };
        assert!(matches!(
            say_hello(&ControlResponse::Hello(huge)).await,
            Err(EngineError::Frame(_))
        ));
        assert!(matches!(
            say_hello(&ControlResponse::Shutdown).await,
            Err(EngineError::Answer(_))
        ));
    }

    fn silent() -> (Conversation<DuplexStream>, DuplexStream) {
        let (host, guest) = duplex(1 << 10);
        (Conversation::new(host), guest)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_deadline() {
        let (mut conversation, _guest) = silent();
        let deadline = Instant::now() + Duration::from_secs(5);
        assert!(
            guarded(conversation.hello(), std::future::pending(), deadline)
                .await
                .is_none()
        );
    }

    #[tokio::test]
    async fn the_machine_s_failure_ends_a_wait_and_explains_a_hang_up() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut conversation, guest) = silent();
        let waited = guarded(conversation.hello(), died(), deadline).await;
        assert!(matches!(waited, Some(Err(EngineError::Vmm(_)))));
        drop(guest);
        let (mut conversation, guest) = silent();
        drop(guest);
        let later = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            died().await
        };
        let explained = guarded(conversation.hello(), later, deadline).await;
        assert!(matches!(explained, Some(Err(EngineError::Vmm(_)))));
    }
}
