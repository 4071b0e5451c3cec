//! A guest that breaks the protocol in every way. host-agent says so, ends the machine, and waits for nothing for ever.

use std::fs;
use std::time::Duration;

use harness::{Finished, Host, Snapshots, hostile};

/// Runs a job in a guest that behaves like that.
fn run(host: &Host, behaviour: &str) -> Finished {
    let initramfs = hostile::initramfs(&host.initramfs(), behaviour);
    let initramfs = host.file("initramfs", initramfs);
    let run = host.run("bash", "true").args(["--timeout", "2", "--json"]);
    run.arg("--initramfs")
        .arg(initramfs)
        .within(Duration::from_secs(120))
        .finish()
}

#[track_caller]
fn refused(behaviour: &str, code: &str) {
    let host = Host::new();
    let refusal = run(&host, behaviour).refusal();
    assert_eq!(refusal.code, code, "{refusal:?}");
}

/// Without this the other tests would prove nothing.
#[test]
fn one_that_behaves_is_believed() {
    let host = Host::new();
    run(&host, "answer properly")
        .answer()
        .printed("hello from a liar\n")
        .exited(0);
}

#[test]
fn never_answers() {
    refused("never answer", "guest_silent");
}

#[test]
fn says_hello_and_never_answers_the_job() {
    refused("answer no job", "guest_silent");
}

#[test]
fn lies_in_hello() {
    refused("lie in hello", "guest_protocol");
}

#[test]
fn speaks_another_version() {
    refused("another version", "guest_protocol");
}

#[test]
fn oversized_frame() {
    refused("oversized frame", "guest_protocol");
}

#[test]
fn truncated_frame() {
    refused("truncated frame", "guest_protocol");
}

#[test]
fn not_json() {
    refused("not JSON", "guest_protocol");
}

#[test]
fn another_job_s_answer() {
    refused("another job's answer", "guest_protocol");
}

#[test]
fn a_file_nobody_asked_for() {
    refused("a file nobody asked for", "guest_protocol");
}

#[test]
fn output_without_end() {
    refused("output without end", "guest_protocol");
}

#[test]
fn garbage_on_the_port() {
    if harness::backend_is("firecracker") {
        return harness::skip("vsock has no multiplexer to break");
    }
    refused("garbage on the port", "guest_protocol");
}

/// A clone of a frozen guest that behaves like that.
fn run_a_clone(behaviour: &str) -> Finished {
    let host = Host::with_own_state(Snapshots::Absent);
    let initramfs = host.initramfs();
    fs::write(&initramfs, hostile::initramfs(&initramfs, behaviour)).unwrap();
    host.verb("template").args(["build", "base"]).finish().succeeded();
    host.run("bash", "true").arg("--json").finish()
}

#[test]
fn a_clone_that_takes_on_its_identity_is_believed() {
    let answer = run_a_clone("answer properly").answer();
    assert_eq!(answer.path(), "restore");
    answer.printed("hello from a liar\n").exited(0);
}

#[test]
fn a_clone_that_keeps_its_identity_runs_nothing() {
    run_a_clone("refuse an identity")
        .refusal()
        .is("internal", "I stay who I am");
}

#[test]
fn a_clone_that_takes_on_another_identity_runs_nothing() {
    assert_eq!(
        run_a_clone("take on another identity").refusal().code,
        "guest_protocol"
    );
}

#[test]
fn a_clone_that_confirms_no_identity_runs_nothing() {
    assert_eq!(
        run_a_clone("confirm no identity").refusal().code,
        "guest_protocol"
    );
}
