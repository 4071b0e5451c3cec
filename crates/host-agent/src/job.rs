//! From what was typed to a job that is known to be in bounds: files are read, limits and sizes parsed, nothing started.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::job::JobLimits;
use protocol::limits::{MAX_CODE, MAX_FILE_BYTES, MAX_STDIN};
use protocol::{ErrorCode, FileSpec, HostError, JobRequest, JobResponse, Language};

use crate::cli::RunArgs;
use crate::output::complain;

/// A job, and where on this host its files go afterwards.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: JobRequest,
    /// For each collected file that is to be written here: its path in the guest and its path here.
    outputs: Vec<(String, PathBuf)>,
}

impl Job {
    /// Reads whatever the arguments name.
    pub(crate) fn from_args(args: &RunArgs, json: bool, trace_id: &str) -> Result<Self, HostError> {
        if let Some(name) = &args.lang {
            // Before anything is read.
            name.parse::<Language>()?;
        }
        let source = Source::of(args);
        let code = source.read()?;
        let lang = language(args.lang.as_deref(), &source, &code)?;
        let mut request = JobRequest::new(trace_id, lang, code);
        request.timeout = args.timeout;
        request.stream = !json;
        request.fresh = args.fresh;
        request.args = args.args.iter().chain(&args.trailing).cloned().collect();
        request.env = args
            .env
            .iter()
            .map(|pair| variable(pair))
            .collect::<Result<_, _>>()?;
        request.cwd = args.cwd.clone();
        request.limits = limits(&args.limits)?;
        stdin(args, &mut request)?;
        let mut room = MAX_FILE_BYTES;
        for file in &args.files {
            request.files.push(input(file, &mut room)?);
        }
        let mut outputs = Vec::new();
        for collect in &args.collect {
            let (guest, host) = split(collect);
            request.files.push(FileSpec {
                path: guest.to_owned(),
                collect: true,
                ..FileSpec::default()
            });
            let own_name = || Path::new(guest).file_name().filter(|_| !json).map(PathBuf::from);
            if let Some(host) = host.map(PathBuf::from).or_else(own_name) {
                outputs.push((guest.to_owned(), host));
            }
        }
        request.validate()?;
        Ok(Self { request, outputs })
    }

    /// Writes the files that came back and are to be kept on this host.
    pub(crate) fn keep_files(&self, response: &JobResponse) -> Result<(), HostError> {
        for (guest, host) in &self.outputs {
            let file = response.files.iter().find(|file| file.path == *guest);
            match file.and_then(content) {
                Some(bytes) => fs::write(host, bytes).map_err(|error| unwritable(host, &error))?,
                None => complain(format_args!(
                    "note: {guest} is not collected: missing, or too large"
                )),
            }
        }
        Ok(())
    }
}

fn content(file: &FileSpec) -> Option<Vec<u8>> {
    match (&file.content, &file.content_base64) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(exact)) => STANDARD.decode(exact).ok(),
        (None, None) => None,
    }
}

fn unwritable(path: &Path, error: &io::Error) -> HostError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        _ => ErrorCode::StateUnusable,
    };
    HostError::new(code, format!("cannot write {}: {error}", path.display()))
        .remedy("name another file with --collect")
}

fn invalid(cause: impl Into<String>) -> HostError {
    HostError::new(ErrorCode::InvalidRequest, cause)
}

fn language(name: Option<&str>, source: &Source, code: &str) -> Result<Language, HostError> {
    if let Some(name) = name {
        return name.parse();
    }
    source.language().or_else(|| interpreter(code)).ok_or_else(|| {
        let cause = "neither a file's name nor a #! line says what the code is written in";
        HostError::new(ErrorCode::UnknownLanguage, cause)
            .remedy("add --lang with one of python, bash, node, rust, ruby")
    })
}

/// Where the code comes from.
#[derive(Debug)]
enum Source<'a> {
    Argument(&'a str),
    File(&'a Path),
    StandardInput,
}

impl<'a> Source<'a> {
    fn of(args: &'a RunArgs) -> Self {
        match (&args.code, &args.source) {
            (Some(code), _) => Self::Argument(code),
            (None, Some(path)) if path != Path::new("-") => Self::File(path),
            (None, _) => Self::StandardInput,
        }
    }

    fn read(&self) -> Result<String, HostError> {
        let bytes = match self {
            Self::Argument(code) => return Ok((*code).to_owned()),
            Self::File(path) => read(path, MAX_CODE, ErrorCode::CodeTooLarge)?,
            Self::StandardInput => {
                let stdin = io::stdin().lock();
                if stdin.is_terminal() {
                    complain("Reading the code from the terminal; Ctrl-D ends it.");
                }
                bounded(stdin, "standard input", None, MAX_CODE, ErrorCode::CodeTooLarge)?
            }
        };
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            HostError::new(
                ErrorCode::CodeNotText,
                format!("the code is no UTF-8 at offset {at}"),
            )
        })
    }

    /// By the file's extension.
    fn language(&self) -> Option<Language> {
        let Self::File(path) = self else { return None };
        match path.extension()?.to_str()? {
            "py" => Some(Language::Python),
            "sh" | "bash" => Some(Language::Bash),
            "js" | "cjs" | "mjs" => Some(Language::Node),
            "rb" => Some(Language::Ruby),
            "rs" => Some(Language::Rust),
            _ => None,
        }
    }
}

/// By the interpreter that a `#!` line names, perhaps through env(1): `#!/usr/bin/env -S python3 -u`.
fn interpreter(code: &str) -> Option<Language> {
    let mut words = code.strip_prefix("#!")?.lines().next()?.split_whitespace();
    let program = words.find(|word| {
        !word.starts_with('-') && Path::new(word).file_name().is_some_and(|name| name != "env")
    })?;
    let name = Path::new(program).file_name()?.to_str()?;
    match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
        "python" => Some(Language::Python),
        "bash" | "sh" => Some(Language::Bash),
        "node" | "nodejs" => Some(Language::Node),
        "ruby" => Some(Language::Ruby),
        _ => None,
    }
}

fn variable(pair: &str) -> Result<(String, String), HostError> {
    let (name, value) = pair
        .split_once('=')
        .ok_or_else(|| invalid(format!("--env {pair:?} has no \"=\"")).remedy("write --env NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The limits that were given as NAME=NUMBER.
pub(crate) fn limits(given: &[String]) -> Result<JobLimits, HostError> {
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

/// A file that goes in, if there is still room for it.
fn input(argument: &str, room: &mut usize) -> Result<FileSpec, HostError> {
    let (host, guest) = split(argument);
    let host = Path::new(host);
    let name = host.file_name().and_then(|name| name.to_str());
    let path = guest.or(name).ok_or_else(|| {
        invalid(format!("--file {argument:?} has no usable name")).remedy("write --file HOST:GUEST")
    })?;
    let bytes = read(host, *room, ErrorCode::InvalidRequest)?;
    *room -= bytes.len();
    let mode = fs::metadata(host).map_or(0o644, |found| found.permissions().mode() & 0o777);
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
    let length = file.metadata().ok().filter(fs::Metadata::is_file);
    bounded(file, &named, length.map(|file| file.len()), most, too_large)
}

/// Reads to the end, or to one byte over the limit. The whole length, where it is known, is only told.
fn bounded(
    from: impl Read,
    name: &str,
    length: Option<u64>,
    most: usize,
    too_large: ErrorCode,
) -> Result<Vec<u8>, HostError> {
    let mut bytes = Vec::new();
    from.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, &error))?;
    if bytes.len() <= most {
        return Ok(bytes);
    }
    let has = length.map_or_else(|| "more".to_owned(), |length| format!("{length} bytes"));
    Err(HostError::new(
        too_large,
        format!("{name} has {has}; {most} bytes are allowed"),
    ))
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
        let Cli { global, command } = Cli::try_parse_from(line).unwrap();
        let Command::Run(args) = command else {
            unreachable!()
        };
        Job::from_args(&args, global.json, "t")
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
    fn an_interpreter_line_names_the_language() {
        for (line, language) in [
            ("#!/bin/sh", Some(Language::Bash)),
            ("#!/usr/bin/python3.11 -u", Some(Language::Python)),
            ("#! /usr/bin/env node\nx", Some(Language::Node)),
            ("#!/usr/bin/env -S ruby -w", Some(Language::Ruby)),
            ("#!/usr/bin/perl", None),
            ("#!", None),
            ("#!/usr/bin/env", None),
            ("print(1)", None),
        ] {
            assert_eq!(interpreter(line), language, "{line}");
        }
    }

    #[test]
    fn what_is_collected_is_kept_where_it_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("kept");
        let collect = format!("out/b.bin:{}", host.display());
        let line = ["-l", "bash", "-c", "x", "--collect", &collect, "--collect", "a/c"];
        assert_eq!(job(&line).unwrap().outputs[1].1, Path::new("c"));
        let job = job(&[&line[..], &["--json"]].concat()).unwrap();
        assert_eq!(job.outputs, [("out/b.bin".to_owned(), host.clone())]);

        let file = FileSpec {
            path: "out/b.bin".to_owned(),
            content_base64: Some(STANDARD.encode(b"\xff")),
            ..FileSpec::default()
        };
        let response = JobResponse {
            files: vec![file],
            ..JobResponse::default()
        };
        job.keep_files(&response).unwrap();
        assert_eq!(fs::read(host).unwrap(), b"\xff");
    }

    #[test]
    fn too_much_is_not_read() {
        let error = bounded(io::repeat(b'x'), "it", None, 4, ErrorCode::CodeTooLarge).unwrap_err();
        assert_eq!(error.cause, "it has more; 4 bytes are allowed");
        assert_eq!(
            bounded(&b"four"[..], "it", None, 4, ErrorCode::CodeTooLarge).unwrap(),
            b"four"
        );
    }
}
