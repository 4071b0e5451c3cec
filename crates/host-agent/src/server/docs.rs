//! `GET /docs`: the OpenAPI document as a page to read. It is made here, once: no script, and nothing from another host.
//!
//! ```text
//! document ─► operations: parameters, body, answers ─┐
//!         └─► schemas: fields, types, bounds ────────┴─► HTML
//! ```

use std::fmt::{self, Display, Write as _};

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use serde_json::Value;

use super::DOCUMENT;

/// What the page may load: nothing but its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
code{background:#f0f0f3;padding:.1em .3em;border-radius:3px}\
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}\
td,th{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top}\
h2{margin-top:2.5rem}section{margin-top:2rem}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#16161a}code{background:#2a2a30}a{color:#8ab4f8}td,th{border-color:#444}}";

/// The page, as it is answered.
pub(super) fn response(page: String) -> Response {
    let mut response = Html(page).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// The page of a document.
pub(super) fn page(document: &Value) -> String {
    let mut page = String::new();
    // Writing into a String cannot fail.
    let _ = write_page(&mut page, document);
    page
}

fn write_page(page: &mut String, document: &Value) -> fmt::Result {
    let title = Escaped(text(&document["info"], "title"));
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}: API</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body><h1>{title}</h1>{}\
         <p>For programs: <a href=\"{DOCUMENT}\"><code>{DOCUMENT}</code></a>.</p><ul>",
        Prose(text(&document["info"], "description"))
    )?;
    let operations = || {
        let paths = document["paths"].as_object().into_iter().flatten();
        paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(move |(method, operation)| (method.to_uppercase(), path, operation))
        })
    };
    for (method, path, operation) in operations() {
        let summary = Escaped(text(operation, "summary"));
        write!(
            page,
            "<li><a href=\"#{method}{path}\"><code>{method} {path}</code></a> {summary}</li>"
        )?;
    }
    write!(page, "</ul>")?;
    for (method, path, operation) in operations() {
        write_operation(page, document, &method, path, operation)?;
    }
    write!(page, "<h2>Schemas</h2>")?;
    let schemas = document["components"]["schemas"]
        .as_object()
        .into_iter()
        .flatten();
    for (name, schema) in schemas {
        let name = Escaped(name);
        let description = Prose(text(schema, "description"));
        write!(page, "<section id=\"{name}\"><h3>{name}</h3>{description}")?;
        write_schema(page, document, schema)?;
        write!(page, "</section>")?;
    }
    write!(page, "</body></html>")
}

fn write_operation(
    page: &mut String,
    document: &Value,
    method: &str,
    path: &str,
    operation: &Value,
) -> fmt::Result {
    write!(
        page,
        "<section id=\"{method}{path}\"><h2><code>{method} {path}</code></h2><p><b>{}</b></p>{}",
        Escaped(text(operation, "summary")),
        Prose(text(operation, "description"))
    )?;
    let scopes = operation["security"].as_array().into_iter().flatten();
    let scopes: Vec<_> = scopes.filter_map(|one| one["key"][0].as_str()).collect();
    if scopes.is_empty() {
        write!(page, "<p>Needs no key.</p>")?;
    } else {
        write!(
            page,
            "<p>Over TCP: a key with the scope <code>{}</code>.</p>",
            scopes.join("</code> or <code>")
        )?;
    }
    write!(
        page,
        "<table><tr><th>in</th><th>name</th><th>type</th><th></th></tr>"
    )?;
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolved(document, parameter);
        write!(
            page,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            Escaped(text(parameter, "in")),
            Escaped(text(parameter, "name")),
            Kind(&parameter["schema"]),
            Prose(text(parameter, "description"))
        )?;
    }
    for (content_type, content) in operation["requestBody"]["content"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let (content_type, kind) = (Escaped(content_type), Kind(&content["schema"]));
        write!(
            page,
            "<tr><td>body</td><td>{content_type}</td><td>{kind}</td><td></td></tr>"
        )?;
    }
    write!(
        page,
        "</table><table><tr><th>answer</th><th></th><th>type</th></tr>"
    )?;
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let description = Prose(text(response, "description"));
        write!(page, "<tr><td>{status}</td><td>{description}</td><td>")?;
        for (content_type, content) in response["content"].as_object().into_iter().flatten() {
            write!(
                page,
                "{}: {}<br>",
                Escaped(content_type),
                Kind(&content["schema"])
            )?;
        }
        write!(page, "</td></tr>")?;
    }
    write!(page, "</table></section>")
}

fn write_schema(page: &mut String, document: &Value, schema: &Value) -> fmt::Result {
    let fields = fields(document, schema);
    if fields.is_empty() {
        let variants = schema["oneOf"].as_array().into_iter().flatten();
        for variant in variants {
            write!(page, "<div>{}</div>", Prose(text(variant, "description")))?;
            write_schema(page, document, variant)?;
        }
        if schema["oneOf"].is_null() {
            write!(page, "<p>{}</p>", Kind(schema))?;
        }
        return Ok(());
    }
    write!(page, "<table><tr><th>field</th><th>type</th><th></th></tr>")?;
    for (name, field, is_required) in fields {
        write!(
            page,
            "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}</td></tr>",
            Escaped(name),
            if is_required { "" } else { " (optional)" },
            Kind(field),
            Prose(text(field, "description"))
        )?;
    }
    write!(page, "</table>")
}

/// The fields of an object, with those of what it consists of, and whether each is always there.
fn fields<'a>(document: &'a Value, schema: &'a Value) -> Vec<(&'a str, &'a Value, bool)> {
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let inherited = parts.flat_map(|part| fields(document, resolved(document, part)));
    let required = |name: &str| {
        let required = schema["required"].as_array().into_iter().flatten();
        required.into_iter().any(|required| required == name)
    };
    let own = schema["properties"].as_object().into_iter().flatten();
    let own = own.map(|(name, field)| (name.as_str(), field, required(name)));
    inherited.chain(own).collect()
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let to = value["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
    to.and_then(|to| document.pointer(to)).unwrap_or(value)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Text in HTML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            other => f.write_char(other),
        })
    }
}

/// Paragraphs, with `code` in them.
struct Prose<'a>(&'a str);

impl Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for paragraph in self.0.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
            f.write_str("<p>")?;
            for (place, part) in paragraph.split('`').enumerate() {
                if place % 2 == 1 {
                    write!(f, "<code>{}</code>", Escaped(part))?;
                } else {
                    Escaped(part).fmt(f)?;
                }
            }
            f.write_str("</p>")?;
        }
        Ok(())
    }
}

/// What a schema admits, in few words.
struct Kind<'a>(&'a Value);

impl Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.0;
        if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
            let name = Escaped(name);
            return write!(f, "<a href=\"#{name}\">{name}</a>");
        }
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
            return write!(f, "<code>{}</code>", values.join("</code>, <code>"));
        }
        let variants = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
        for (place, variant) in variants.into_iter().flatten().enumerate() {
            write!(f, "{}{}", if place > 0 { " or " } else { "" }, Kind(variant))?;
        }
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().map_or_else(Vec::new, |kind| vec![kind]),
        };
        f.write_str(&kinds.join(" or "))?;
        if kinds.contains(&"array") {
            write!(f, " of {}", Kind(&schema["items"]))?;
        }
        if schema["additionalProperties"].is_object() {
            write!(f, " of {}", Kind(&schema["additionalProperties"]))?;
        }
        for (bound, sign) in [
            ("minimum", "≥"),
            ("exclusiveMinimum", "&gt;"),
            ("maximum", "≤"),
            ("minLength", "length ≥"),
            ("maxLength", "length ≤"),
            ("maxItems", "at most"),
            ("maxProperties", "at most"),
        ] {
            if let Some(number) = schema[bound].as_f64() {
                write!(f, " {sign} {number}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::openapi::document;

    #[test]
    fn what_the_document_says_is_on_the_page() {
        let page = page(&document());
        for part in [
            "<code>POST /v1/execute</code>",
            "href=\"#JobResponse\"",
            "section id=\"JobResponse\"",
            "<code>timeout</code> (optional)",
            "<code>idempotency-key</code>",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn links_lead_somewhere() {
        let page = page(&document());
        let links = page
            .split("href=\"#")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        for link in links {
            assert!(page.contains(&format!("id=\"{link}\"")), "{link}");
        }
    }

    #[test]
    fn text_is_no_markup() {
        assert_eq!(
            Prose("a < `b & c`").to_string(),
            "<p>a &lt; <code>b &amp; c</code></p>"
        );
    }
}
