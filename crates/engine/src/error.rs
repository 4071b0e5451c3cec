//! What can go wrong between a request and its response.

use std::time::Duration;

use protocol::frame::FrameError;
use protocol::{ErrorCode, HostError};
use vmm::VmmError;

use crate::answer;

/// Why a sandbox could not be had, or a job got no response.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The request breaks a bound, so nothing was sent.
    #[error("{}", .0.cause)]
    Request(HostError),
    /// The machine could not be made, or did not last until the job began.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The host's kernel gave no random bytes.
    #[error("There are no random bytes")]
    Random(#[source] std::io::Error),
    /// The guest-runner refused a control request.
    #[error("The guest refused {request}: {}", error.cause)]
    Refused {
        /// Which one.
        request: &'static str,
        /// Its own words, bounded.
        error: HostError,
    },
    /// The guest sent no frame, or one that is not the JSON it should be.
    #[error("The guest sent something that is not the protocol")]
    Frame(#[source] FrameError),
    /// The guest's message does not fit the request.
    #[error("The guest's answer is not acceptable: {0}")]
    Answer(String),
    /// The guest hung up.
    #[error("The guest closed the connection without an answer to {0}")]
    Closed(&'static str),
    /// The guest did not answer in time.
    #[error("The guest did not answer {request} within {:.1} s{}", after.as_secs_f64(), last(console))]
    Silent {
        /// What it was asked.
        request: &'static str,
        /// How long was waited.
        after: Duration,
        /// The last lines of its console.
        console: Vec<String>,
    },
}

fn last(console: &[String]) -> String {
    console
        .last()
        .map_or_else(String::new, |line| format!(" (last on its console: {line})"))
}

impl From<EngineError> for HostError {
    fn from(error: EngineError) -> Self {
        let cause = error.to_string();
        match error {
            EngineError::Request(error) | EngineError::Refused { error, .. } => Self { cause, ..error },
            EngineError::Vmm(error) => error.into(),
            EngineError::Random(source) => Self::new(ErrorCode::Internal, format!("{cause}: {source}")),
            // What is no JSON of ours may be quoted in full by whoever says so.
            EngineError::Frame(source) => {
                let cause = answer::shortened(format!("{cause}: {source}"));
                Self::new(ErrorCode::GuestProtocol, cause)
            }
            EngineError::Answer(_) | EngineError::Closed(_) => Self::new(ErrorCode::GuestProtocol, cause),
            EngineError::Silent { .. } => Self::new(ErrorCode::GuestSilent, cause),
        }
    }
}
