//! What a guest says that it can do, and what it refuses because it cannot.

use harness::{Host, Run};
use serde_json::Value;

fn poor_guest(host: &Host, code: &str) -> Run {
    let run = host.run("bash", code);
    run.args([
        "--kernel-arg",
        "cgroup_disable=memory",
        "--kernel-arg",
        "lsm=capability",
    ])
}

/// What `--hello` prints.
fn hello(run: Run) -> Value {
    let finished = run.arg("--hello").finish().succeeded();
    let text = finished.stderr_text();
    let at = text.find('{').unwrap_or_else(|| panic!("no hello in {text}"));
    let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter();
    values.next().expect("one value").expect("JSON")
}

#[test]
fn hello_lists_languages_and_confinement() {
    let host = Host::new();
    let hello = hello(host.run("bash", "true"));
    for language in ["python", "bash", "node", "ruby"] {
        assert!(hello["languages"][language].is_string(), "{hello}");
    }
    let confinement = &hello["confinement"];
    for layer in ["cgroup_v2", "namespaces", "seccomp", "overlay"] {
        assert_eq!(confinement[layer], true, "{layer} in {hello}");
    }
    assert!(
        confinement["landlock_abi"].as_u64().is_some_and(|abi| abi >= 1),
        "{hello}"
    );
}

#[test]
fn hello_says_what_is_missing() {
    let host = Host::new();
    let hello = hello(poor_guest(&host, "true"));
    let confinement = &hello["confinement"];
    assert_eq!(confinement["cgroup_v2"], false, "{hello}");
    let why = confinement["cgroup_v2_missing"].as_str().expect("a reason");
    assert!(why.contains("memory"), "{why}");
    assert!(confinement.get("landlock_abi").is_none(), "{hello}");
}

#[test]
fn layers_tell_what_was_in_force() {
    let host = Host::new();
    let layers = |answer: harness::Answer| answer.json["layers"].to_string();
    let usual = layers(host.run("bash", "true").answer().exited(0));
    assert!(
        usual.contains(r#""cgroup""#) && usual.contains(r#""seccomp""#),
        "{usual}"
    );
    let poor = layers(poor_guest(&host, "true").answer().exited(0));
    assert!(
        !poor.contains(r#""cgroup""#) && poor.contains(r#""no_new_privs""#),
        "{poor}"
    );
}

/// Where exits are not told of, calls that end the job are.
#[test]
fn a_filter_needs_no_cgroup() {
    let host = Host::new();
    let code = "(exit 3); echo $?; unshare --user true; echo after";
    let answer = poor_guest(&host, code).answer().ended_by("seccomp", 137);
    assert_eq!(
        answer.json["termination"]["syscall"], "unshare",
        "{}",
        answer.json
    );
    answer.printed("3\n");
}

#[test]
fn a_limit_that_the_guest_cannot_apply_is_not_dropped() {
    let host = Host::new();
    let run = poor_guest(&host, "echo never").args(["--limit", "memory_bytes=100000000"]);
    let refusal = run.refusal();
    assert_eq!(refusal.code, "limit_unsupported", "{refusal:?}");
}
