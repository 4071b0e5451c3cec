//! `Idempotency-Key` (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>): who asks again gets the
//! same answer, and nothing runs twice.
//!
//! ```text
//! first ── task of its own ─► admitted ─► runs ─► kept, by engine::idempotency ─► everyone who waits
//!   └────────► waits ◄── others with its key and request ────────────────────────────┘
//!                                └─► refused before it ran: told to all who wait, and forgotten
//! ```
//!
//! So a job with a key goes on when its client hangs up: that is when the client will ask again. What is kept is in memory, and
//! gone when the service ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use engine::admission::Tenant;
use engine::idempotency::{Answers, Begun, Fingerprint, Limits};
use protocol::{ErrorCode, HostError};
use tokio::sync::watch;

use super::caller::Caller;
use super::room::Held;
use super::trace::TraceId;
use super::{accept, problem};
use crate::service::{ExecuteRequest, Refusal, Service};

pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Of an answer that was there already.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const MAX_KEY: usize = 255;
/// One tenant's answers fit at least the largest there can be.
const LIMITS: Limits = Limits {
    keys: 16 << 10,
    tenant_keys: 1 << 10,
    bytes: 256 << 20,
    tenant_bytes: 64 << 20,
    keep: Duration::from_secs(24 * 3600),
};

/// The answers to requests with a key. Clones are the same.
#[derive(Clone)]
pub(super) struct Replays(Arc<Inner>);

struct Inner {
    began: Instant,
    answers: Mutex<Answers<Tenant, Awaited>>,
}

type Awaited = watch::Receiver<Option<Arc<Outcome>>>;

/// What came of a request.
struct Outcome {
    trace_id: TraceId,
    answer: Result<Bytes, Refusal>,
}

/// A request that runs. It is forgotten when this is dropped before it has ended.
struct Running {
    replays: Replays,
    tenant: Tenant,
    key: String,
    tell: watch::Sender<Option<Arc<Outcome>>>,
    done: bool,
}

/// The key that a request shows, if it shows one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, HostError> {
    let Some(value) = headers.get(KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    // Structured Fields would have it in quotes, and most clients do not.
    let key = text.trim().trim_matches('"');
    if (1..=MAX_KEY).contains(&key.len()) && headers.get_all(KEY).iter().count() == 1 {
        return Ok(Some(key.to_owned()));
    }
    let cause = format!("the Idempotency-Key is not one text of 1 to {MAX_KEY} printable characters");
    Err(HostError::new(ErrorCode::InvalidRequest, cause).remedy("send a random one, such as a UUID"))
}

impl Replays {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            answers: Mutex::new(Answers::new(LIMITS)),
        }))
    }

    /// Answers a request with a key: runs it if it is the first, and waits for it if not.
    pub(super) async fn answer(
        &self,
        service: &Arc<Service>,
        caller: Caller,
        key: String,
        mut request: ExecuteRequest,
        held: Held,
    ) -> Response {
        let tenant = caller.tenant.clone();
        let fingerprint = match fingerprint(&mut request) {
            Ok(fingerprint) => fingerprint,
            Err(error) => return problem::of(error),
        };
        let (tell, awaited) = watch::channel(None);
        let begun = self
            .answers()
            .begin(self.0.began.elapsed(), &tenant, &key, fingerprint, || awaited);
        let (awaited, replayed) = match begun {
            Begun::First(awaited) => {
                let running = Running {
                    replays: self.clone(),
                    tenant,
                    key,
                    tell,
                    done: false,
                };
                tokio::spawn(running.run(Arc::clone(service), caller, request, held));
                (awaited, false)
            }
            Begun::Known(awaited) => {
                drop(held);
                (awaited, true)
            }
            Begun::Other => {
                let cause = format!("the Idempotency-Key {key:?} is that of another request");
                return problem::of(HostError::new(ErrorCode::IdempotencyMismatch, cause));
            }
            Begun::Full => {
                let cause = "as many jobs with an Idempotency-Key run as there may be";
                return problem::of_refusal(Refusal {
                    error: HostError::new(ErrorCode::QueueFull, cause).remedy("try again in 1 s"),
                    retry_after: Some(Duration::from_secs(1)),
                });
            }
        };
        wait(awaited, replayed).await
    }

    fn answers(&self) -> MutexGuard<'_, Answers<Tenant, Awaited>> {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait(mut awaited: Awaited, replayed: bool) -> Response {
    let outcome = awaited
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|outcome| outcome.clone());
    let Some(outcome) = outcome else {
        return problem::of(HostError::new(ErrorCode::Internal, "the job was given up"));
    };
    let mut response = match &outcome.answer {
        Ok(body) => ([(header::CONTENT_TYPE, accept::JSON)], Body::from(body.clone())).into_response(),
        Err(refusal) => problem::of_refusal(refusal.clone()),
    };
    response.extensions_mut().insert(outcome.trace_id.clone());
    if replayed {
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

impl Running {
    async fn run(mut self, service: Arc<Service>, caller: Caller, request: ExecuteRequest, held: Held) {
        let trace_id = TraceId::parse(&request.job.trace_id);
        let (answer, ran) = match service.admit(&caller, request).await {
            Ok(admitted) => {
                let answered = service.execute(admitted, |_| {}).await.and_then(|response| {
                    serde_json::to_vec(&response)
                        .map(Bytes::from)
                        .map_err(|error| HostError::new(ErrorCode::Internal, error.to_string()))
                });
                (answered.map_err(Refusal::from), true)
            }
            Err(refusal) => (Err(refusal), false),
        };
        drop(held);
        if ran {
            let bytes = answer.as_ref().map_or(0, Bytes::len);
            let now = self.replays.0.began.elapsed();
            self.replays.answers().finish(now, &self.tenant, &self.key, bytes);
            self.done = true;
        }
        let trace_id = trace_id.unwrap_or_else(TraceId::random);
        let _ = self.tell.send(Some(Arc::new(Outcome { trace_id, answer })));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            self.replays.answers().forget(&self.tenant, &self.key);
        }
    }
}

/// What counts as the same request: all of it but what it is called.
fn fingerprint(request: &mut ExecuteRequest) -> Result<Fingerprint, HostError> {
    let trace_id = std::mem::take(&mut request.job.trace_id);
    let fingerprint = Fingerprint::of(request);
    request.job.trace_id = trace_id;
    fingerprint.map_err(|error| HostError::new(ErrorCode::Internal, format!("cannot write JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(KEY, text.parse().unwrap());
            key(&headers).map_err(|error| error.code)
        };
        assert_eq!(key(&HeaderMap::new()), Ok(None));
        assert_eq!(of("8e03978e"), Ok(Some("8e03978e".to_owned())));
        assert_eq!(of("\"8e03978e\""), of("8e03978e"));
        for wrong in ["", "\"\"", &"x".repeat(256), "\u{e9}"] {
            assert_eq!(of(wrong), Err(ErrorCode::InvalidRequest), "{wrong}");
        }
    }

    #[test]
    fn a_request_is_the_same_under_another_trace_id() {
        let of = |body: &str| fingerprint(&mut ExecuteRequest::parse(body.as_bytes()).unwrap()).unwrap();
        let one = of(r#"{"lang":"bash","code":"true","trace_id":"1"}"#);
        assert_eq!(one, of(r#"{ "code": "true", "lang": "bash" }"#));
        assert_ne!(one, of(r#"{"lang":"bash","code":"true","vcpus":2}"#));
    }
}
