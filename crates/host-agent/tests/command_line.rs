//! Drives the real binary as far as it gets without a machine: help, and input that is refused before anything starts.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MIB: usize = 1 << 20;

/// `host-agent run` with directories that do not exist, so that nothing can be made and nothing is found.
fn run(args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_host-agent"))
        .arg("run")
        .args(args)
        .env("RUNNER_CODES_STATE_DIR", "/dev/null/state")
        .env("RUNNER_CODES_RUNTIME_DIR", "/dev/null/run")
        .env_remove("RUNNER_CODES_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What is refused early is not read to its end.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

/// The error's code, after a look at the form: one line, a remedy, nothing on standard output, status 125.
#[track_caller]
fn refused(args: &[&str], stdin: &[u8]) -> String {
    let output = run(args, stdin);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{line}");
    assert!(output.stdout.is_empty(), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    let (code, text) = line.strip_prefix("error[").unwrap().split_once("]: ").unwrap();
    assert!(
        text.split_once("; ").is_some_and(|(_, remedy)| remedy.len() > 3),
        "{line}"
    );
    code.to_owned()
}

#[test]
fn help_and_errors_are_as_recorded() {
    trycmd::TestCases::new()
        .env("COLUMNS", "100")
        .case("tests/cmd/*.trycmd");
}

#[test]
fn code_that_is_no_text() {
    assert_eq!(refused(&["--lang", "bash"], b"echo a\0b"), "code_not_text");
    assert_eq!(refused(&["--lang", "bash"], b"echo \xff"), "code_not_text");
}

#[test]
fn code_that_is_too_large() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(MIB as u64 + 1).unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(refused(&["--lang", "bash", path], b""), "code_too_large");
    assert_eq!(
        refused(&["--lang", "bash"], &vec![b'#'; 3 * MIB]),
        "code_too_large"
    );
}

#[test]
fn input_without_end_is_not_read_to_its_end() {
    assert_eq!(refused(&["--lang", "bash", "/dev/zero"], b""), "code_too_large");
    let stdin = ["--lang", "bash", "--code", "true", "--stdin-file", "/dev/zero"];
    assert_eq!(refused(&stdin, b""), "invalid_request");
    let file = ["--lang", "bash", "--code", "true", "--file", "/dev/zero:z"];
    assert_eq!(refused(&file, b""), "invalid_request");
}

#[test]
fn json_refusals_are_one_object_and_nothing_else() {
    let output = run(
        &["--lang", "cobol", "--code", "x", "--json", "--trace-id", "t-1"],
        b"",
    );
    assert_eq!((output.status.code(), output.stderr.len()), (Some(125), 0));
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["trace_id", "code", "cause", "remedy"]);
    assert_eq!(
        (&error["trace_id"], &error["code"]),
        (&"t-1".into(), &"unknown_language".into())
    );
}

#[test]
fn nothing_panics_when_nobody_reads() {
    for args in [&["completions", "bash"][..], &["doctor"], &["doctor", "--json"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_host-agent"))
            .args(args)
            .env("RUNNER_CODES_STATE_DIR", "/dev/null/state")
            .env("RUNNER_CODES_RUNTIME_DIR", "/dev/null/run")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

#[test]
fn the_embedded_guest_runner_is_small_and_needs_no_library() {
    let program = std::fs::read(Path::new(env!("GUEST_RUNNER"))).unwrap();
    assert!(program.starts_with(b"\x7fELF"));
    assert!(program.len() <= 3 * MIB, "{} bytes", program.len());
    // A program that needs a dynamic linker names it.
    let linker = b"/ld-linux";
    assert!(!program.windows(linker.len()).any(|window| window == linker));
}
