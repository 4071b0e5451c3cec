//! The trace id of a request: what its client, its service and its logs call it by.
//!
//! ```text
//! the job's own trace_id, else x-trace-id, else the trace of traceparent, else a random one ─► x-trace-id of the answer
//!                                                                                           └► trace_id of what it says
//! ```
//!
//! What failed is put into words here, so that no answer goes out without its trace id.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use protocol::limits::MAX_TRACE_ID;

use super::problem;
use crate::commands::run::random_trace_id;
use crate::metrics::Metrics;

/// Of requests and answers.
pub(super) const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
/// <https://www.w3.org/TR/trace-context/#traceparent-header>
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// 1 to [`MAX_TRACE_ID`] bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceId(String);

impl TraceId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_TRACE_ID).contains(&text.len()) && !text.chars().any(char::is_control);
        fits.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn random() -> Self {
        Self(random_trace_id())
    }

    /// What the headers name, else a random one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let own = text(TRACE_ID).and_then(Self::parse);
        own.or_else(|| text(TRACEPARENT).and_then(trace_of).and_then(Self::parse))
            .unwrap_or_else(Self::random)
    }
}

/// The trace-id in a traceparent, if that is valid: four groups of so many lower-case hexadecimal digits, of which version
/// `ff` and ids of zeroes are none; versions above `00` may have more groups.
fn trace_of(traceparent: &str) -> Option<&str> {
    let mut groups = traceparent.trim().split('-');
    let mut group = |length| {
        let group: &str = groups.next()?;
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (group.len() == length && group.bytes().all(hexadecimal)).then_some(group)
    };
    let (version, trace, parent, _flags) = (group(2)?, group(32)?, group(16)?, group(2)?);
    let is_some = |id: &str| id.bytes().any(|digit| digit != b'0');
    let is_whole = version != "00" || groups.next().is_none();
    (version != "ff" && is_whole && is_some(trace) && is_some(parent)).then_some(trace)
}

/// Gives a request its trace id, and every answer.
pub(super) async fn carry(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let given = TraceId::of(request.headers());
    request.extensions_mut().insert(given.clone());
    let response = next.run(request).await;
    if let Some(error) = problem::error_of(&response) {
        metrics.refusals.add([error.code.name()]);
    }
    let (mut response, own) = problem::put_into_words(response, &given);
    let own = own.or_else(|| response.extensions_mut().remove::<TraceId>());
    let trace_id = own.unwrap_or(given);
    // Beyond ASCII it is opaque to HTTP, and UTF-8 to who knows.
    if let Ok(value) = HeaderValue::from_str(trace_id.as_str()) {
        response.headers_mut().insert(TRACE_ID, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn traceparent_is_read_as_w3c_says() {
        let of = |version: &str, rest: &str| {
            trace_of(&format!("{version}-{TRACE}-00f067aa0ba902b7-01{rest}")).map(str::to_owned)
        };
        assert_eq!(of("00", "").as_deref(), Some(TRACE));
        assert_eq!(of("01", "-more").as_deref(), Some(TRACE));
        assert_eq!(of("00", "-more"), None);
        assert_eq!(of("ff", ""), None);
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(trace_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_client_s_own_comes_first() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceId::of(&headers).as_str().len(), 32);
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        headers.insert(TRACEPARENT, traceparent.parse().unwrap());
        assert_eq!(TraceId::of(&headers).as_str(), TRACE);
        headers.insert(TRACE_ID, "mine".parse().unwrap());
        assert_eq!(TraceId::of(&headers).as_str(), "mine");
        headers.insert(TRACE_ID, "x".repeat(MAX_TRACE_ID + 1).parse().unwrap());
        assert_eq!(TraceId::of(&headers).as_str(), TRACE);
    }
}
