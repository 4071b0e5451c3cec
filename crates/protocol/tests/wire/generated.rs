//! Files in the repository that follow from the types. A test fails when one has drifted; `UPDATE_SCHEMA=1 cargo test -p
//! protocol` writes them anew, and the change then shows in review.

use std::fmt::Write as _;
use std::path::Path;

use protocol::{ControlRequest, ControlResponse, ErrorCode, Event, JobRequest, JobResponse};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

fn check(path: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let frozen = std::fs::read_to_string(&path).unwrap_or_default();
    let line = frozen
        .lines()
        .zip(generated.lines())
        .position(|(old, new)| old != new);
    assert!(
        frozen == generated,
        "{} is not what the types say (first difference in line {}). If the change is meant, and old hosts and old \
         guests still work with it, run `UPDATE_SCHEMA=1 cargo test -p protocol` and commit the file.",
        path.display(),
        line.map_or(frozen.lines().count().min(generated.lines().count()), |n| n) + 1,
    );
}

/// The shapes only: a reworded comment is no change of the protocol.
fn without_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("description").is_some_and(Value::is_string) {
                fields.shift_remove("description");
            }
            fields.values_mut().for_each(without_descriptions);
        }
        Value::Array(values) => values.iter_mut().for_each(without_descriptions),
        _ => {}
    }
}

#[test]
fn schema_is_frozen() {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let ports = json!({
        "5000": {
            "request": generator.subschema_for::<JobRequest>(),
            "event": generator.subschema_for::<Event>(),
            "response": generator.subschema_for::<JobResponse>(),
        },
        "5001": {
            "request": generator.subschema_for::<ControlRequest>(),
            "response": generator.subschema_for::<ControlResponse>(),
        },
    });
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Runner Codes wire protocol, version 1",
        "$comment": "Generated from crates/protocol. Each message is one frame: a 4-byte big-endian length, then JSON.",
        "ports": ports,
        "$defs": generator.take_definitions(true),
    });
    without_descriptions(&mut schema);
    check(
        "schema/v1.json",
        &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()),
    );
}

#[test]
fn errors_are_documented() {
    let mut page = String::from(
        "# Errors\n\n\
         <!-- Generated from crates/protocol/src/error.rs: UPDATE_SCHEMA=1 cargo test -p protocol -->\n\n\
         Every error names a code, its cause and a remedy. The codes are stable: programs may match on them. \
         The command line prints\n`error[CODE]: cause; remedy` and exits with 125 (128+n when signal n to \
         host-agent itself was the cause); with `--json` it prints\n\
         `{\"trace_id\",\"code\",\"cause\",\"remedy\"}`. The remedy below is the general one; an error that knows\nbetter says so.\n\n\
         | code | meaning | remedy |\n|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        writeln!(
            page,
            "| `{code}` | {} | {} |",
            code.description(),
            code.default_remedy()
        )
        .unwrap();
    }
    check("../../docs/errors.md", &page);
}

#[test]
fn error_texts_fit_the_table() {
    for code in ErrorCode::ALL {
        let (meaning, remedy) = (code.description(), code.default_remedy());
        assert!(meaning.ends_with('.') && !remedy.ends_with('.'), "{code}");
        assert!(
            !format!("{meaning}{remedy}").contains(['|', '\n', '<', '>']),
            "{code}"
        );
    }
}
