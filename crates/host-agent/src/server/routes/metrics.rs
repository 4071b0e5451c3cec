//! `GET /metrics`

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use crate::server::Api;

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#protocol-negotiation>
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics, as Prometheus reads them
///
/// OpenMetrics text; docs/metrics.md says what each means.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((
        status = OK,
        description = "All of them",
        body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )),
    security(("key" = ["observe"])),
)]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let text = api.service.metrics_text().await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}
