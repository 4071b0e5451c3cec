//! One file for each endpoint: it checks, converts, forwards, and nothing else. What it says of itself becomes the OpenAPI
//! document.

mod execute;
mod health;
mod languages;
mod metrics;
mod pool;
mod templates;

use std::sync::Arc;

use axum::middleware::from_fn;
use axum::response::Response;
use protocol::{ErrorCode, HostError};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, accept, openapi, problem};

/// All endpoints.
pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    let json = OpenApiRouter::default()
        .routes(routes!(languages::languages))
        .routes(routes!(templates::templates))
        .routes(routes!(pool::pool))
        .routes(routes!(health::ready))
        .layer(from_fn(accept::json_only));
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(execute::execute))
        .routes(routes!(health::alive))
        .routes(routes!(metrics::metrics))
        .merge(json)
}

/// For a path that there is not.
pub(super) async fn no_such_resource() -> Response {
    problem::of(HostError::new(
        ErrorCode::NotFound,
        "there is nothing at this path",
    ))
}

/// For a method that a path has not.
pub(super) async fn no_such_method() -> Response {
    problem::of(HostError::new(
        ErrorCode::MethodNotAllowed,
        "this path has another method",
    ))
}
