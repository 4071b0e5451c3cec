//! From what was typed to a job that is known to be in bounds: files are read, limits and sizes parsed, nothing started.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::job::JobLimits;
use protocol::limits::{MAX_CODE, MAX_FILE_BYTES, MAX_STDIN};
use protocol::{ErrorCode, FileSpec, HostError, JobRequest, Language};

use crate::cli::RunArgs;

/// A job, and where on this host its files go afterwards.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: JobRequest,
    /// For each collected file that is to be written here: its path in the guest and its path here.
    pub(crate) outputs: BTreeMap<String, PathBuf>,
}

impl Job {
    /// Reads whatever the arguments name.
    pub(crate) fn from_args(args: &RunArgs, trace_id: &str) -> Result<Self, HostError> {
        let lang = language(args)?;
        let mut request = JobRequest::new(trace_id, lang, code(args)?);
        request.timeout = args.timeout;
        request.stream = !args.json;
        request.args = args.args.iter().chain(&args.trailing).cloned().collect();
        request.env = args
            .env
            .iter()
            .map(|pair| variable(pair))
            .collect::<Result<_, _>>()?;
        request.cwd = args.cwd.clone();
        request.limits = limits(&args.limits)?;
        stdin(args, &mut request)?;
        for file in &args.files {
            request.files.push(input(file)?);
        }
        let mut outputs = BTreeMap::new();
        for collect in &args.collect {
            let (guest, host) = split(collect);
            request.files.push(FileSpec {
                path: guest.to_owned(),
                collect: true,
                ..FileSpec::default()
            });
            if let Some(host) = host {
                outputs.insert(guest.to_owned(), PathBuf::from(host));
            }
        }
        request.validate()?;
        Ok(Self { request, outputs })
    }
}

/// Memory in MiB: a number of MiB, or one with a suffix.
pub(crate) fn memory_mib(text: &str) -> Result<u32, HostError> {
    let upper = text.trim().to_ascii_uppercase();
    let number = upper.trim_end_matches("IB").trim_end_matches('B');
    let (digits, factor) = match number.strip_suffix('G') {
        Some(digits) => (digits, 1024),
        None => (number.strip_suffix('M').unwrap_or(number), 1),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|size| size.checked_mul(factor))
        .ok_or_else(|| {
            invalid(format!("--memory {text:?} is no size")).remedy("write MiB as in 512, or 512M, or 2G")
        })
}

fn invalid(cause: impl Into<String>) -> HostError {
    HostError::new(ErrorCode::InvalidRequest, cause)
}

fn language(args: &RunArgs) -> Result<Language, HostError> {
    if let Some(name) = &args.lang {
        return name.parse();
    }
    let extension = args
        .source
        .as_deref()
        .and_then(Path::extension)
        .and_then(|extension| extension.to_str());
    match extension {
        Some("py") => Ok(Language::Python),
        Some("sh" | "bash") => Ok(Language::Bash),
        Some("js" | "cjs" | "mjs") => Ok(Language::Node),
        Some("rb") => Ok(Language::Ruby),
        Some("rs") => Ok(Language::Rust),
        _ => Err(HostError::new(
            ErrorCode::UnknownLanguage,
            "nothing says what the code is written in",
        )
        .remedy("add --lang with one of python, bash, node, rust, ruby")),
    }
}

fn code(args: &RunArgs) -> Result<String, HostError> {
    if let Some(code) = &args.code {
        return Ok(code.clone());
    }
    let bytes = match args.source.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => read(path, MAX_CODE, ErrorCode::CodeTooLarge)?,
        None => bounded(
            io::stdin().lock(),
            "standard input",
            MAX_CODE,
            ErrorCode::CodeTooLarge,
        )?,
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        HostError::new(
            ErrorCode::CodeNotText,
            format!("the code is not UTF-8: offset {at}"),
        )
    })
}

fn variable(pair: &str) -> Result<(String, String), HostError> {
    let (name, value) = pair
        .split_once('=')
        .ok_or_else(|| invalid(format!("--env {pair:?} has no \"=\"")).remedy("write --env NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn limits(given: &[String]) -> Result<JobLimits, HostError> {
    let mut limits = JobLimits::default();
    for limit in given {
        let parsed = limit
            .split_once('=')
            .and_then(|(name, value)| Some((name, value.parse().ok()?)));
        let field = match parsed {
            Some(("memory_bytes", _)) => &mut limits.memory_bytes,
            Some(("pids", _)) => &mut limits.pids,
            Some(("output_bytes", _)) => &mut limits.output_bytes,
            Some(("file_bytes", _)) => &mut limits.file_bytes,
            Some(("open_files", _)) => &mut limits.open_files,
            Some(("cpu_ms", _)) => &mut limits.cpu_ms,
            _ => {
                return Err(invalid(format!("--limit {limit:?} is no limit")).remedy(
                    "write NAME=NUMBER with memory_bytes, pids, output_bytes, file_bytes, open_files or cpu_ms",
                ));
            }
        };
        *field = parsed.map(|(_, value)| value);
    }
    Ok(limits)
}

fn stdin(args: &RunArgs, request: &mut JobRequest) -> Result<(), HostError> {
    if let Some(text) = &args.stdin {
        request.stdin.clone_from(text);
    }
    if let Some(path) = &args.stdin_file {
        match String::from_utf8(read(path, MAX_STDIN, ErrorCode::InvalidRequest)?) {
            Ok(text) => request.stdin = text,
            Err(error) => request.stdin_base64 = Some(STANDARD.encode(error.as_bytes())),
        }
    }
    Ok(())
}

fn input(argument: &str) -> Result<FileSpec, HostError> {
    let (host, guest) = split(argument);
    let host = Path::new(host);
    let name = host.file_name().and_then(|name| name.to_str());
    let path = guest.or(name).ok_or_else(|| {
        invalid(format!("--file {argument:?} has no usable name")).remedy("write --file HOST:GUEST")
    })?;
    let bytes = read(host, MAX_FILE_BYTES, ErrorCode::InvalidRequest)?;
    let mode = std::fs::metadata(host).map_or(0o644, |found| found.permissions().mode() & 0o777);
    let (content, content_base64) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    Ok(FileSpec {
        path: path.to_owned(),
        content,
        content_base64,
        mode: Some(mode),
        collect: false,
    })
}

fn split(argument: &str) -> (&str, Option<&str>) {
    match argument.split_once(':') {
        Some((first, second)) if !second.is_empty() => (first, Some(second)),
        _ => (argument, None),
    }
}

fn read(path: &Path, most: usize, too_large: ErrorCode) -> Result<Vec<u8>, HostError> {
    let named = path.display().to_string();
    let file = File::open(path).map_err(|error| unreadable(&named, &error))?;
    bounded(file, &named, most, too_large)
}

/// Reads to the end, or to one byte over the limit.
fn bounded(from: impl Read, name: &str, most: usize, too_large: ErrorCode) -> Result<Vec<u8>, HostError> {
    let mut bytes = Vec::new();
    from.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, &error))?;
    if bytes.len() > most {
        return Err(HostError::new(
            too_large,
            format!("{name} has {most} bytes and more; {most} is the limit"),
        ));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &io::Error) -> HostError {
    HostError::new(ErrorCode::UnreadableInput, format!("cannot read {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn job(args: &[&str]) -> Result<Job, HostError> {
        let line = ["host-agent", "run"].iter().chain(args);
        let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!()
        };
        Job::from_args(&args, "t")
    }

    #[test]
    fn everything_arrives() {
        let job = job(&[
            "-l",
            "bash",
            "-c",
            "x",
            "--timeout=1.5",
            "--arg",
            "-a",
            "--env",
            "A=b=c",
            "--limit",
            "pids=9",
            "--",
            "-z",
        ])
        .unwrap();
        let request = job.request;
        assert_eq!(
            (request.lang, request.timeout, request.limits.pids),
            (Language::Bash, 1.5, Some(9))
        );
        assert_eq!(request.args, ["-a", "-z"]);
        assert_eq!(request.env["A"], "b=c");
        assert!(request.stream);
    }

    #[test]
    fn the_language_is_in_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.rb");
        std::fs::write(&path, "puts 1").unwrap();
        let job = job(&[path.to_str().unwrap(), "--json"]).unwrap();
        assert_eq!((job.request.lang, job.request.stream), (Language::Ruby, false));
    }

    #[test]
    fn mistakes_have_their_codes() {
        let code = |args: &[&str]| job(args).unwrap_err().code;
        assert_eq!(code(&["-l", "perl", "-c", "x"]), ErrorCode::UnknownLanguage);
        assert_eq!(code(&["-c", "x"]), ErrorCode::UnknownLanguage);
        assert_eq!(code(&["-l", "bash", "-c", " "]), ErrorCode::EmptyCode);
        assert_eq!(
            code(&["-l", "bash", "-c", "x", "--timeout", "-1"]),
            ErrorCode::InvalidTimeout
        );
        assert_eq!(code(&["-l", "bash", "/nonexistent"]), ErrorCode::UnreadableInput);
        assert_eq!(
            code(&["-l", "bash", "-c", "x", "--limit", "pids=many"]),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            code(&["-l", "bash", "-c", "x", "--env", "A"]),
            ErrorCode::InvalidRequest
        );
        assert_eq!(
            code(&["-l", "bash", "-c", "x", "--collect", "../x"]),
            ErrorCode::InvalidRequest
        );
    }

    #[test]
    fn sizes() {
        for (text, mib) in [
            ("512", 512),
            ("300M", 300),
            ("2G", 2048),
            ("1GiB", 1024),
            ("64mb", 64),
        ] {
            assert_eq!(memory_mib(text).unwrap(), mib, "{text}");
        }
        for text in ["", "M", "-1", "1T", "9999999G"] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }
}
