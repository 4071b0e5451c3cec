//! `validate` lets through what is within every bound and refuses the first step over each.

use proptest::prelude::*;
use protocol::job::JobLimits;
use protocol::limits::*;
use protocol::{ErrorCode, FileSpec, JobRequest, Language};

fn job() -> JobRequest {
    JobRequest::new("trace", Language::Bash, "true")
}

/// The code that the job is refused with after `change`, and the cause; `None` when it is accepted.
fn verdict(change: impl FnOnce(&mut JobRequest)) -> Option<(ErrorCode, String)> {
    let mut job = job();
    change(&mut job);
    job.validate().err().map(|error| (error.code, error.cause))
}

fn accepted(change: impl FnOnce(&mut JobRequest)) {
    assert_eq!(verdict(change), None);
}

fn refused(field: &str, change: impl FnOnce(&mut JobRequest)) {
    let (code, cause) = verdict(change).expect("it should be refused");
    assert_eq!(code, ErrorCode::InvalidRequest, "{cause}");
    assert!(cause.starts_with(field), "{cause}");
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

/// That many zero bytes.
fn base64(length: usize) -> String {
    let padding = [0, 2, 1][length % 3];
    let mut encoded = "A".repeat((length + padding) / 3 * 4 - padding);
    encoded.push_str(&"=".repeat(padding));
    encoded
}

fn file(path: &str, content: &str) -> FileSpec {
    FileSpec {
        path: path.to_owned(),
        content: Some(content.to_owned()),
        ..FileSpec::default()
    }
}

fn wanted(path: &str) -> FileSpec {
    FileSpec {
        path: path.to_owned(),
        collect: true,
        ..FileSpec::default()
    }
}

#[test]
fn a_job_of_the_first_version_is_accepted() {
    accepted(|_| {});
    accepted(|job| job.trace_id.clear());
}

#[test]
fn trace_ids() {
    accepted(|job| job.trace_id = text(MAX_TRACE_ID));
    refused("trace_id", |job| job.trace_id = text(MAX_TRACE_ID + 1));
    refused("trace_id", |job| job.trace_id = "a\nb".to_owned());
    refused("trace_id", |job| job.trace_id = "a\u{9b}b".to_owned());
}

#[test]
fn code() {
    let code = |code: String| verdict(|job| job.code = code).map(|(code, _)| code);
    assert_eq!(code(text(MAX_CODE)), None);
    assert_eq!(code(text(MAX_CODE + 1)), Some(ErrorCode::CodeTooLarge));
    assert_eq!(code(String::new()), Some(ErrorCode::EmptyCode));
    assert_eq!(code(" \n\t".to_owned()), Some(ErrorCode::EmptyCode));
    assert_eq!(code("a\0b".to_owned()), Some(ErrorCode::CodeNotText));
}

#[test]
fn input() {
    accepted(|job| job.stdin = text(MAX_STDIN));
    refused("stdin", |job| job.stdin = text(MAX_STDIN + 1));
    accepted(|job| job.stdin_base64 = Some(base64(MAX_STDIN)));
    refused("stdin", |job| job.stdin_base64 = Some(base64(MAX_STDIN + 1)));
    refused("stdin_base64", |job| {
        job.stdin_base64 = Some("no base64".to_owned())
    });
    refused("stdin", |job| {
        job.stdin = text(1);
        job.stdin_base64 = Some(base64(1));
    });
}

#[test]
fn arguments_and_environment() {
    accepted(|job| job.args = vec![String::new(); MAX_ARGS]);
    refused("args", |job| job.args = vec![String::new(); MAX_ARGS + 1]);
    accepted(|job| job.args = vec![text(MAX_ARG_BYTES)]);
    refused("args", |job| job.args = vec![text(MAX_ARG_BYTES), text(1)]);
    refused("args", |job| job.args = vec!["a\0".to_owned()]);

    let env = |count: usize| (0..count).map(|n| (format!("N{n}"), String::new())).collect();
    accepted(|job| job.env = env(MAX_ENV));
    refused("env", |job| job.env = env(MAX_ENV + 1));
    refused("env", |job| {
        job.env.insert("N".to_owned(), text(MAX_ARG_BYTES));
    });
    for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
        refused("env", |job| {
            job.env.insert(name.to_owned(), value.to_owned());
        });
    }
}

#[test]
fn files() {
    accepted(|job| job.files = vec![file("a/b.txt", ""), file("/tmp/c", "x"), wanted("d")]);
    accepted(|job| job.files = vec![wanted("x"); MAX_FILES]);
    refused("files", |job| job.files = vec![wanted("x"); MAX_FILES + 1]);
    accepted(|job| job.files = vec![file("a", &text(MAX_FILE_BYTES))]);
    refused("files", |job| {
        job.files = vec![file("a", &text(MAX_FILE_BYTES)), file("b", "x")]
    });
    let mut encoded = wanted("a");
    encoded.content_base64 = Some(base64(MAX_FILE_BYTES));
    accepted(|job| job.files = vec![encoded.clone()]);
    refused("files", |job| job.files = vec![encoded.clone(), file("b", "x")]);
    encoded.content = Some(String::new());
    refused("files", |job| job.files = vec![encoded]);
    let nothing = FileSpec {
        path: "a".to_owned(),
        ..FileSpec::default()
    };
    refused("files", |job| job.files = vec![nothing]);
    for mode in [0, 0o777] {
        accepted(|job| {
            job.files = vec![FileSpec {
                mode: Some(mode),
                ..file("a", "")
            }]
        });
    }
    refused("files", |job| {
        job.files = vec![FileSpec {
            mode: Some(0o4755),
            ..file("a", "")
        }]
    });
}

#[test]
fn paths() {
    for path in ["", "..", "a/../b", "/..", "a\0", "a/", "/", ".", "a/."] {
        refused("files", |job| job.files = vec![wanted(path)]);
    }
    for path in ["...", "a..b", "./a", "a//b", &text(4096)] {
        accepted(|job| job.files = vec![wanted(path)]);
    }
    for path in ["/", ".", "a/"] {
        accepted(|job| job.cwd = Some(path.to_owned()));
    }
    for path in ["", "a/..", "\0", &text(4097)] {
        refused("cwd", |job| job.cwd = Some(path.to_owned()));
    }
}

#[test]
fn limits() {
    let with = |limits: JobLimits| move |job: &mut JobRequest| job.limits = limits;
    accepted(with(JobLimits {
        output_bytes: Some(MAX_OUTPUT),
        ..JobLimits::default()
    }));
    refused(
        "limits",
        with(JobLimits {
            output_bytes: Some(MAX_OUTPUT + 1),
            ..JobLimits::default()
        }),
    );
    for field in [
        "memory_bytes",
        "pids",
        "output_bytes",
        "file_bytes",
        "open_files",
        "cpu_ms",
    ] {
        let zero = serde_json::from_value(serde_json::json!({field: 0})).unwrap();
        refused("limits", with(zero));
    }
}

proptest! {
    #[test]
    fn timeouts(timeout in prop_oneof![
        any::<f64>(), -1.0..1.0, 3599.0..3601.0, Just(0.0), Just(-0.0), Just(MAX_TIMEOUT), Just(f64::MIN_POSITIVE),
    ]) {
        let refused = verdict(|job| job.timeout = timeout).map(|(code, _)| code);
        let expected = if timeout > 0.0 && timeout <= MAX_TIMEOUT { None } else { Some(ErrorCode::InvalidTimeout) };
        prop_assert_eq!(refused, expected);
    }

    #[test]
    fn no_accepted_path_climbs(path in "[./a\0]{0,12}") {
        if verdict(|job| job.files = vec![wanted(&path)]).is_none() {
            let path = std::path::Path::new(&path);
            prop_assert!(path.file_name().is_some());
            prop_assert!(!path.components().any(|part| part == std::path::Component::ParentDir));
        }
    }
}
