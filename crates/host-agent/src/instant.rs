//! A machine that is none, for tests and measurements of the service itself: it answers at once, or after so long, and prints
//! the code that it is given. Nothing runs. Builds that are packaged do not know the option.

use std::time::Duration;

use clap::Args;
use protocol::job::{Chunk, Timings};
use protocol::{Event, JobRequest, JobResponse, Termination};

use crate::commands::run::milliseconds;

/// The option that asks for it.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstantArgs {
    /// Run no machines: answer each job after that long, with its code
    #[cfg(any(debug_assertions, feature = "instant-machine"))]
    #[arg(long, hide = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    instant_machine: Option<Duration>,
}

impl InstantArgs {
    /// How long it takes, if jobs are to have it.
    #[cfg(any(debug_assertions, feature = "instant-machine"))]
    pub(crate) const fn takes(&self) -> Option<Duration> {
        self.instant_machine
    }

    /// None: this build has no such machine.
    #[cfg(not(any(debug_assertions, feature = "instant-machine")))]
    #[expect(clippy::unused_self, reason = "the other build has it")]
    pub(crate) const fn takes(&self) -> Option<Duration> {
        None
    }
}

/// "Runs" a job.
pub(crate) async fn exec(takes: Duration, job: &JobRequest, mut on_event: impl FnMut(Event)) -> JobResponse {
    if job.stream {
        on_event(Event::Started);
        on_event(Event::Stdout(Chunk {
            data: job.code.clone(),
            data_base64: None,
        }));
    }
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    JobResponse {
        trace_id: job.trace_id.clone(),
        stdout: job.code.clone(),
        termination: Some(Termination::Exit),
        timings: Some(Timings {
            path: Some("pool".to_owned()),
            connect: Some(0.0),
            exec: Some(milliseconds(takes)),
            execute: Some(milliseconds(takes)),
            ..Timings::default()
        }),
        ..JobResponse::default()
    }
}
