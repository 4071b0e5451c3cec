//! What went wrong, with what was being done: the one error of this binary up to the point where a client sees it as
//! a [`HostError`].

use std::io;

use protocol::{ErrorCode, HostError};

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A step that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {source}")]
pub(crate) struct Failure {
    doing: String,
    source: io::Error,
}

impl Failure {
    pub(crate) fn new(
        doing: impl Into<String>,
        why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            doing: doing.into(),
            source: io::Error::other(why),
        }
    }
}

impl From<Failure> for HostError {
    fn from(failure: Failure) -> Self {
        Self::new(ErrorCode::ConfineFailed, failure.to_string())
    }
}

/// Says what was being done when a call failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure {
            doing: what(),
            source: error.into(),
        })
    }
}
