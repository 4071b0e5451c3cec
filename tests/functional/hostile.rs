//! A guest that breaks the protocol in every way. host-agent says so, ends the machine, and waits for nothing for ever.

use std::fs;
use std::time::Duration;

use harness::{Finished, Host, Run, Snapshots, hostile};

/// More than host-agent itself may ever have: a few times the largest frame, and what a debug build has anyway.
const MOST_MEMORY: u64 = 256 << 20;

/// A job in a guest that behaves like that. It asks for the file `out` back.
fn job(host: &Host, behaviour: &str, timeout: &str) -> Run {
    let initramfs = hostile::initramfs(&host.initramfs(), behaviour);
    let initramfs = host.file("initramfs", initramfs);
    let run = host.run("bash", "true").args(["--timeout", timeout]);
    let out = host.path("out");
    run.arg("--initramfs")
        .arg(initramfs)
        .args(["--collect", &format!("out:{}", out.display())])
        .within(Duration::from_secs(120))
}

/// It came to its end without taking more memory than it may.
#[track_caller]
fn within_bounds(finished: Finished) -> Finished {
    let peak = finished.peak_memory;
    assert!((1..MOST_MEMORY).contains(&peak), "{peak} bytes of memory");
    finished
}

/// Runs a job in a guest that behaves like that.
fn run(host: &Host, behaviour: &str) -> Finished {
    within_bounds(job(host, behaviour, "2").arg("--json").finish())
}

#[track_caller]
fn refused(behaviour: &str, code: &str) {
    let host = Host::new();
    let refusal = run(&host, behaviour).refusal();
    assert_eq!(refusal.code, code, "{refusal:?}");
    assert!(!host.path("out").exists(), "a file was written");
}

/// The same of a job that asks for events, and has the time that what is much takes.
#[track_caller]
fn refused_while_streaming(behaviour: &str, code: &str) {
    let host = Host::new();
    let refusal = within_bounds(job(&host, behaviour, "60").finish()).refusal_line();
    assert_eq!(refusal.code, code, "{refusal:?}");
    assert!(!host.path("out").exists(), "a file was written");
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

#[test]
fn a_frame_that_never_comes() {
    refused("a frame that never comes", "guest_silent");
}

#[test]
fn an_answer_that_drips() {
    refused("drip", "guest_silent");
}

#[test]
fn hangs_up_on_the_job() {
    refused("hang up", "guest_protocol");
}

#[test]
fn hangs_up_on_every_connection() {
    let host = Host::new();
    let refusal = run(&host, "hang up on every connection").refusal();
    let codes = ["guest_protocol", "guest_silent"];
    assert!(codes.contains(&refusal.code.as_str()), "{refusal:?}");
}

#[test]
fn a_flood_of_events() {
    refused_while_streaming("a flood of events", "guest_protocol");
    refused("a flood of events", "guest_protocol");
}

#[test]
fn a_flood_of_events_that_carry_nothing() {
    refused_while_streaming("a flood of empty events", "guest_protocol");
    refused_while_streaming("started again and again", "guest_protocol");
}

#[test]
fn parts_that_are_many_times_as_large_as_their_text() {
    refused_while_streaming("tiny parts", "guest_protocol");
    refused_while_streaming("deep JSON", "guest_protocol");
}

#[test]
fn an_error_quotes_little_of_what_was_said() {
    let host = Host::new();
    let refusal = job(&host, "an endless name", "60").refusal();
    assert_eq!(refusal.code, "guest_protocol", "{refusal:?}");
    assert!(refusal.cause.len() < 4096, "{} bytes", refusal.cause.len());
}

#[test]
fn bytes_that_are_no_text() {
    refused("bytes that are no text", "guest_protocol");
}

#[test]
fn ends_that_a_guest_cannot_tell() {
    for behaviour in [
        "a crash",
        "a drain",
        "an end that there is not",
        "an exit code out of range",
    ] {
        refused(behaviour, "guest_protocol");
    }
}

#[test]
fn files_that_were_not_asked_for_like_that() {
    for behaviour in ["a climbing file", "a file twice"] {
        refused(behaviour, "guest_protocol");
    }
    refused_while_streaming("a file too large", "guest_protocol");
}

#[test]
fn more_output_than_was_asked_for() {
    refused_while_streaming("more output than asked for", "guest_protocol");
}

#[test]
fn a_flooded_console_holds_up_nothing() {
    let host = Host::new();
    let finished = within_bounds(job(&host, "flood the console", "60").arg("--json").finish());
    finished.answer().printed("hello from a liar\n").exited(0);
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
