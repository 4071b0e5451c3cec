//! A guest that breaks the protocol in every way. host-agent says so, ends the machine, and waits for nothing for ever.

use std::time::Duration;

use harness::{Finished, Host, hostile};

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
