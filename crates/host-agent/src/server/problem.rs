//! Errors over HTTP: `application/problem+json` (RFC 9457) with our code, cause and remedy.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use protocol::{ErrorCode, HostError};
use serde_json::json;

use crate::service::Refusal;

/// The answer to a request that failed, with the status that its code calls for.
pub(super) fn of(error: &HostError) -> Response {
    problem(status(error.code), error)
}

/// The answer to a job that did not run, which says when there will be room (RFC 9110, section 10.2.3).
pub(super) fn of_refusal(refusal: &Refusal) -> Response {
    let mut response = of(&refusal.error);
    if let Some(after) = refusal.retry_after {
        let seconds = HeaderValue::from(after.as_secs());
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// The same with another status.
pub(super) fn problem(status: StatusCode, error: &HostError) -> Response {
    let body = json!({
        "title": error.code.description(),
        "status": status.as_u16(),
        "detail": error.cause,
        "code": error.code,
        "cause": error.cause,
        "remedy": error.remedy,
        "trace_id": error.trace_id,
    });
    let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, content_type, body.to_string()).into_response()
}

const fn status(code: ErrorCode) -> StatusCode {
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
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::CodeTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
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
}
