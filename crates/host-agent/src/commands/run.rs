//! `host-agent run`: one job in a machine of its own.
//!
//! ```text
//! arguments ─► Job, Machine ─► parts (made if missing) ─► VMM ─► Sandbox ─► exec ─► output ─► destroy
//!                                                                └── a signal, or nobody reads: dropped ──┘
//! ```

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use protocol::job::Timings;
use protocol::{ErrorCode, HostError};
use rustix::process::Signal;
use serde::Serialize;
use vmm::RuntimeDir;

use super::fail;
use crate::app::{App, Parts};
use crate::cli::{GlobalArgs, RunArgs};
use crate::interrupts::Interrupts;
use crate::job::Job;
use crate::machine::Machine;
use crate::output::{self, complain};
use crate::report;

/// How a run came to its end.
enum End {
    /// The code's own, with this exit code.
    Exit(i32),
    /// A signal to us.
    Interrupted(Signal),
    /// Nobody reads the output any more.
    Unread,
}

/// Runs one job. The exit status is the code's.
pub(crate) fn run(global: &GlobalArgs, args: &RunArgs) -> ExitCode {
    let trace_id = args.trace_id.clone().unwrap_or_else(random_trace_id);
    match execute(global, args, &trace_id) {
        Ok(End::Exit(code)) => exit_code(code),
        Ok(End::Interrupted(signal)) => {
            let cause = format!("signal {} interrupted the job", signal.as_raw());
            let error = HostError::new(ErrorCode::Cancelled, cause);
            fail(&error.trace_id(trace_id), global.json);
            exit_code(128 + signal.as_raw())
        }
        Ok(End::Unread) => exit_code(128 + Signal::PIPE.as_raw()),
        Err(error) => fail(&error.trace_id(trace_id), global.json),
    }
}

fn execute(global: &GlobalArgs, args: &RunArgs, trace_id: &str) -> Result<End, HostError> {
    let accepted = Instant::now();
    let job = Job::from_args(args, global.json, trace_id)?;
    let machine = Machine::from_args(args, job.request.lang)?;
    let app = App::new(global)?;
    let runtime = app.runtime()?;
    // One thread: a VMM is killed by the kernel when the thread that started it ends.
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot("start the event loop"))?;
    waiting.block_on(async {
        // Up to the machine itself a signal ends the process at once.
        let parts = app.parts(&machine, !args.no_setup, &runtime).await?;
        let mut interrupts = Interrupts::new().map_err(cannot("watch for signals"))?;
        let run = Run {
            app: &app,
            runtime: &runtime,
            machine: &machine,
            job: &job,
            accepted,
        };
        tokio::select! {
            biased;
            signal = interrupts.next() => Ok(End::Interrupted(signal)),
            end = run.converse(parts, global.json, args) => end,
        }
    })
}

/// What one run works with.
struct Run<'a> {
    app: &'a App,
    runtime: &'a RuntimeDir,
    machine: &'a Machine,
    job: &'a Job,
    accepted: Instant,
}

impl Run<'_> {
    async fn converse(&self, parts: Parts, json: bool, args: &RunArgs) -> Result<End, HostError> {
        let vmm = self.app.vmm(self.machine, &parts, self.runtime).await?;
        let (output, mut written) = output::start().map_err(cannot("start a thread"))?;
        let mut sandbox = self.app.sandbox(&vmm, self.machine, parts, self.runtime).await?;
        if args.hello {
            output.complain(json_line(sandbox.hello())?);
        }
        let answered = tokio::select! {
            answered = sandbox.exec(&self.job.request, |event| output.pass(&event)) => answered,
            Err(error) = written.ended() => return unwritten(error),
        };
        let mut response = answered?;
        if let Some(error) = response.error.take() {
            return Err(error);
        }
        if let Some(timings) = &mut response.timings {
            timings.total = Some(milliseconds(self.accepted.elapsed()));
        }
        let kept = self.job.keep_files(&response);
        if json {
            output.print(json_line(&response)?);
        } else if let Some(line) = report::killed_by(&response, self.job.request.timeout) {
            output.complain(line + "\n");
        }
        drop(output);
        if let Err(error) = written.ended().await {
            return unwritten(error);
        }
        let shutdown = sandbox.destroy().await;
        if args.timeline {
            let timings = Timings {
                shutdown: Some(milliseconds(shutdown.took)),
                ..response.timings.unwrap_or_default()
            };
            complain(report::timeline(&timings));
        }
        kept.map(|()| End::Exit(response.exit_code))
    }
}

/// A reader that has gone is no error, and is not told.
fn unwritten(error: io::Error) -> Result<End, HostError> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(End::Unread),
        io::ErrorKind::StorageFull => Err(HostError::new(
            ErrorCode::DiskFull,
            "the disk that standard output goes to is full",
        )),
        _ => Err(cannot("write standard output")(error)),
    }
}

fn cannot(action: &'static str) -> impl FnOnce(io::Error) -> HostError {
    move |error| HostError::new(ErrorCode::Internal, format!("cannot {action}: {error}"))
}

fn json_line(value: &impl Serialize) -> Result<String, HostError> {
    let text = serde_json::to_string(value).map_err(|error| cannot("write JSON")(error.into()))?;
    Ok(text + "\n")
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
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
