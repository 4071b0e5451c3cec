//! Jobs that wait for their turn. [`policy`] decides whose is next and who cannot be taken; it never acts itself. [`turns`] has
//! its callers wait for it.

pub mod policy;
mod turns;

pub use turns::{Turn, Turns};
