//! The exploit corpus, in real machines.

use std::time::Duration;

use harness::Host;
use serde_json::Value;

/// Why not all of it is run each time.
const SLOW: &str = "the whole exploit corpus takes minutes";

fn checks(host: &Host, arguments: &[&str]) -> Vec<Value> {
    let run = host
        .verb("verify-isolation")
        .args(["--json", "--jobs", "2"])
        .args(arguments);
    let finished = run.within(Duration::from_secs(560)).finish();
    let score = finished.json();
    let checks = score["checks"].as_array().expect("a list of checks").clone();
    let failed = checks.iter().filter(|check| check["verdict"] == "fail").count();
    assert_eq!(score["failed"], failed, "{score}");
    assert_eq!(
        finished.code(),
        i32::from(failed > 0),
        "{}",
        finished.stderr_text()
    );
    checks
}

#[track_caller]
fn held(checks: &[Value]) {
    let failed: Vec<&Value> = checks.iter().filter(|check| check["verdict"] == "fail").collect();
    assert!(failed.is_empty(), "{}", serde_json::json!(failed));
}

#[test]
fn a_part_of_the_corpus_holds() {
    let host = Host::new();
    let part = [
        "bash/",
        "python/bpf",
        "python/files_tricks",
        "python/io_uring",
        "python/keyctl",
        "python/runner_memory",
        "python/userfaultfd",
        "python/vsock",
        "ruby/signals",
        "node/outlive",
    ];
    let only: Vec<&str> = part.iter().flat_map(|name| ["--only", name]).collect();
    let checks = checks(&host, &only);
    assert!(checks.len() >= 16, "{} checks", checks.len());
    held(&checks);
}

#[test]
fn the_whole_corpus_holds() {
    if harness::only_with_all(SLOW) {
        let checks = checks(&Host::new(), &[]);
        assert!(checks.len() > 40, "{} checks", checks.len());
        held(&checks);
    }
}

/// And the list of checks says what they are.
#[test]
fn a_check_of_nothing_is_refused() {
    let host = Host::bare();
    let run = host.verb("verify-isolation").args(["--only", "nothing-like-it"]);
    run.refusal().is("invalid_request", "nothing-like-it");
    let listed = host.verb("verify-isolation").arg("--list").finish().succeeded();
    let text = listed.stdout_text();
    assert!(
        text.contains("python/bpf\n    tries   to load BPF programs"),
        "{text}"
    );
}
