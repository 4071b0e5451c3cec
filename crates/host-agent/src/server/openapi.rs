//! The OpenAPI document: what the routes say of themselves, and what holds for all of them. `openapi/v1.json` is generated from
//! here, and `serve` shows the same at `/v1/openapi.json`.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::problem::{self, Problem};
use super::routes;

const DESCRIPTION: &str = "\
Runs code that nobody trusts in microVMs: `host-agent serve`. On its Unix socket whoever may open that needs no key; over TCP \
each request shows one (`host-agent api-key create`).

Every answer has the header `x-trace-id`: the job's own `trace_id`, else the request's `x-trace-id`, else the trace of its W3C \
`traceparent`, else a new one. Every refusal is a problem (RFC 9457) with a `code` that stays the same, its `cause`, and the \
`remedy`.";

/// The document without its routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Runner Codes", description = DESCRIPTION, version = "1"),
    tags(
        (name = "jobs", description = "Run code"),
        (name = "operation", description = "See what the service does"),
    ),
    components(schemas(Problem)),
)]
struct Frame;

pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// What a route can be refused with, beyond what it says itself: the status, what it means, and for which routes.
const REFUSALS: &[(u16, &str, For)] = &[
    (
        400,
        "The request is malformed, or a field of it is out of its bounds",
        For::All,
    ),
    (401, "There is no key, or none that is good", For::Keyed),
    (
        403,
        "The key, or whoever opened the socket, may not do this",
        For::Keyed,
    ),
    (
        406,
        "The answer cannot have any of the types that are accepted",
        For::Json,
    ),
    (408, "The request did not come whole in time", For::WithBody),
    (413, "The request is too long, or the code in it", For::WithBody),
    (415, "The body is not JSON", For::WithBody),
    (429, "The key was used more often than it may be", For::WithBody),
    (431, "The header fields are too long", For::All),
    (500, "A fault of the service itself", For::Keyed),
    (502, "The machine did not do its part", For::WithBody),
    (
        503,
        "There is no room, or something that is needed is missing; `retry-after` says when to come again",
        For::Keyed,
    ),
    (507, "The disk is full", For::WithBody),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    All,
    Keyed,
    Json,
    WithBody,
}

impl For {
    fn fits(self, operation: &Map<String, Value>) -> bool {
        match self {
            Self::All => true,
            Self::Keyed => operation.contains_key("security"),
            Self::Json => {
                let successes = operation["responses"].as_object().into_iter().flatten();
                let contents = successes.filter(|(status, _)| status.starts_with('2'));
                contents
                    .into_iter()
                    .any(|(_, response)| !response["content"]["application/json"].is_null())
            }
            Self::WithBody => operation.contains_key("requestBody"),
        }
    }
}

/// The whole document.
pub(super) fn document() -> Value {
    let mut document = serde_json::to_value(routes::router().into_openapi()).unwrap_or_default();
    let scheme = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as `host-agent api-key create` shows it once. Not needed on the Unix socket.",
    });
    document["components"]["securitySchemes"] = json!({ "key": scheme });
    let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
    let trace_id = json!({
        "description": "What the request is called in the service's logs",
        "schema": { "type": "string", "minLength": 1, "maxLength": protocol::limits::MAX_TRACE_ID },
    });
    document["components"]["headers"] = json!({ "x-trace-id": trace_id });
    let operations = document["paths"].as_object_mut().into_iter().flatten();
    let operations = operations.flat_map(|(_, path)| path.as_object_mut().into_iter().flatten());
    for operation in operations.filter_map(|(_, operation)| operation.as_object_mut()) {
        for (status, description, routes) in REFUSALS {
            if routes.fits(operation) {
                let own = &mut operation["responses"][status.to_string()];
                if own.is_null() {
                    *own = json!({ "description": description, "content": { problem::CONTENT_TYPE: problem.clone() } });
                }
            }
        }
        if let Some(responses) = operation["responses"].as_object_mut() {
            responses.sort_keys();
            for response in responses.values_mut() {
                response["headers"]["x-trace-id"] = json!({ "$ref": "#/components/headers/x-trace-id" });
            }
        }
        for parameter in ["x-trace-id", "traceparent"] {
            let parameters = &mut operation.entry("parameters").or_insert_with(|| json!([]));
            if let Some(parameters) = parameters.as_array_mut() {
                parameters.push(json!({ "$ref": format!("#/components/parameters/{parameter}") }));
            }
        }
    }
    document["components"]["parameters"] = json!({
        "x-trace-id": {
            "name": "x-trace-id",
            "in": "header",
            "description": "What the client calls the request; anything else than 1 to 128 printable characters is ignored",
            "schema": { "type": "string" },
        },
        "traceparent": {
            "name": "traceparent",
            "in": "header",
            "description": "The trace that the request belongs to (W3C Trace Context); ignored where it is not valid",
            "schema": { "type": "string" },
        },
    });
    without_links(&mut document);
    document
}

/// Rust's documentation links types by name in a way that Markdown does not.
fn without_links(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`");
            }
            fields.values_mut().for_each(without_links);
        }
        Value::Array(values) => values.iter_mut().for_each(without_links),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use protocol::ErrorCode;

    use super::*;

    #[test]
    fn the_checked_in_document_is_generated_from_here() {
        let text = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/v1.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == text,
            "{path} is out of date: UPDATE_SCHEMA=1 cargo test --package host-agent"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut stack = vec![&document];
        let mut seen = 0;
        while let Some(value) = stack.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        let to = to.strip_prefix('#').expect("in the same document");
                        assert!(document.pointer(to).is_some(), "{to}");
                        seen += 1;
                    }
                    stack.extend(fields.values());
                }
                Value::Array(values) => stack.extend(values),
                _ => {}
            }
        }
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn what_runs_code_says_every_status_that_a_code_calls_for() {
        let document = document();
        let responses = &document["paths"]["/v1/execute"]["post"]["responses"];
        // Of paths and methods that the document does not have.
        let elsewhere = [ErrorCode::NotFound, ErrorCode::MethodNotAllowed];
        for code in ErrorCode::ALL.iter().filter(|code| !elsewhere.contains(code)) {
            let status = problem::status(*code).as_u16().to_string();
            assert!(!responses[&status].is_null(), "{code}: {status}");
        }
    }
}
