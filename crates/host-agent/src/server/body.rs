//! The body of a request: JSON, so long, within so much time, and as much of it as there is room for.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use protocol::limits::MAX_FRAME;
use protocol::{ErrorCode, HostError};
use tokio::time::timeout;

use super::problem;
use super::room::Held;
use crate::service::Refusal;

/// How long the body of a request may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes a body in, with the right to hold that much. The error is the answer to the request.
pub(super) async fn read(request: Request, mut held: Held) -> Result<(Bytes, Held), Response> {
    check_type(request.headers()).map_err(problem::of)?;
    // One that says so beforehand is not waited for.
    if request.body().size_hint().lower() > MAX_FRAME as u64 {
        return Err(problem::of(too_long()));
    }
    let collected = timeout(PATIENCE, collect(request.into_body(), &mut held)).await;
    let late = || {
        let cause = format!("the request did not come whole within {} s", PATIENCE.as_secs());
        Err(Refusal::from(HostError::new(ErrorCode::RequestTimeout, cause)))
    };
    match collected.unwrap_or_else(|_| late()) {
        Ok(collected) => Ok((collected, held)),
        Err(refusal) => Err(problem::of_refusal(refusal)),
    }
}

/// Other programs' web pages can send a form or plain text without asking, but no JSON.
fn check_type(headers: &HeaderMap) -> Result<(), HostError> {
    let wrong = |cause: String| Err(HostError::new(ErrorCode::UnsupportedMediaType, cause));
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return wrong(format!("the body is encoded as {encoding:?}"));
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        wrong(format!("the body is of the type {value:?}"))
    }
}

fn too_long() -> HostError {
    let cause = format!("the request is over {MAX_FRAME} bytes");
    HostError::new(ErrorCode::RequestTooLarge, cause)
}

fn no_room() -> Refusal {
    let cause =
        "the requests that wait hold as much data as the service takes, or as much as is this tenant's part";
    Refusal {
        error: HostError::new(ErrorCode::QueueFull, cause).remedy("try again in 1 s"),
        retry_after: Some(Duration::from_secs(1)),
    }
}

/// Takes a body in piece by piece, and room for each before the next.
async fn collect(mut body: Body, held: &mut Held) -> Result<Bytes, Refusal> {
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let broken = |error| {
            let cause = format!("the request did not come whole: {error}");
            HostError::new(ErrorCode::InvalidRequest, cause)
        };
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        let length = collected.len() + data.len();
        if length > MAX_FRAME {
            return Err(too_long().into());
        }
        if !held.grow(length) {
            return Err(no_room());
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json() {
        let of = |content_type: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            check_type(&headers).map_err(|error| error.code)
        };
        assert_eq!(check_type(&HeaderMap::new()), Ok(()));
        assert_eq!(of("application/json"), Ok(()));
        assert_eq!(of("Application/JSON; charset=utf-8"), Ok(()));
        for wrong in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "",
        ] {
            assert_eq!(of(wrong), Err(ErrorCode::UnsupportedMediaType), "{wrong}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert!(check_type(&headers).is_err());
    }
}
