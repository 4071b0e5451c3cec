//! `GET /healthz` and `GET /readyz`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::server::{Api, json};
use crate::service::Readiness;

/// Whether the service lives
///
/// Needs no key.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = OK, description = "It does", body = String, content_type = "text/plain")),
)]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Whether jobs are taken
///
/// It is 200 as long as they are; what is slow meanwhile, and why, is in the body.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses((status = OK, description = "They are", body = Readiness)),
    security(("key" = ["observe"])),
)]
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    json(&api.service.readiness())
}
