//! Firecracker's published API description (Swagger 2.0), as far as a request can break it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

/// The versions whose description requests are checked against: the oldest that is driven, and the newest that was tried.
pub(crate) const VERSIONS: [&str; 2] = ["1.7.0", "1.16.1"];

/// Says that the calling test checks less than it should, and has `cargo xtask test` count it as skipped.
fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}", thread.name().unwrap_or("a contract test"));
    eprintln!("SKIP: {line}");
    if let Some(path) = std::env::var_os("RUNNER_CODES_TEST_SKIPS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let mut file = file.expect("the file of skips opens");
        writeln!(file, "{line}").expect("the file of skips can be written");
    }
}

/// The description of one version.
pub(crate) struct Spec(Value);

impl Spec {
    /// Reads the description of `version`, if it is one of [`VERSIONS`]; says so on standard error where it is not on this
    /// machine.
    pub(crate) fn published(version: &str) -> Option<Self> {
        if !VERSIONS.contains(&version) {
            return None;
        }
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/specs");
        let path = dir.join(format!("firecracker-v{version}.yaml"));
        match fs::read_to_string(&path) {
            Ok(text) => Some(Self::parse(&text)),
            Err(error) => {
                skip(&format!(
                    "there is no API description at {}: {error}",
                    path.display()
                ));
                None
            }
        }
    }

    pub(crate) fn parse(yaml: &str) -> Self {
        Self(serde_saphyr::from_str(yaml).expect("an API description is YAML"))
    }

    /// Checks that there is such an operation, and that its body may look like that.
    pub(crate) fn check(&self, method: &str, path: &str, body: &[u8]) -> Result<(), String> {
        let paths = self.0["paths"].as_object().expect("an API has paths");
        let (_, operations) = paths
            .iter()
            .find(|(template, _)| matches(template, path))
            .ok_or_else(|| format!("no path {path}"))?;
        let operation = &operations[method.to_ascii_lowercase()];
        if operation.is_null() {
            return Err(format!("no {method} {path}"));
        }
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        match parameters.iter().find(|parameter| parameter["in"] == "body") {
            None if body.is_empty() => Ok(()),
            None => Err("a body where there is none".to_owned()),
            Some(parameter) if body.is_empty() && parameter["required"] != true => Ok(()),
            Some(parameter) => {
                let body = serde_json::from_slice(body).map_err(|error| format!("the body: {error}"))?;
                self.check_value(&parameter["schema"], &body, "the body")
            }
        }
    }

    fn check_value(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let pointer = reference.strip_prefix('#').expect("references stay in the file");
            let target = self
                .0
                .pointer(pointer)
                .unwrap_or_else(|| panic!("{reference} leads nowhere"));
            return self.check_value(target, value, at);
        }
        if let Some(choices) = schema["enum"].as_array()
            && !choices.contains(value)
        {
            return Err(format!("{at}: {value} is none of {choices:?}"));
        }
        match schema["type"].as_str() {
            Some("object") => self.check_object(schema, value, at),
            Some("array") => {
                let items = value.as_array().ok_or_else(|| wrong(at, value, "an array"))?;
                items
                    .iter()
                    .try_for_each(|item| self.check_value(&schema["items"], item, at))
            }
            Some("string") => value
                .as_str()
                .map(drop)
                .ok_or_else(|| wrong(at, value, "a string")),
            Some("boolean") => value
                .as_bool()
                .map(drop)
                .ok_or_else(|| wrong(at, value, "a boolean")),
            Some("integer") => {
                let number = value.as_i64().ok_or_else(|| wrong(at, value, "an integer"))?;
                let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
                let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
                if (least..=most).contains(&number) {
                    Ok(())
                } else {
                    Err(format!("{at}: {number} is not in {least} to {most}"))
                }
            }
            other => panic!("{at}: a schema of type {other:?}, which no request of ours needs"),
        }
    }

    /// Firecracker refuses unknown fields (`deny_unknown_fields`), although its description does not say so.
    fn check_object(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let object = value.as_object().ok_or_else(|| wrong(at, value, "an object"))?;
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !object.contains_key(name) {
                return Err(format!("{at} has no field {name}"));
            }
        }
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        object
            .iter()
            .try_for_each(|(name, field)| match properties.get(name) {
                Some(property) => self.check_value(property, field, name),
                None => Err(format!("{at} has an unknown field {name}")),
            })
    }
}

fn wrong(at: &str, value: &Value, expected: &str) -> String {
    format!("{at}: {value} is not {expected}")
}

/// Whether a path fits a template such as `/drives/{drive_id}`.
fn matches(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template
            .zip(path)
            .all(|(expected, part)| expected == part || (expected.starts_with('{') && !part.is_empty()))
}

const SMALL: &str = "
paths:
  /drives/{drive_id}:
    put:
      parameters:
        - {name: drive_id, in: path, required: true, type: string}
        - name: body
          in: body
          required: true
          schema: {$ref: '#/definitions/Drive'}
  /version:
    get: {}
definitions:
  Drive:
    type: object
    required: [drive_id]
    properties:
      drive_id: {type: string}
      cache: {type: string, enum: [Unsafe, Writeback]}
      count: {type: integer, minimum: 1, maximum: 32}
";

#[test]
fn a_request_that_breaks_the_description_is_seen() {
    let spec = Spec::parse(SMALL);
    let put = |body: &str| spec.check("PUT", "/drives/rootfs", body.as_bytes());
    assert_eq!(put(r#"{"drive_id":"x","cache":"Unsafe","count":32}"#), Ok(()));
    assert_eq!(spec.check("GET", "/version", b""), Ok(()));

    assert!(put("").is_err());
    assert!(put("[]").unwrap_err().contains("not an object"));
    assert!(put("{}").unwrap_err().contains("no field drive_id"));
    assert!(put(r#"{"drive_id":1}"#).unwrap_err().contains("not a string"));
    assert!(
        put(r#"{"drive_id":"x","ht_enabled":false}"#)
            .unwrap_err()
            .contains("unknown field ht_enabled")
    );
    assert!(
        put(r#"{"drive_id":"x","cache":"None"}"#)
            .unwrap_err()
            .contains("none of")
    );
    assert!(
        put(r#"{"drive_id":"x","count":33}"#)
            .unwrap_err()
            .contains("not in 1 to 32")
    );
    assert!(spec.check("GET", "/drives/rootfs", b"").is_err());
    assert!(spec.check("PUT", "/drives/", b"{}").is_err());
    assert!(spec.check("PUT", "/drives/a/b", b"{}").is_err());
    assert!(spec.check("GET", "/version", b"{}").is_err());
}
