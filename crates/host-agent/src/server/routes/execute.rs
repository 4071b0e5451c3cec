//! `POST /v1/execute`

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use protocol::{ErrorCode, HostError, JobResponse};

use crate::server::caller::Caller;
use crate::server::problem::Problem;
use crate::server::trace::TraceId;
use crate::server::{Api, accept, body, events, idempotency, json, problem};
use crate::service::ExecuteRequest;

/// Run code
///
/// Runs a job in a microVM of its own and answers when it has ended, with what it printed and why it ended: whatever the code
/// does is a 200. With `Accept: text/event-stream` its output comes while it runs, as events named `stdout` and `stderr`, and at
/// last `result`, which is what the answer is otherwise, or `error`. Who hangs up cancels the job.
#[utoipa::path(
    post,
    path = "/v1/execute",
    tag = "jobs",
    request_body(content = ExecuteRequest, content_type = "application/json"),
    responses(
        (status = OK, description = "What came of the job", content(
            (JobResponse = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = UNPROCESSABLE_ENTITY, description = "The Idempotency-Key is that of another job", body = Problem,
            content_type = "application/problem+json"),
    ),
    params(
        ("idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Who asks again with the same key and the same job within a day gets the same answer, and nothing \
                runs twice; the job then goes on when its client hangs up"),
    ),
    security(("key" = ["execute"])),
)]
pub(super) async fn execute(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(trace_id): Extension<TraceId>,
    request: Request,
) -> Response {
    let offered = [accept::JSON, events::CONTENT_TYPE];
    let events = match accept::choose(request.headers(), &offered) {
        Ok(chosen) => chosen == events::CONTENT_TYPE,
        Err(error) => return problem::of(error),
    };
    let key = match idempotency::key(request.headers()) {
        Ok(Some(_)) if events => {
            let cause = "events are sent once, and an Idempotency-Key is for what may be sent again";
            let error = HostError::new(ErrorCode::InvalidRequest, cause);
            return problem::of(error.remedy("accept application/json, or leave the key out"));
        }
        Ok(key) => key,
        Err(error) => return problem::of(error),
    };
    let (body, held) = match body::read(request, api.held(&caller)).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let mut request = match ExecuteRequest::parse(&body) {
        Ok(request) => request,
        Err(error) => return problem::of(error),
    };
    // It may be padded, and the job may wait for long.
    drop(body);
    if request.job.trace_id.is_empty() {
        trace_id.as_str().clone_into(&mut request.job.trace_id);
    }
    let trace_id = TraceId::parse(&request.job.trace_id).unwrap_or(trace_id);
    if let Some(key) = key {
        // Nobody would see its events.
        request.job.stream = false;
        return api.replays.answer(&api.service, caller, key, request, held).await;
    }
    request.job.stream |= events;
    let admitted = match api.service.admit(&caller, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return problem::of_refusal(refusal),
    };
    let mut response = if events {
        events::response(Arc::clone(&api.service), admitted, held)
    } else {
        match api.service.execute(admitted, |_| {}).await {
            Ok(response) => json(&response),
            Err(error) => problem::of(error),
        }
    };
    response.extensions_mut().insert(trace_id);
    response
}
