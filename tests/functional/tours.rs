//! Ordinary programs notice nothing of their language's filter.

use harness::{Answer, Host};
use serde_json::json;

use crate::scripts::{self, TOURS};

#[track_caller]
fn done(name: &str, answer: Answer) {
    assert!(
        answer.json["layers"].to_string().contains("seccomp"),
        "{}",
        answer.json
    );
    let ended = (answer.stdout(), answer.termination(), answer.exit_code());
    assert_eq!(ended, ("done\n", "exit", 0), "{name}: {}", answer.json);
}

/// Every tour of that language in a clone, once in a parked interpreter and once in a new one.
fn every_tour(language: &str) {
    let host = Host::new();
    let service = host.serve(&["--pool", "0"]);
    service.wait_until_ready();
    let mut count = 0;
    for (name, code) in scripts::of(TOURS, language) {
        for fresh in [false, true] {
            let answer = service.execute(&json!({
                "lang": language,
                "code": String::from_utf8_lossy(code),
                "files": scripts::beside(TOURS, language, name),
                "timeout": 120.0,
                "fresh": fresh,
            }));
            let interpreter = if fresh { "fresh" } else { "parked" };
            done(name, answer.took("restore", interpreter));
        }
        count += 1;
    }
    service.stop();
    assert!(count > 2, "{count} tours");
}

#[test]
fn python() {
    every_tour("python");
}

#[test]
fn node() {
    every_tour("node");
}

#[test]
fn ruby() {
    every_tour("ruby");
}

#[test]
fn bash() {
    every_tour("bash");
}

#[test]
fn rust() {
    let host = Host::new();
    let mut count = 0;
    for (name, code) in scripts::of(TOURS, "rust") {
        let run = host.run("rust", &String::from_utf8_lossy(code));
        done(name, run.args(["--timeout", "120"]).answer());
        count += 1;
    }
    assert_eq!(count, 2);
}
