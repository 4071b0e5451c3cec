//! `host-agent template`, `signing-key` and `serve`, as typed.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::MachineArgs;
use crate::instant::InstantArgs;

pub(super) const TEMPLATE_EXAMPLES: &str = "\
Examples:
  host-agent template build base            boot, park interpreters, freeze, sign
  host-agent template list
  host-agent template verify                read and check every byte
  host-agent template gc                    remove what was superseded

A snapshot fits one kernel, VMM version, processor and guest-runner: after a change of any of them build it again.";

pub(super) const SIGNING_KEY_EXAMPLES: &str = "\
Examples:
  host-agent signing-key create
  host-agent signing-key show >builder.pub
  host-agent signing-key trust builder.pub  snapshots that were built elsewhere
  host-agent signing-key rotate";

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  host-agent serve
  host-agent serve --pool 4 --memory-budget 2G
  curl --unix-socket /run/runner-codes/agent.sock http://localhost/v1/execute \\
       --json '{\"lang\":\"python\",\"code\":\"print(42)\"}'

  host-agent api-key create acme        prints a key; with it, over TCP:
  host-agent serve --listen 127.0.0.1:8700
  curl http://127.0.0.1:8700/v1/execute -H \"Authorization: Bearer $KEY\" --json '{\"lang\":\"bash\",\"code\":\"id\"}'

It ends on the first Ctrl-C or SIGTERM, when the jobs that are under way have ended.";

/// `host-agent template`
#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Boot a template, park its interpreters and freeze it
    Build(TemplateBuildArgs),
    /// What there is
    List,
    /// The newest snapshot of a template: what it was made of and what waits in it
    Inspect {
        /// The template
        #[arg(default_value = "base")]
        name: String,
    },
    /// Read every part of every snapshot and compare it with what was signed
    Verify {
        /// Only this template
        name: Option<String>,
    },
    /// Remove the snapshots of a template
    Rm {
        /// The template
        name: String,
    },
    /// Remove what was superseded, what fits nothing any more, and what builds left behind
    Gc,
}

/// `host-agent template build`
#[derive(Debug, Clone, Args)]
pub(crate) struct TemplateBuildArgs {
    /// The template
    #[arg(default_value = "base")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Build although there is one that fits
    #[arg(long)]
    pub(crate) force: bool,
}

/// `host-agent signing-key`
#[derive(Debug, Subcommand)]
pub(crate) enum SigningKeyCommand {
    /// Make a key; `template build` makes one by itself where there is none
    Create,
    /// Print the public key
    Show,
    /// Make a new key; what the old one signed stays trusted
    Rotate {
        /// No longer trust what the old key signed
        #[arg(long)]
        drop_old: bool,
    },
    /// Trust what another host's key signed
    Trust {
        /// A file with the public key, as `show` prints it
        file: PathBuf,
    },
}

/// `host-agent serve`
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Machines to keep ready [default: as many as are asked for, at least 2]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pool: Option<usize>,
    /// VMMs to keep waiting besides, for when those are taken
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub(crate) prespawned: usize,
    /// Memory that ready machines may take together, as in 512M or 2G [default: a quarter of what is available]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_budget: Option<String>,
    /// Also listen at this address of this machine, as in 127.0.0.1:8700, for clients with an API key; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Jobs to run at a time [default: 4 for each processor]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Jobs that may wait for their turn; further ones are refused, and told when to come again
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub(crate) queue: usize,
    /// Hours after which a template is built anew
    #[arg(long, value_name = "HOURS", default_value_t = 24.0)]
    pub(crate) rebuild_after: f64,
    #[command(flatten)]
    pub(crate) instant: InstantArgs,
}
