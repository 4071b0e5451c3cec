//! Without `--json` output goes through as it is produced.

use std::time::{Duration, Instant};

use harness::Host;

#[test]
fn output_comes_while_the_code_still_runs() {
    let host = Host::new();
    let run = host
        .run("bash", "echo early; echo oops >&2; sleep 3; echo late; exit 5")
        .start();
    run.wait_for_stdout("early\n");
    let early = Instant::now();
    run.wait_for_stdout("late\n");
    assert!(
        early.elapsed() > Duration::from_millis(2500),
        "{:?}",
        early.elapsed()
    );
    let finished = run.finish();
    assert_eq!(finished.code(), 5);
    assert_eq!(finished.stdout_text(), "early\nlate\n");
    assert!(finished.stderr_text().contains("oops\n"));
}

#[test]
fn bytes_go_through_unchanged() {
    let host = Host::new();
    // A character in two pieces, and bytes that are no character.
    let code = r"printf 'gr\xc3'; sleep 0.2; printf '\xbc\xc3\x9f\xff\n'";
    let finished = host.run("bash", code).finish().succeeded();
    assert_eq!(finished.stdout, b"gr\xc3\xbc\xc3\x9f\xff\n");
}
