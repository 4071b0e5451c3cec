//! Jobs: port 5000. The four fields of each message that the first version fixed never change; all else is optional,
//! so that old hosts and old guests keep working.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, HostError};
use crate::limits;

/// A language the guest-runner can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// CPython: `python3`, else `python`, else `python2`.
    Python,
    /// GNU bash.
    Bash,
    /// Node.js, CommonJS unless the code says otherwise.
    Node,
    /// Rust: one source file, compiled by `rustc`, then run.
    Rust,
    /// Ruby (MRI).
    Ruby,
}

impl Language {
    /// All of them, in the order in which they are listed to users.
    pub const ALL: [Self; 5] = [Self::Python, Self::Bash, Self::Node, Self::Rust, Self::Ruby];

    /// The name on the wire and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Bash => "bash",
            Self::Node => "node",
            Self::Rust => "rust",
            Self::Ruby => "ruby",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Language {
    type Err = HostError;

    fn from_str(name: &str) -> Result<Self, HostError> {
        Self::ALL
            .into_iter()
            .find(|language| language.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|language| language.name()).collect();
                HostError::new(
                    ErrorCode::UnknownLanguage,
                    format!("no language is called {name:?}"),
                )
                .remedy(format!("use one of {}", names.join(", ")))
            })
    }
}

/// One job, as it crosses the wire to the guest-runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobRequest {
    /// Names the job in logs and answers; at most [`limits::MAX_TRACE_ID`] bytes.
    #[cfg_attr(feature = "openapi", schema(max_length = 128))]
    #[serde(default)]
    pub trace_id: String,
    /// What the code is written in.
    pub lang: Language,
    /// The source, 1 byte to [`limits::MAX_CODE`] bytes, without NUL.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1048576))]
    pub code: String,
    /// Wall time in seconds, in (0, [`limits::MAX_TIMEOUT`]]: from the first byte of code running to the last process
    /// gone, compilation included.
    #[cfg_attr(
        feature = "openapi",
        schema(exclusive_minimum = 0, maximum = 3600, default = 30.0)
    )]
    #[serde(default = "default_timeout")]
    pub timeout: f64,
    /// What the code reads on standard input; empty when absent.
    #[cfg_attr(feature = "openapi", schema(max_length = 4194304))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdin: String,
    /// Standard input that is not text, base64. At most one of `stdin` and `stdin_base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// Arguments after the program's own name.
    #[cfg_attr(feature = "openapi", schema(max_items = 1024))]
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<_, _, { limits::MAX_ARGS }>"
    )]
    pub args: Vec<String>,
    /// Environment variables, over the runner's small default set.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "bounded::map::<_, { limits::MAX_ENV }>"
    )]
    pub env: BTreeMap<String, String>,
    /// Files to write before the code runs, and files to return afterwards.
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<_, _, { limits::MAX_FILES }>"
    )]
    pub files: Vec<FileSpec>,
    /// Working directory inside the guest; the job's own directory when absent. Created when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Tighter or looser limits than the defaults. One that cannot be applied fails the job.
    #[serde(default, skip_serializing_if = "JobLimits::is_empty")]
    pub limits: JobLimits,
    /// Send [`Event`] frames before the response.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// Run in a new process even where an interpreter is parked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
}

/// See [`JobRequest::timeout`].
#[must_use]
pub const fn default_timeout() -> f64 {
    limits::DEFAULT_TIMEOUT
}

/// A file that goes in with a job (it has content), or comes back (`collect`), or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileSpec {
    /// Path in the guest, relative to the working directory or absolute; never with a `..` part.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4096))]
    pub path: String,
    /// Text content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Content that is not text, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Permission bits; 0644 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Return the file's content in [`JobResponse::files`] when the code has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub collect: bool,
}

/// What a job may use. Absent means the default of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobLimits {
    /// Memory of all the job's processes together, page cache included. Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes kept of each of stdout and stderr; more ends the job. At most [`limits::MAX_OUTPUT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// The largest file a process may write. Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Open files of one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// CPU time of all the job's processes together. Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}

impl JobLimits {
    /// Nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl JobRequest {
    /// A job with nothing but the fields that every version knows.
    #[must_use]
    pub fn new(trace_id: impl Into<String>, lang: Language, code: impl Into<String>) -> Self {
        Self {
            trace_id: trace_id.into(),
            lang,
            code: code.into(),
            timeout: limits::DEFAULT_TIMEOUT,
            stdin: String::new(),
            stdin_base64: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            files: Vec::new(),
            cwd: None,
            limits: JobLimits::default(),
            stream: false,
            fresh: false,
        }
    }

    /// Checks every bound of this module. The host checks before it sends and the guest before it runs.
    ///
    /// # Errors
    /// The first bound that is broken, with the field's name in the cause.
    pub fn validate(&self) -> Result<(), HostError> {
        validate::request(self)
    }
}

mod bounded;
mod validate;

/// What came of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobResponse {
    /// The request's.
    pub trace_id: String,
    /// Standard output as text; invalid UTF-8 became U+FFFD and is then exact in `stdout_base64`.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// The code's own; 128+n on signal n; 124 on timeout; 137 on oom and other kills; 125 with `error`.
    pub exit_code: i32,
    /// Why the code ended. Absent only from guests older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination: Option<Termination>,
    /// What the job used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Where the time went. Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// Set where output was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
    /// The exact bytes of stdout, base64, when it was not valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// The exact bytes of stderr, base64, when it was not valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// The files that the request asked back. One that is missing or too large has neither content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSpec>,
    /// The confinement layers that were in force while the code ran, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// The guest-runner could not run the job at all. The code did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<HostError>,
}

impl JobResponse {
    /// The answer to a job that was refused before any code ran.
    #[must_use]
    pub fn refused(trace_id: impl Into<String>, error: HostError) -> Self {
        Self {
            trace_id: trace_id.into(),
            exit_code: 125,
            error: Some(error),
            ..Self::default()
        }
    }
}

/// Why the code ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Termination {
    /// It ended by itself.
    Exit,
    /// A signal ended it that no limit sent.
    Signal {
        /// `SIGSEGV` and so on.
        name: String,
    },
    /// Its time was up.
    Timeout {
        /// Which clock.
        clock: Clock,
    },
    /// Its memory was used up.
    Oom {
        /// The most it had, in bytes; 0 where the guest's kernel does not tell.
        peak_bytes: u64,
    },
    /// It wrote more than is kept.
    OutputLimit {
        /// `stdout` or `stderr`.
        stream: String,
    },
    /// It wanted more processes than it may have.
    PidsLimit {
        /// How many it may have.
        limit: u64,
    },
    /// Its disk was full.
    DiskFull,
    /// It made a system call that its language's filter kills for.
    Seccomp {
        /// The call's name.
        syscall: String,
    },
    /// The machine it ran in died.
    VmCrash {
        /// The console's last lines.
        console: Vec<String>,
    },
    /// The client went away or asked for it.
    Cancelled,
    /// The host was shut down.
    HostDrain,
}

impl Termination {
    /// The `kind` on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal { .. } => "signal",
            Self::Timeout { .. } => "timeout",
            Self::Oom { .. } => "oom",
            Self::OutputLimit { .. } => "output_limit",
            Self::PidsLimit { .. } => "pids_limit",
            Self::DiskFull => "disk_full",
            Self::Seccomp { .. } => "seccomp",
            Self::VmCrash { .. } => "vm_crash",
            Self::Cancelled => "cancelled",
            Self::HostDrain => "host_drain",
        }
    }
}

/// What a timeout counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Time passing.
    Wall,
    /// Processor time of the job.
    Cpu,
}

/// What a job used, by the guest's own account (so an upper bound is the host's business).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// From the first byte of code running to the last process gone. Milliseconds.
    pub wall_ms: u64,
    /// Processor time of all processes, user and system. Milliseconds.
    pub cpu_ms: u64,
    /// The most memory the job had at a time, in bytes; absent where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

/// Which output was cut at its limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Truncated {
    /// Standard output was.
    pub stdout: bool,
    /// Standard error was.
    pub stderr: bool,
}

/// Where the time of a job went, in milliseconds; a phase that did not happen is absent. The guest fills in the first
/// four, the host the rest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timings {
    /// Request read to code started: cgroup, namespaces, files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confine: Option<f64>,
    /// `rustc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<f64>,
    /// Code started to last process gone, compilation included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<f64>,
    /// Whether the code ran in an interpreter that was parked, or in a new process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<Interpreter>,
    /// How the machine came to be: `cold`, `restore` or `pool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Waiting for the job's turn in a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<f64>,
    /// Booting the machine: VMM started until the guest said hello. The phases from `vmm_spawn` to `ready` make it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<f64>,
    /// Starting the VMM process until it takes commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_spawn: Option<f64>,
    /// Telling the VMM what machine to make, up to its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configure: Option<f64>,
    /// Loading a snapshot: VMM told to until it runs the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<f64>,
    /// Making the restored machine one of its own: until the guest confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<f64>,
    /// The guest's kernel: machine start to the first instruction of PID 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<f64>,
    /// PID 1's own start: modules, mounts, up to listening.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<f64>,
    /// Listening until the host has read `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<f64>,
    /// Opening the job's connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<f64>,
    /// Request sent to response read, on the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execute: Option<f64>,
    /// host-agent's own part where a machine was ready: request accepted to job sent, and answer received to response ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<f64>,
    /// Ending the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<f64>,
    /// Request accepted to response ready (shutdown not counted).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
}

/// What ran the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Interpreter {
    /// One that was started before the machine was frozen.
    Parked,
    /// A new process.
    Fresh,
}

/// A frame that comes before the response when the request said `"stream": true`. It is told from the response by its
/// `event` field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The code is running now.
    Started,
    /// Some of standard output. Never splits a character; bytes that are no UTF-8 are U+FFFD here and exact in
    /// `data_base64`.
    Stdout(Chunk),
    /// Some of standard error, likewise.
    Stderr(Chunk),
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Chunk {
    /// As text.
    pub data: String,
    /// The exact bytes when they were not valid UTF-8, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}
