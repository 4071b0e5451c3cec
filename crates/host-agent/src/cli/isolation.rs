//! What machines may go without, as typed. Every command takes it: whatever starts a machine isolates it.

use std::path::PathBuf;

use clap::Args;
use vmm::{Isolation, UidRange};

use crate::env_vars;

/// See [`Isolation`]. What is not left out here, and cannot be had, fails what needs a machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Isolation")]
pub(crate) struct IsolationArgs {
    /// Start Firecracker without its jailer; needed without root
    #[arg(long, global = true, env = env_vars::NO_JAILER, hide_env = true, hide_short_help = true)]
    no_jailer: bool,
    /// Run VMMs as root instead of as a user of their own each
    #[arg(long, global = true, env = env_vars::NO_VMM_UID, hide_env = true, hide_short_help = true)]
    no_vmm_uid: bool,
    /// Let VMMs see the host's files, processes and network, as far as their user may
    #[arg(long, global = true, env = env_vars::NO_NAMESPACES, hide_env = true, hide_short_help = true)]
    no_namespaces: bool,
    /// Do without the host's limits on a machine's memory, processes and processor time
    #[arg(long, global = true, env = env_vars::NO_CGROUP, hide_env = true, hide_short_help = true)]
    no_cgroup: bool,
    /// Do without the BPF programs that keep a machine's cgroup off every network
    #[arg(long, global = true, env = env_vars::NO_NETWORK_FILTER, hide_env = true, hide_short_help = true)]
    no_network_filter: bool,
    /// The user and group ids that VMMs get, for nothing else on this host [default: 1879048192-1879113727]
    #[arg(long, global = true, value_name = "FIRST-LAST", env = env_vars::VMM_UIDS, hide_env = true, hide_short_help = true)]
    vmm_uids: Option<UidRange>,
    /// The cgroup that machines' cgroups are in, below the root of each hierarchy [default: runner-codes]
    #[arg(long, global = true, value_name = "PATH", env = env_vars::CGROUP, hide_env = true, hide_short_help = true)]
    cgroup: Option<PathBuf>,
}

impl From<&IsolationArgs> for Isolation {
    fn from(args: &IsolationArgs) -> Self {
        let all = Self::default();
        Self {
            jailer: !args.no_jailer,
            uid: !args.no_vmm_uid,
            namespaces: !args.no_namespaces,
            cgroup: !args.no_cgroup,
            network_filter: !args.no_network_filter,
            uids: args.vmm_uids.unwrap_or(all.uids),
            cgroup_parent: args.cgroup.clone().unwrap_or(all.cgroup_parent),
            jailer_program: None,
        }
    }
}
