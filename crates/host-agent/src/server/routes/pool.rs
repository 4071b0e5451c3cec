//! `GET /v1/pool`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use engine::pool::policy::Status;
use protocol::{ErrorCode, HostError};

use crate::server::{Api, json, problem};

/// The machines that are kept ready
///
/// For each template how many wait, how many are wanted, what limits them, and how often jobs found one (`counts`: `ready`, or a
/// VMM that waited, `prespawned`) or did not (`on_demand`).
#[utoipa::path(
    get,
    path = "/v1/pool",
    tag = "operation",
    responses((status = OK, description = "As it was a moment ago", body = Status<String>)),
    security(("key" = ["observe"])),
)]
pub(super) async fn pool(State(api): State<Arc<Api>>) -> Response {
    match api.service.pool().await {
        Some(status) => json(&status),
        None => {
            let error = HostError::new(ErrorCode::QueueFull, "the service is being stopped");
            problem::of(error.remedy("try again when it runs again"))
        }
    }
}
