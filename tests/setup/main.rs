//! The set-up suite: images are made whole and once, whatever happens meanwhile.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use harness::{Host, Run, process};
use rustix::process::Signal;
use serde_json::Value;

/// Fetching and packing takes a minute or two.
const DEADLINE: Duration = Duration::from_secs(600);

fn set_up(host: &Host, state: &Path) -> Run {
    let setup = host.verb("setup").args(["--template", "base"]);
    setup.env("RUNNER_CODES_STATE_DIR", state).within(DEADLINE)
}

fn manifest(state: &Path) -> Value {
    let path = state.join("templates/base/template.json");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("a manifest is JSON")
}

fn runs(host: &Host, state: &Path) {
    let run = host.run("bash", "echo made").arg("--no-setup");
    let run = run.env("RUNNER_CODES_STATE_DIR", state);
    run.answer().printed("made\n").exited(0);
}

#[test]
fn two_at_once_make_one_whole_and_it_is_byte_for_byte_the_same_as_any_other() {
    let host = Host::new();
    let state = host.path("state");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| set_up(&host, &state).finish().succeeded());
        }
    });
    runs(&host, &state);
    let (new, other) = (manifest(&state), manifest(&harness::state()));
    if new["packages"] != other["packages"] || new["recipe_sha256"] != other["recipe_sha256"] {
        return harness::skip(
            "the shared image was made from other packages, so nothing can be said about its bytes",
        );
    }
    assert_eq!(new["rootfs_sha256"], other["rootfs_sha256"]);
}

#[test]
fn one_that_was_killed_is_made_good_by_the_next() {
    let host = Host::new();
    let state = host.path("state");
    let setup = set_up(&host, &state).start();
    wait_for_descendant(setup.pid(), "mmdebstrap");
    // What is half unpacked is the worst time.
    thread::sleep(Duration::from_secs(5));
    setup.signal(Signal::KILL);
    let _ = setup.finish();

    let _ = set_up(&host, &state).finish().succeeded();
    runs(&host, &state);
    let unfinished = fs::read_dir(state.join("tmp")).into_iter().flatten().count();
    assert_eq!(unfinished, 0, "what the killed one was making is still there");
}

#[test]
fn a_second_set_up_has_nothing_to_do() {
    let host = Host::new();
    let finished = set_up(&host, &harness::state())
        .within(Duration::from_secs(10))
        .finish()
        .succeeded();
    assert!(
        finished.elapsed < Duration::from_secs(5),
        "{:?}",
        finished.elapsed
    );
}

#[test]
fn an_unknown_template_is_refused() {
    let host = Host::bare();
    let refused = host.verb("setup").args(["--template", "cobol"]).finish();
    refused.refusal_line().is("invalid_request", "cobol");
}

fn wait_for_descendant(of: u32, name: &str) {
    for _ in 0..1200 {
        let ours = |pid| std::iter::successors(Some(pid), |pid| process::parent(*pid)).any(|pid| pid == of);
        if process::all().any(|pid| process::command_line(pid).contains(name) && ours(pid)) {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("no {name} was started");
}
