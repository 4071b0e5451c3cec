//! How far a long step has come, for whoever shows it.

use std::path::Path;

/// What a step counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nothing: it only takes time.
    Nothing,
    /// Bytes.
    Bytes,
    /// Files compiled.
    Files,
}

/// One report. Steps follow one another: `Started`, any number of `Stage` and `Advanced`, `Finished`. A step that fails has no
/// `Finished`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Another set-up holds this lock; this one goes on when that has ended.
    Waiting {
        /// The lock file.
        lock: &'a Path,
    },
    /// A step begins.
    Started {
        /// What is being made, as a noun: `kernel debian`.
        step: &'a str,
        /// What `Advanced` counts.
        unit: Unit,
        /// How many there will be, where that is known.
        total: Option<u64>,
    },
    /// What the step is at, in the words of the program that does it.
    Stage(&'a str),
    /// How many of the step's units are done since it started.
    Advanced(u64),
    /// The step is done.
    Finished,
}

/// Where reports go.
pub(crate) type Report<'a> = &'a dyn Fn(Progress<'_>);
