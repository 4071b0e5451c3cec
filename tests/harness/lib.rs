//! Drives the real host-agent as a user would, and looks afterwards whether it left anything behind.
//!
//! ```text
//! Host (one test's runtime and temporary directories) ──run()──► Run (arguments) ──► Running ──► Finished ──► Answer
//!   └ on drop: no process, socket, mount, loop device, cgroup, file is left                                        └► Refusal
//! ```
//!
//! The test binary needs neither cargo nor the source tree once it is built: it also runs on the emulated bare-metal host.

mod finished;
mod host;
pub mod hostile;
mod leaks;
pub mod process;
mod running;
mod service;
mod skip;

pub use finished::{Answer, Finished, Refusal};
pub use host::{Host, Snapshots, backend_is, cache, copy, host_agent, state};
pub use running::{Run, Running};
pub use service::{Moment, Reply, Service};
pub use skip::{only_with_all, skip};

/// The environment variables that the tests read. The program's own are in `docs/environment.md`.
pub mod env_vars {
    /// The host-agent to test. Without it, the one that cargo built beside the tests.
    pub const HOST_AGENT: &str = "RUNNER_CODES_HOST_AGENT";
    /// Which backend all runs use; host-agent's own default otherwise.
    pub const BACKEND: &str = "RUNNER_CODES_BACKEND";
    /// A file to which every skipped test appends one line, `name: reason`.
    pub const SKIPS: &str = "RUNNER_CODES_TEST_SKIPS";
    /// Also run what takes minutes.
    pub const ALL: &str = "RUNNER_CODES_TEST_ALL";
    /// Boot a machine for each run instead of restoring one, and start each interpreter for its job.
    pub const COLD: &str = "RUNNER_CODES_TEST_COLD";
    /// How many times slower than a usual machine this one is: stretches every deadline of the harness.
    pub const PATIENCE: &str = "RUNNER_CODES_TEST_PATIENCE";
    /// The program of `hostile-guest/`. Without it, the one that cargo built beside the tests.
    pub const HOSTILE_GUEST: &str = "RUNNER_CODES_TEST_HOSTILE_GUEST";
    /// An ext4 image with systemd, Python 2 and an injected guest-runner, for a machine that cannot make one.
    pub const PYTHON2_IMAGE: &str = "RUNNER_CODES_TEST_PYTHON2_IMAGE";
    /// A directory that keeps what is slow to make (images of other distributions) from one run to the next.
    pub const CACHE: &str = "RUNNER_CODES_TEST_CACHE";
}
