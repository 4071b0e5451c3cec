//! Machines restored ahead of demand. [`policy`] decides how many, of what, and when; it never acts itself. [`task`] does what it says.

pub mod policy;
mod task;

pub use task::{Leased, Pool, sensible_concurrency};
