//! `GET /v1/languages`

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use protocol::Language;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::{Api, json};

/// What code may be written in.
#[derive(Debug, Serialize, ToSchema)]
struct Languages {
    languages: Vec<LanguageStatus>,
}

/// A language.
#[derive(Debug, Serialize, ToSchema)]
struct LanguageStatus {
    /// As `lang` of a job names it.
    name: Language,
    /// The template that its jobs run in unless they name one.
    template: Option<&'static str>,
    /// Whether that template is there; jobs are refused otherwise.
    available: bool,
}

/// The languages that code may be written in
#[utoipa::path(
    get,
    path = "/v1/languages",
    tag = "jobs",
    responses((status = OK, description = "All of them", body = Languages)),
    security(("key" = ["execute"]), ("key" = ["observe"])),
)]
pub(super) async fn languages(State(api): State<Arc<Api>>) -> Response {
    let languages = Language::ALL.map(|name| {
        let template = image::template_for_language(name.name());
        LanguageStatus {
            name,
            template,
            available: template.is_some_and(|template| api.service.templates().contains(&template)),
        }
    });
    json(&Languages {
        languages: languages.into(),
    })
}
