//! Whether what a guest says fits what it was asked. Pure.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use protocol::job::{Chunk, Timings, Truncated};
use protocol::{ErrorCode, Event, FileSpec, HostError, JobRequest, JobResponse, Termination, limits};
use vmm::Layer;

use crate::shape::MAX_LAYERS;

/// Bytes of a name that a guest gives (a signal, a system call, a layer).
const MAX_NAME: usize = 64;
/// Bytes of each text in an error of the guest's.
const MAX_ERROR_TEXT: usize = 2 << 10;
/// U+FFFD has three bytes and stands for one or more.
const REPLACEMENT: usize = '\u{fffd}'.len_utf8();

/// The error for a request that is within all its bounds and yet, as JSON, too long for a frame.
pub(crate) fn too_large(length: usize) -> HostError {
    let cause = format!(
        "the request has {length} bytes as JSON, more than {}",
        limits::MAX_FRAME
    );
    HostError::new(ErrorCode::InvalidRequest, cause)
        .remedy("send fewer or smaller files, as base64 when they are not text")
}

/// The output that a job may still send as events.
#[derive(Debug)]
pub(crate) struct Allowance {
    streaming: bool,
    started: bool,
    stdout: usize,
    stderr: usize,
}

impl Allowance {
    pub(crate) fn of(request: &JobRequest) -> Self {
        let cap = output_cap(request);
        Self {
            streaming: request.stream,
            started: false,
            stdout: cap,
            stderr: cap,
        }
    }

    /// Counts one event. Each has at least one byte, so there are not more of them than bytes allowed.
    pub(crate) fn take(&mut self, event: &Event) -> Result<(), String> {
        if !self.streaming {
            return Err("events that were not asked for".to_owned());
        }
        let (room, chunk) = match event {
            Event::Started if !self.started => {
                self.started = true;
                return Ok(());
            }
            Event::Started => return Err("the job started twice".to_owned()),
            Event::Stdout(chunk) => (&mut self.stdout, chunk),
            Event::Stderr(chunk) => (&mut self.stderr, chunk),
        };
        let size = chunk_size(chunk)?;
        if size == 0 {
            return Err("an empty piece of output".to_owned());
        }
        *room = room.checked_sub(size).ok_or("more output than it may send")?;
        Ok(())
    }
}

/// The bytes that a piece of output stands for; as many as its text has where that is more than can be.
fn chunk_size(chunk: &Chunk) -> Result<usize, String> {
    match &chunk.data_base64 {
        Some(exact) => Ok(decoded_size(exact)?.max(chunk.data.len() / REPLACEMENT)),
        None => Ok(chunk.data.len()),
    }
}

fn decoded_size(base64: &str) -> Result<usize, String> {
    BASE64_STANDARD
        .decode(base64)
        .map(|bytes| bytes.len())
        .map_err(|_| "base64 that is none".to_owned())
}

fn output_cap(request: &JobRequest) -> usize {
    let asked = request
        .limits
        .output_bytes
        .unwrap_or(limits::DEFAULT_OUTPUT)
        .min(limits::MAX_OUTPUT);
    usize::try_from(asked).unwrap_or(usize::MAX)
}

/// The response, if it can be one to this request; without what only the host can know.
pub(crate) fn check(mut response: JobResponse, request: &JobRequest) -> Result<JobResponse, String> {
    if response.trace_id != request.trace_id {
        return Err("its trace_id is not the request's".to_owned());
    }
    if !(0..=255).contains(&response.exit_code) {
        return Err(format!("exit_code {}", response.exit_code));
    }
    let cap = output_cap(request);
    output("stdout", &response.stdout, response.stdout_base64.as_deref(), cap)?;
    output("stderr", &response.stderr, response.stderr_base64.as_deref(), cap)?;
    files(&response.files, request)?;
    if response.layers.len() > MAX_LAYERS || response.layers.iter().any(|name| name.len() > MAX_NAME) {
        return Err("an absurd list of layers".to_owned());
    }
    // What the host has in force is not for a guest to say.
    response.layers.retain(|name| !name.starts_with(Layer::PREFIX));
    if let Some(termination) = &response.termination {
        believable(termination)?;
    }
    if response.truncated == Some(Truncated::default()) {
        response.truncated = None;
    }
    response.timings = response.timings.map(|timings| Timings {
        confine: duration(timings.confine),
        compile: duration(timings.compile),
        exec: duration(timings.exec),
        interpreter: timings.interpreter,
        ..Timings::default()
    });
    response.error = response.error.map(bounded);
    Ok(response)
}

/// A number of milliseconds, if it is one.
fn duration(milliseconds: Option<f64>) -> Option<f64> {
    milliseconds.filter(|number| (0.0..=f64::from(u32::MAX)).contains(number))
}

fn output(name: &str, text: &str, exact: Option<&str>, cap: usize) -> Result<(), String> {
    let fits = match exact {
        Some(exact) => decoded_size(exact)? <= cap && text.len() <= cap.saturating_mul(REPLACEMENT),
        None => text.len() <= cap,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("more {name} than the {cap} bytes that were asked for"))
    }
}

fn files(files: &[FileSpec], request: &JobRequest) -> Result<(), String> {
    let mut asked: HashSet<&str> = request
        .files
        .iter()
        .filter(|file| file.collect)
        .map(|file| file.path.as_str())
        .collect();
    let mut total = 0_usize;
    for file in files {
        if !asked.remove(file.path.as_str()) {
            return Err("a file that was not asked for".to_owned());
        }
        total += match (&file.content, &file.content_base64) {
            (Some(_), Some(_)) => return Err("a file with two contents".to_owned()),
            (Some(text), None) => text.len(),
            (None, Some(exact)) => decoded_size(exact)?,
            (None, None) => 0,
        };
    }
    if total > limits::MAX_FILE_BYTES {
        return Err(format!("files of {total} bytes"));
    }
    Ok(())
}

/// Some ends are not the guest's to tell.
fn believable(termination: &Termination) -> Result<(), String> {
    let name = match termination {
        Termination::Signal { name } => name,
        Termination::OutputLimit { stream } => stream,
        Termination::Seccomp { syscall } => syscall,
        Termination::VmCrash { .. } | Termination::HostDrain => {
            return Err("an end that only the host can tell of".to_owned());
        }
        _ => return Ok(()),
    };
    if name.len() <= MAX_NAME && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("an absurd name in its termination".to_owned())
    }
}

/// The beginning of a text that a guest may have chosen.
pub(crate) fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT));
    text
}

/// An error of the guest's, fit to be shown: short, and without control characters.
pub(crate) fn bounded(error: HostError) -> HostError {
    let text = |text: String| {
        shortened(text)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    };
    HostError {
        code: error.code,
        cause: text(error.cause),
        remedy: text(error.remedy),
        trace_id: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::Language;
    use protocol::job::JobLimits;

    use super::*;

    fn request() -> JobRequest {
        let limits = JobLimits {
            output_bytes: Some(10),
            ..JobLimits::default()
        };
        let wanted = FileSpec {
            path: "out".into(),
            collect: true,
            ..FileSpec::default()
        };
        let given = FileSpec {
            path: "in".into(),
            content: Some("x".into()),
            ..FileSpec::default()
        };
        JobRequest {
            limits,
            stream: true,
            files: vec![wanted, given],
            ..JobRequest::new("t", Language::Bash, "true")
        }
    }

    fn response() -> JobResponse {
        JobResponse {
            trace_id: "t".into(),
            ..JobResponse::default()
        }
    }

    fn refused(response: JobResponse) -> String {
        check(response, &request()).unwrap_err()
    }

    #[test]
    fn output_is_bounded_by_what_was_asked_for() {
        let full = JobResponse {
            stdout: "0123456789".into(),
            ..response()
        };
        assert_eq!(check(full.clone(), &request()), Ok(full));
        assert!(
            refused(JobResponse {
                stderr: "0123456789a".into(),
                ..response()
            })
            .contains("stderr")
        );
        let exact = JobResponse {
            stdout: "\u{fffd}".repeat(10),
            stdout_base64: Some("/////////////w==".into()),
            ..response()
        };
        assert_eq!(check(exact.clone(), &request()), Ok(exact.clone()));
        assert!(
            refused(JobResponse {
                stdout_base64: Some("////////////////".into()),
                ..exact.clone()
            })
            .contains("stdout")
        );
        assert!(
            refused(JobResponse {
                stdout: "x".repeat(31),
                ..exact
            })
            .contains("stdout")
        );
    }

    #[test]
    fn only_files_that_were_asked_for_come_back_and_each_once() {
        let file = |path: &str| FileSpec {
            path: path.into(),
            content: Some("x".into()),
            ..FileSpec::default()
        };
        assert!(
            check(
                JobResponse {
                    files: vec![file("out")],
                    ..response()
                },
                &request()
            )
            .is_ok()
        );
        for files in [
            vec![file("in")],
            vec![file("/etc/passwd")],
            vec![file("out"), file("out")],
        ] {
            assert!(refused(JobResponse { files, ..response() }).contains("not asked for"));
        }
        let both = FileSpec {
            content_base64: Some(String::new()),
            ..file("out")
        };
        assert!(
            refused(JobResponse {
                files: vec![both],
                ..response()
            })
            .contains("two contents")
        );
        let huge = FileSpec {
            content: Some("x".repeat(limits::MAX_FILE_BYTES + 1)),
            ..file("out")
        };
        assert!(
            refused(JobResponse {
                files: vec![huge],
                ..response()
            })
            .contains("bytes")
        );
    }

    #[test]
    fn a_guest_does_not_speak_for_the_host() {
        let said = JobResponse {
            layers: vec!["uid".to_owned(), "host:jailer".to_owned()],
            ..response()
        };
        assert_eq!(check(said, &request()).unwrap().layers, ["uid"]);
    }

    #[test]
    fn numbers_and_names_are_plausible() {
        assert!(
            refused(JobResponse {
                exit_code: -1,
                ..response()
            })
            .contains("exit_code")
        );
        assert!(
            refused(JobResponse {
                layers: vec![String::new(); 33],
                ..response()
            })
            .contains("layers")
        );
        let crash = Termination::VmCrash { console: Vec::new() };
        assert!(
            refused(JobResponse {
                termination: Some(crash),
                ..response()
            })
            .contains("only the host")
        );
        let signal = Termination::Signal {
            name: "SIG\x1b[2J".into(),
        };
        assert!(
            refused(JobResponse {
                termination: Some(signal),
                ..response()
            })
            .contains("absurd")
        );
        let timings = Timings {
            exec: Some(-1.0),
            confine: Some(2.0),
            total: Some(1.0),
            ..Timings::default()
        };
        let checked = check(
            JobResponse {
                timings: Some(timings),
                ..response()
            },
            &request(),
        )
        .unwrap();
        assert_eq!(
            checked.timings,
            Some(Timings {
                confine: Some(2.0),
                ..Timings::default()
            })
        );
    }

    #[test]
    fn a_guest_s_error_cannot_drive_a_terminal() {
        let error = HostError::new(ErrorCode::ConfineFailed, format!("\x1b[2J\n{}", "é".repeat(4000)));
        let error = bounded(error);
        assert!(error.cause.len() <= MAX_ERROR_TEXT && !error.cause.contains(char::is_control));
    }

    #[test]
    fn events_are_bounded() {
        let chunk = |data: &str| {
            Event::Stdout(Chunk {
                data: data.into(),
                data_base64: None,
            })
        };
        let mut allowance = Allowance::of(&request());
        assert_eq!(allowance.take(&Event::Started), Ok(()));
        assert!(allowance.take(&Event::Started).is_err());
        assert_eq!(allowance.take(&chunk("01234")), Ok(()));
        assert_eq!(allowance.take(&chunk("56789")), Ok(()));
        assert!(allowance.take(&chunk("a")).is_err());
        assert!(allowance.take(&chunk("")).is_err());
        let hidden = Chunk {
            data: "x".repeat(100),
            data_base64: Some("AA==".into()),
        };
        assert!(allowance.take(&Event::Stderr(hidden)).is_err());
        let quiet = JobRequest {
            stream: false,
            ..request()
        };
        assert!(Allowance::of(&quiet).take(&Event::Started).is_err());
    }
}
