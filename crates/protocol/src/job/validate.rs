//! The bounds of a [`JobRequest`], in the order in which a user would fix them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{FileSpec, JobRequest};
use crate::error::{ErrorCode, HostError};
use crate::limits;

pub(super) fn request(job: &JobRequest) -> Result<(), HostError> {
    if job.trace_id.len() > limits::MAX_TRACE_ID || job.trace_id.chars().any(char::is_control) {
        return invalid(
            "trace_id",
            format!("must be at most {} printable bytes", limits::MAX_TRACE_ID),
        );
    }
    code(&job.code)?;
    timeout(job.timeout)?;
    input(job)?;
    count("args", job.args.len(), limits::MAX_ARGS)?;
    strings("args", job.args.iter())?;
    count("env", job.env.len(), limits::MAX_ENV)?;
    strings("env", job.env.iter().flat_map(|(name, value)| [name, value]))?;
    if let Some(name) = job.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return invalid("env", format!("{name:?} cannot name a variable"));
    }
    if let Some(cwd) = &job.cwd {
        path("cwd", cwd)?;
    }
    files(&job.files)?;
    limits_of(job)
}

fn code(code: &str) -> Result<(), HostError> {
    if code.trim().is_empty() {
        return Err(HostError::new(ErrorCode::EmptyCode, "the code is empty")
            .remedy("give the code with --code, as a file, or on standard input"));
    }
    if code.len() > limits::MAX_CODE {
        return Err(HostError::new(
            ErrorCode::CodeTooLarge,
            format!(
                "the code has {} bytes; the limit is {}",
                code.len(),
                limits::MAX_CODE
            ),
        )
        .remedy("send data as files or on standard input, and keep the code small"));
    }
    if let Some(at) = code.bytes().position(|byte| byte == 0) {
        return Err(HostError::new(
            ErrorCode::CodeNotText,
            format!("the code has a NUL byte at offset {at}"),
        )
        .remedy("send UTF-8 text without NUL bytes"));
    }
    Ok(())
}

fn timeout(seconds: f64) -> Result<(), HostError> {
    if seconds > 0.0 && seconds <= limits::MAX_TIMEOUT {
        return Ok(());
    }
    Err(HostError::new(
        ErrorCode::InvalidTimeout,
        format!("a timeout of {seconds} s is out of range"),
    )
    .remedy(format!(
        "give seconds above 0 and up to {}; fractions are allowed",
        limits::MAX_TIMEOUT
    )))
}

fn input(job: &JobRequest) -> Result<(), HostError> {
    let length = match &job.stdin_base64 {
        Some(_) if !job.stdin.is_empty() => return invalid("stdin", "is given twice, as text and as base64"),
        Some(encoded) => decoded_len("stdin_base64", encoded)?,
        None => job.stdin.len(),
    };
    if length > limits::MAX_STDIN {
        return invalid(
            "stdin",
            format!("has {length} bytes; the limit is {}", limits::MAX_STDIN),
        );
    }
    Ok(())
}

fn count(field: &str, count: usize, most: usize) -> Result<(), HostError> {
    if count > most {
        return invalid(field, format!("has {count} entries; the limit is {most}"));
    }
    Ok(())
}

fn strings<'a>(field: &str, values: impl Iterator<Item = &'a String>) -> Result<(), HostError> {
    let mut bytes = 0;
    for value in values {
        if value.contains('\0') {
            return invalid(field, "has a NUL byte");
        }
        bytes += value.len();
    }
    if bytes > limits::MAX_ARG_BYTES {
        return invalid(
            field,
            format!("has {bytes} bytes; the limit is {}", limits::MAX_ARG_BYTES),
        );
    }
    Ok(())
}

fn files(files: &[FileSpec]) -> Result<(), HostError> {
    count("files", files.len(), limits::MAX_FILES)?;
    let mut bytes = 0;
    for file in files {
        path("files", &file.path)?;
        if matches!(file.path.rsplit('/').next(), Some("" | ".")) {
            return invalid("files", format!("{:?} names a directory", file.path));
        }
        bytes += match (&file.content, &file.content_base64) {
            (Some(_), Some(_)) => return invalid("files", format!("{:?} has two contents", file.path)),
            (Some(text), None) => text.len(),
            (None, Some(encoded)) => decoded_len("files", encoded)?,
            (None, None) if file.collect => 0,
            (None, None) => {
                return invalid(
                    "files",
                    format!("{:?} has no content and is not collected", file.path),
                );
            }
        };
        if file.mode.is_some_and(|mode| mode > 0o777) {
            return invalid("files", format!("{:?} has a mode outside 0 to 0777", file.path));
        }
    }
    if bytes > limits::MAX_FILE_BYTES {
        return invalid(
            "files",
            format!("have {bytes} bytes; the limit is {}", limits::MAX_FILE_BYTES),
        );
    }
    Ok(())
}

fn path(field: &str, path: &str) -> Result<(), HostError> {
    let climbs = path.split('/').any(|part| part == "..");
    if path.is_empty() || path.len() > 4096 || path.contains('\0') || climbs {
        return invalid(
            field,
            format!("{path:?} is no usable path: 1 to 4096 bytes, no NUL, no \"..\""),
        );
    }
    Ok(())
}

fn limits_of(job: &JobRequest) -> Result<(), HostError> {
    let asked = &job.limits;
    let given = [
        asked.memory_bytes,
        asked.pids,
        asked.output_bytes,
        asked.file_bytes,
        asked.open_files,
        asked.cpu_ms,
    ];
    if given.contains(&Some(0)) {
        return invalid("limits", "has a limit of 0");
    }
    if asked.output_bytes.is_some_and(|bytes| bytes > limits::MAX_OUTPUT) {
        return invalid(
            "limits",
            format!("output_bytes may be at most {}", limits::MAX_OUTPUT),
        );
    }
    Ok(())
}

fn decoded_len(field: &str, encoded: &str) -> Result<usize, HostError> {
    match STANDARD.decode(encoded) {
        Ok(bytes) => Ok(bytes.len()),
        Err(_) => invalid(field, "is not base64"),
    }
}

fn invalid<T>(field: &str, what: impl AsRef<str>) -> Result<T, HostError> {
    Err(
        HostError::new(ErrorCode::InvalidRequest, format!("{field} {}", what.as_ref()))
            .remedy("correct the request and send it again"),
    )
}
