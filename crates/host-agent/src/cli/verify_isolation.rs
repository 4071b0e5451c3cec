//! `host-agent verify-isolation`, as typed.

use std::num::NonZeroUsize;

use clap::Args;

use super::MachineArgs;

const EXAMPLES: &str = "\
Examples:
  host-agent verify-isolation
  host-agent verify-isolation --list
  host-agent verify-isolation --only fork_bomb --only network
  host-agent verify-isolation --json | jq '.checks[] | select(.verdict == \"fail\")'

Each check is code that tries one thing, in a machine of its own that is made as those of jobs are. The exit status is 0 when
none failed, 1 when one did.";

/// `host-agent verify-isolation`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyIsolationArgs {
    /// Only checks whose name, as in python/bpf, contains this; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Say what each check tries and when it passes, and run none
    #[arg(long)]
    pub(crate) list: bool,
    /// Machines at a time
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub(crate) jobs: NonZeroUsize,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Boot each machine, even where a snapshot would be faster
    #[arg(long, help_heading = "Machine")]
    pub(crate) cold: bool,
    /// Start a new interpreter for each check, even where one waits
    #[arg(long, help_heading = "Machine")]
    pub(crate) fresh: bool,
}
