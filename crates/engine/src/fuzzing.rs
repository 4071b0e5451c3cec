//! What the fuzz targets call: conversations with a guest that says exactly these bytes. With the feature `fuzzing` only.

use protocol::control::{Confirmed, Identity, Park, Parked};
use protocol::{Event, Hello, HostError, JobRequest, JobResponse};
use tokio::io::{Join, Sink, join, sink};

use crate::conversation::Conversation;

/// The most confinement layers of an answer.
pub const MAX_LAYERS: usize = crate::shape::MAX_LAYERS;

fn conversation(bytes: &[u8]) -> Conversation<Join<&[u8], Sink>> {
    Conversation::new(join(bytes, sink()))
}

/// What the host believes of the answer to a job.
///
/// # Errors
/// What it refuses to believe.
pub async fn job(
    request: &JobRequest,
    bytes: &[u8],
    on_event: impl FnMut(Event),
) -> Result<JobResponse, HostError> {
    Ok(conversation(bytes).response(request, on_event).await?)
}

/// What it believes of the answer to `hello`.
///
/// # Errors
/// What it refuses to believe.
pub async fn hello(bytes: &[u8]) -> Result<Hello, HostError> {
    Ok(conversation(bytes).hello().await?)
}

/// What it believes of the answer to `park`.
///
/// # Errors
/// What it refuses to believe.
pub async fn park(bytes: &[u8]) -> Result<Parked, HostError> {
    Ok(conversation(bytes).park(Park::default()).await?)
}

/// What it believes of the answer to an identity.
///
/// # Errors
/// What it refuses to believe.
pub async fn identity(identity: &Identity, bytes: &[u8]) -> Result<Confirmed, HostError> {
    Ok(conversation(bytes).identity(identity).await?)
}
