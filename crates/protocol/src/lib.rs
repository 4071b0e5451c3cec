//! What host-agent and guest-runner say to each other.
//!
//! ```text
//! host-agent ──Channel──► [frame: u32 big-endian length + JSON] ──► guest-runner
//!                            port 5000  JobRequest     → Event… JobResponse
//!                            port 5001  ControlRequest → ControlResponse
//! ```
//!
//! On Firecracker a channel is a vsock connection; on QEMU it is one stream of the [`mux`] that shares a
//! virtio-serial port. The crate is synchronous and does no I/O of its own beyond `Read` and `Write`.

pub mod control;
pub mod error;
pub mod frame;
pub mod job;
pub mod limits;
pub mod mux;

pub use control::{ControlRequest, ControlResponse, Hello};
pub use error::{ErrorCode, HostError};
pub use job::{Event, FileSpec, JobRequest, JobResponse, Language, Termination};
