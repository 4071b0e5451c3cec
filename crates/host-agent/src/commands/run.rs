//! `host-agent run`: one job in a machine of its own.
//!
//! ```text
//! arguments ─► Job, Machine ─► a service that listens ─► its answer ──────────────────────► output
//!                    └─► parts (made if missing) ─► VMM ─► Sandbox, restored or booted ─► exec ─► output ─► destroy
//!                                                                └── a signal, or nobody reads: dropped ──┘
//! ```

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use engine::Sandbox;
use protocol::job::Timings;
use protocol::{ErrorCode, HostError, JobResponse};
use rustix::process::Signal;
use serde::Serialize;
use vmm::RuntimeDir;

use super::fail;
use crate::app::{App, Parts};
use crate::cli::{GlobalArgs, RunArgs};
use crate::client::Client;
use crate::interrupts::Interrupts;
use crate::job::Job;
use crate::machine::Machine;
use crate::output::{self, Output, Written, complain};
use crate::report;
use crate::service::{ExecuteRequest, Only};

/// What a service says that leaves the job to be run without it.
const CANNOT_SERVE: [ErrorCode; 2] = [ErrorCode::ServiceMismatch, ErrorCode::TemplateMissing];

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
    let run = Run {
        machine: &machine,
        job: &job,
        args,
        json: global.json,
        accepted,
    };
    // One thread: a VMM is killed by the kernel when the thread that started it ends.
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot("start the event loop"))?;
    if let Some(url) = &args.server {
        return waiting.block_on(async {
            let mut interrupts = Interrupts::new().map_err(cannot("watch for signals"))?;
            let client = Client::connect(url, args.key.as_deref()).await?;
            run.ask(client, None, &mut interrupts).await
        });
    }
    let app = App::new(global)?;
    let runtime = app.runtime()?;
    waiting.block_on(async {
        let mut run = Local {
            run,
            app: &app,
            runtime: &runtime,
            interrupts: None,
        };
        if let Some(end) = run.served().await? {
            return Ok(end);
        }
        // Up to the machine itself a signal ends the process at once.
        let parts = app.parts(&machine, !args.no_setup, &runtime).await?;
        let mut interrupts = match run.interrupts.take() {
            Some(interrupts) => interrupts,
            None => Interrupts::new().map_err(cannot("watch for signals"))?,
        };
        tokio::select! {
            biased;
            signal = interrupts.next() => Ok(End::Interrupted(signal)),
            end = run.converse(parts) => end,
        }
    })
}

/// One run.
struct Run<'a> {
    machine: &'a Machine,
    job: &'a Job,
    args: &'a RunArgs,
    json: bool,
    accepted: Instant,
}

/// One run, by a service of this user or in a machine of its own.
struct Local<'a> {
    run: Run<'a>,
    app: &'a App,
    runtime: &'a RuntimeDir,
    /// Once signals have been taken over.
    interrupts: Option<Interrupts>,
}

impl Local<'_> {
    /// Has a service run the job, if one listens and can; `None` where it has to be done here.
    async fn served(&mut self) -> Result<Option<End>, HostError> {
        let (args, machine) = (self.run.args, self.run.machine);
        let own_machine = args.cold || args.hello || machine.keep_console.is_some();
        if own_machine || !machine.can_be_cloned() {
            return Ok(None);
        }
        let Some(client) = Client::find(&self.app.socket()).await else {
            return Ok(None);
        };
        let mut interrupts = Interrupts::new().map_err(cannot("watch for signals"))?;
        match self
            .run
            .ask(client, Some(Only::of(machine)), &mut interrupts)
            .await
        {
            Err(error) if CANNOT_SERVE.contains(&error.code) => {
                self.interrupts = Some(interrupts);
                Ok(None)
            }
            end => end.map(Some),
        }
    }

    async fn converse(&self, parts: Parts) -> Result<End, HostError> {
        let (output, mut written) = output::start().map_err(cannot("start a thread"))?;
        let (machine, cold) = (self.run.machine, self.run.args.cold);
        let note = |why: &HostError| complain(format_args!("note: booting, because {why}"));
        let mut sandbox = self.app.sandbox(machine, parts, cold, self.runtime, note).await?;
        if self.run.args.hello {
            output.complain(json_line(sandbox.hello())?);
        }
        let answered = tokio::select! {
            answered = sandbox.exec(&self.run.job.request, |event| output.pass(&event)) => answered,
            Err(error) = written.ended() => return unwritten(error),
        };
        let mut response = answered?;
        if let Some(error) = response.error.take() {
            return Err(error);
        }
        if let Some(timings) = &mut response.timings {
            timings.total = Some(milliseconds(self.run.accepted.elapsed()));
        }
        self.run.finish(response, output, written, Some(sandbox)).await
    }
}

impl Run<'_> {
    /// Has a service run the job, on the machine that it insists on if it does.
    async fn ask(
        &self,
        client: Client,
        only: Option<Only>,
        interrupts: &mut Interrupts,
    ) -> Result<End, HostError> {
        let request = ExecuteRequest {
            job: self.job.request.clone(),
            template: self.args.template.clone(),
            vcpus: Some(self.machine.vcpus),
            memory_mib: Some(self.machine.memory_mib),
            queue_timeout: None,
            only,
        };
        let (output, written) = output::start().map_err(cannot("start a thread"))?;
        let answered = tokio::select! {
            biased;
            signal = interrupts.next() => return Ok(End::Interrupted(signal)),
            answered = client.execute(&request, |event| output.pass(&event)) => answered,
        };
        self.finish(answered?, output, written, None).await
    }

    /// Prints what there is to print, and ends the machine.
    async fn finish(
        &self,
        response: JobResponse,
        output: Output,
        mut written: Written,
        sandbox: Option<Sandbox>,
    ) -> Result<End, HostError> {
        let kept = self.job.keep_files(&response);
        if self.json {
            output.print(json_line(&response)?);
        } else if let Some(line) = report::killed_by(&response, self.job.request.timeout) {
            output.complain(line + "\n");
        }
        drop(output);
        if let Err(error) = written.ended().await {
            return unwritten(error);
        }
        let shutdown = match sandbox {
            Some(sandbox) => Some(milliseconds(sandbox.destroy().await.took)),
            None => None,
        };
        if self.args.timeline {
            let timings = Timings {
                shutdown,
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

pub(crate) fn cannot(action: &'static str) -> impl FnOnce(io::Error) -> HostError {
    move |error| HostError::new(ErrorCode::Internal, format!("cannot {action}: {error}"))
}

fn json_line(value: &impl Serialize) -> Result<String, HostError> {
    let text = serde_json::to_string(value).map_err(|error| cannot("write JSON")(error.into()))?;
    Ok(text + "\n")
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

pub(crate) fn random_trace_id() -> String {
    let mut bytes = [0; 16];
    // Without random bytes the id is of no use, but nothing depends on it.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
