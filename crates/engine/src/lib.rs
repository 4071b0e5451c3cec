//! The life of a sandbox: acquire, execute, destroy.
//!
//! ```text
//! MachineConfig ─► Sandbox::acquire ── boot, hello ──► exec(JobRequest) ─► Event… JobResponse ──► destroy
//! ```
//!
//! A guest is hostile. What it sends is a bounded frame, then JSON, then an answer that fits the question ([`answer`]);
//! whatever fails one of these ends the sandbox with an error that says so. Every wait has a deadline, and the death of
//! the VMM ends any wait at once.

pub mod admission;
mod answer;
mod conversation;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod idempotency;
mod identity;
pub mod pool;
pub mod queue;
mod sandbox;
mod shape;
mod template;

pub use error::EngineError;
pub use sandbox::Sandbox;
pub use template::{Frozen, InUse, OnRestore, Restored, Spawned, Template};
