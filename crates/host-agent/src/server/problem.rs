//! Errors over HTTP: `application/problem+json` (RFC 9457) with our code, cause and remedy.
//!
//! ```text
//! HostError ─► of ─► a status, and the error beside an empty body ─► put_into_words, with the request's trace id ─► JSON
//! a refusal of axum's own, in plain text ────────────────────────────────┘
//! ```

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use protocol::{ErrorCode, HostError};
use serde::Serialize;
use utoipa::ToSchema;

use super::trace::TraceId;
use crate::service::Refusal;

pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// Why a request was not done (RFC 9457): the `code` is for programs, `cause` and `remedy` are for people.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem<'a> {
    /// What the code means.
    title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The cause.
    detail: &'a str,
    code: ErrorCode,
    /// What happened, with the number or name that it is about.
    cause: &'a str,
    /// What to do about it.
    remedy: &'a str,
    /// What the request is called in the service's logs; the same as in the header `x-trace-id`.
    trace_id: &'a str,
}

/// A problem that is yet to be put into words.
#[derive(Clone)]
struct Unsaid(Arc<HostError>);

/// The answer to a request that failed, with the status that its code calls for.
pub(super) fn of(error: HostError) -> Response {
    problem(status(error.code), error)
}

/// The answer to a job that did not run, which says when there will be room (RFC 9110, section 10.2.3).
pub(super) fn of_refusal(refusal: Refusal) -> Response {
    let mut response = of(refusal.error);
    if let Some(after) = refusal.retry_after {
        let seconds = HeaderValue::from(after.as_secs());
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// The same with another status.
pub(super) fn problem(status: StatusCode, error: HostError) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(Unsaid(Arc::new(error)));
    response
}

/// The error that an answer tells of, while it is not put into words.
pub(super) fn error_of(response: &Response) -> Option<&HostError> {
    response.extensions().get::<Unsaid>().map(|unsaid| &*unsaid.0)
}

/// Writes the body of an answer that tells of an error, which may have a trace id of its own; returns that.
pub(super) fn put_into_words(mut response: Response, given: &TraceId) -> (Response, Option<TraceId>) {
    let error = match response.extensions_mut().remove::<Unsaid>() {
        Some(Unsaid(error)) => error,
        None if is_bare(&response) => Arc::new(bare(response.status())),
        None => return (response, None),
    };
    let own = TraceId::parse(&error.trace_id);
    let status = response.status();
    let text = text(status, &error, own.as_ref().unwrap_or(given));
    *response.body_mut() = Body::from(text);
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    (response, own)
}

/// The body of a problem.
pub(super) fn text(status: StatusCode, error: &HostError, trace_id: &TraceId) -> String {
    let problem = Problem {
        title: error.code.description(),
        status: status.as_u16(),
        detail: &error.cause,
        code: error.code,
        cause: &error.cause,
        remedy: &error.remedy,
        trace_id: trace_id.as_str(),
    };
    // There is nothing in it that JSON cannot say.
    serde_json::to_string(&problem).unwrap_or_default()
}

/// Whether axum itself refused the request.
fn is_bare(response: &Response) -> bool {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    (status.is_client_error() || status.is_server_error())
        && content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

/// What HTTP itself has to say of a request with that status.
pub(super) fn bare(status: StatusCode) -> HostError {
    let (code, cause) = match status {
        StatusCode::NOT_FOUND => (ErrorCode::NotFound, "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => (ErrorCode::MethodNotAllowed, "this path has another method"),
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorCode::RequestTooLarge, "the body is too long"),
        StatusCode::URI_TOO_LONG => (ErrorCode::RequestTooLarge, "the path is too long"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
            ErrorCode::RequestTooLarge,
            "the header fields are too many, or too long together",
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (ErrorCode::UnsupportedMediaType, "the body is of another type")
        }
        _ if status.is_client_error() => (ErrorCode::InvalidRequest, "the request is not as HTTP has it"),
        _ => (ErrorCode::Internal, "the request could not be answered"),
    };
    HostError::new(code, cause)
}

/// The status that a code calls for.
pub(super) const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest
        | ErrorCode::UnknownLanguage
        | ErrorCode::EmptyCode
        | ErrorCode::CodeNotText
        | ErrorCode::InvalidTimeout
        | ErrorCode::LanguageMissing
        | ErrorCode::LimitUnsupported => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::CodeTooLarge | ErrorCode::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::GuestSilent | ErrorCode::GuestProtocol | ErrorCode::VmmDied => StatusCode::BAD_GATEWAY,
        ErrorCode::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_mistake_is_no_fault_of_the_service() {
        assert_eq!(status(ErrorCode::EmptyCode), StatusCode::BAD_REQUEST);
        assert_eq!(status(ErrorCode::KernelMissing), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_refusal_of_the_framework_is_a_problem_too() {
        let trace_id = TraceId::parse("t").unwrap();
        let refused = (StatusCode::BAD_REQUEST, "Invalid UTF-8 in `id`").into_response();
        let (refused, own) = put_into_words(refused, &trace_id);
        assert_eq!(
            (refused.headers()[header::CONTENT_TYPE].as_bytes(), own),
            (CONTENT_TYPE.as_bytes(), None)
        );
        let fine = (StatusCode::OK, "ok\n").into_response();
        let (fine, _) = put_into_words(fine, &trace_id);
        assert!(
            fine.headers()[header::CONTENT_TYPE]
                .as_bytes()
                .starts_with(b"text/plain")
        );
    }
}
