//! Seccomp profiles: what a language's code may ask of the kernel, from data to a program that the kernel runs. Only
//! build scripts use it, so that a guest need read nothing.
//!
//! ```text
//! profiles/seccomp/<language>.json ─► Profile: an action for each system call ─► Program: BPF, for the guest-runner
//!          base.json ──────────────────┘ extends
//! ```

mod profile;
mod program;

pub use profile::{Action, Arguments, Decision, Error, Profile};
pub use program::{EXIT, KILL, Program, compile};
pub use seccompiler::sock_filter as Step;
