//! `host-agent run`: one job in a machine of its own.
//!
//! ```text
//! arguments ─► Job ─► parts (made if missing) ─► VMM ─► Sandbox ─► exec ─► output ─► destroy
//!                                                 └── Ctrl-C, or nobody reads: the sandbox is dropped ──┘
//! ```

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use std::{fs, future};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::job::Timings;
use protocol::{ErrorCode, HostError, JobResponse};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::fail;
use crate::app::{App, Parts};
use crate::cli::{GlobalArgs, RunArgs};
use crate::job::Job;
use crate::output::{self, Output};

/// How a run came to its end.
enum End {
    /// With a response.
    Response(Box<JobResponse>),
    /// By a signal to us, of that number.
    Signal(i32),
    /// Nobody reads the output any more.
    Unread,
}

pub(crate) fn run(global: &GlobalArgs, args: &RunArgs) -> ExitCode {
    let trace_id = args.trace_id.clone().unwrap_or_else(random_trace_id);
    match execute(global, args, &trace_id) {
        Ok(End::Response(response)) => exit_code(response.exit_code),
        Ok(End::Signal(number)) => {
            let error = HostError::new(ErrorCode::Cancelled, "a signal interrupted the job");
            fail(&error.trace_id(trace_id), args.json);
            exit_code(128 + number)
        }
        Ok(End::Unread) => exit_code(128 + libc_sigpipe()),
        Err(error) => fail(&error.trace_id(trace_id), args.json),
    }
}

fn execute(global: &GlobalArgs, args: &RunArgs, trace_id: &str) -> Result<End, HostError> {
    let job = Job::from_args(args, trace_id)?;
    crate::job::memory_mib(&args.memory)?;
    let app = App::new(global)?;
    let parts = app.parts(args, job.request.lang)?;
    // One thread: a VMM is killed by the kernel when the thread that started it ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            HostError::new(
                ErrorCode::Internal,
                format!("cannot start the event loop: {error}"),
            )
        })?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            number = interrupted() => Ok(End::Signal(number)),
            end = converse(&app, args, &job, parts) => end,
        }
    })
}

async fn converse(app: &App, args: &RunArgs, job: &Job, parts: Parts) -> Result<End, HostError> {
    let accepted = Instant::now();
    let runtime = app.runtime()?;
    let vmm = app.backend(args.backend, &parts, &runtime).await?;
    let mut sandbox = app.sandbox(&vmm, args, parts, &runtime).await?;
    if args.hello {
        eprintln!("{}", serde_json::to_string(sandbox.hello()).unwrap_or_default());
    }
    let (mut output, unread) = (Output::default(), Notify::new());
    let on_event = |event| {
        if !output.pass(&event) {
            unread.notify_one();
        }
    };
    let answered = tokio::select! {
        answered = sandbox.exec(&job.request, on_event) => answered,
        () = unread.notified() => return Ok(End::Unread),
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => {
            let error = HostError::from(error);
            sandbox.destroy().await;
            return Err(error);
        }
    };
    if let Some(timings) = &mut response.timings {
        timings.total = Some(accepted.elapsed().as_secs_f64() * 1e3);
    }
    if let Some(error) = response.error.take() {
        sandbox.destroy().await;
        return Err(error);
    }
    tell(args, job, &response)?;
    let shutdown = sandbox.destroy().await;
    if args.timeline {
        let timings = response.timings.clone().unwrap_or_default();
        let shutdown = Some(shutdown.took.as_secs_f64() * 1e3);
        eprint!("{}", output::timeline(&Timings { shutdown, ..timings }));
    }
    Ok(End::Response(Box::new(response)))
}

/// Prints and writes what is not printed yet.
fn tell(args: &RunArgs, job: &Job, response: &JobResponse) -> Result<(), HostError> {
    for (guest, host) in &job.outputs {
        keep(response, guest, host)?;
    }
    if args.json {
        let mut text = serde_json::to_string_pretty(response).map_err(|error| {
            HostError::new(
                ErrorCode::Internal,
                format!("the answer has no JSON form: {error}"),
            )
        })?;
        text.push('\n');
        // Nobody is left to be told when this fails.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    } else if let Some(line) = output::ended_by(response, args.timeout) {
        eprintln!("{line}");
    }
    Ok(())
}

/// Writes a file that came back.
fn keep(response: &JobResponse, guest: &str, host: &PathBuf) -> Result<(), HostError> {
    let file = response.files.iter().find(|file| file.path == guest);
    let content = file.and_then(|file| match (&file.content, &file.content_base64) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(exact)) => STANDARD.decode(exact).ok(),
        (None, None) => None,
    });
    let Some(content) = content else {
        eprintln!("note: there is no {guest} to collect, or it is too large");
        return Ok(());
    };
    fs::write(host, content).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::StorageFull => ErrorCode::DiskFull,
            _ => ErrorCode::StateUnusable,
        };
        HostError::new(code, format!("cannot write {}: {error}", host.display()))
    })
}

/// Waits for a signal that asks us to end, and gives its number.
async fn interrupted() -> i32 {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let waits = kinds.map(|kind| {
        Box::pin(async move {
            match signal(kind) {
                Ok(mut signals) => signals.recv().await,
                Err(_) => future::pending().await,
            };
            kind.as_raw_value()
        })
    });
    let [interrupt, terminate, hangup] = waits;
    tokio::select! {
        number = interrupt => number,
        number = terminate => number,
        number = hangup => number,
    }
}

fn random_trace_id() -> String {
    let mut bytes = [0; 16];
    // Without random bytes the id is of no use, but nothing depends on it.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn libc_sigpipe() -> i32 {
    rustix::process::Signal::PIPE.as_raw()
}
