//! `GET /v1/templates`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use protocol::Language;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::{Api, json};

/// What machines are made of.
#[derive(Debug, Serialize, ToSchema)]
struct Templates {
    templates: Vec<TemplateStatus>,
}

/// A template.
#[derive(Debug, Serialize, ToSchema)]
struct TemplateStatus {
    /// As `template` of a job names it.
    name: &'static str,
    /// What it is there for: of other languages its jobs may find no interpreter.
    languages: Vec<Language>,
    /// Whether it has been made here; jobs that name it are refused otherwise.
    available: bool,
    /// Why its jobs boot a machine each at the moment, which takes longer; absent when they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    slow: Option<String>,
}

/// The templates that jobs can run in
#[utoipa::path(
    get,
    path = "/v1/templates",
    tag = "jobs",
    responses((status = OK, description = "All of them", body = Templates)),
    security(("key" = ["execute"]), ("key" = ["observe"])),
)]
pub(super) async fn templates(State(api): State<Arc<Api>>) -> Response {
    let slow = api.service.readiness().slow;
    let templates = image::BUILT_IN.iter().map(|template| TemplateStatus {
        name: template.name,
        languages: template
            .languages()
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect(),
        available: api.service.templates().contains(&template.name),
        slow: slow.get(template.name).cloned(),
    });
    json(&Templates {
        templates: templates.collect(),
    })
}
