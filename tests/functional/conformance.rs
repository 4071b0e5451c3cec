//! The service against its own OpenAPI document, by schemathesis (<https://schemathesis.readthedocs.io/>): whatever is sent, the
//! answer has a status that the document names and the shape that it gives, and is no fault of the service.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Host, cache, skip};
use serde_json::Value;

const VERSION: &str = "4.32.5";
/// Requests of each kind and endpoint.
const EXAMPLES: &str = "60";
/// What a document cannot say: that code has no NUL, that of two fields one is to be absent, that base64 is base64.
const NOT_CHECKED: &str = "positive_data_acceptance";

/// The program, in an environment of its own that is made where it is missing.
fn schemathesis() -> Result<PathBuf, String> {
    let environment = cache().join(format!("schemathesis-{VERSION}"));
    let program = environment.join("bin/st");
    let works = || {
        Command::new(&program)
            .arg("--version")
            .output()
            .is_ok_and(|done| done.status.success())
    };
    if works() {
        return Ok(program);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&environment))?;
    let package = format!("schemathesis=={VERSION}");
    let install = ["install", "--quiet", "--disable-pip-version-check", &package];
    run(Command::new(environment.join("bin/pip")).args(install))?;
    if works() {
        Ok(program)
    } else {
        Err(format!("{} does not start", program.display()))
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default();
    Err(format!("{}: {last}", Path::new(command.get_program()).display()))
}

#[test]
fn the_service_is_as_its_document_says() {
    let program = match schemathesis() {
        Ok(program) => program,
        Err(why) => return skip(&format!("schemathesis cannot be installed from PyPI: {why}")),
    };
    let host = Host::without_images();
    let create = host.verb("api-key").args(["create", "conformance", "--json"]);
    let made: Value = serde_json::from_slice(&create.finish().succeeded().stdout).expect("JSON");
    let key = made["key"].as_str().expect("a key");
    let service = host.serve(&["--instant-machine", "0s", "--listen", "127.0.0.1:0"]);
    let document = format!("http://{}/v1/openapi.json", service.address());
    let done = Command::new(program)
        .args([
            "run",
            &document,
            "--header",
            &format!("Authorization: Bearer {key}"),
        ])
        .args(["--checks", "all", "--exclude-checks", NOT_CHECKED])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            EXAMPLES,
        ])
        .args([
            "--seed",
            "1",
            "--no-shrink",
            "--continue-on-failure",
            "--request-timeout",
            "30",
            "--no-color",
        ])
        // It keeps what it found between runs.
        .current_dir(host.path(""))
        .output()
        .expect("schemathesis starts");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    println!("{said}");
    service.stop();
}
