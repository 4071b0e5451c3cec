//! `bench`: measurements on this machine. Machines differ and are noisy, so what counts are ratios of pairs that ran one
//! right after the other.
//!
//! ```text
//! Installed (host-agent, snapshot) ─► rounds, each in the other order ─► Samples ─► table, CSV, SVG
//! ```

mod clones;
mod cold;
mod floor;
mod http;
mod installed;
mod interrupt;
mod kernels;
mod load;
mod memory;
mod parked;
mod plot;
mod restore;
mod samples;
mod service;
mod split;
mod statistics;
mod warm;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

pub(crate) use installed::HOST_AGENT;

/// What is measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// A whole `host-agent run` from nothing, against a bare boot of the same kernel.
    Cold(cold::Arguments),
    /// A job in a clone made for it, against the raw VMM restoring the same snapshot.
    Restore(restore::Arguments),
    /// A job by a running service: from a pool, with a VMM started ahead, on demand; against a cold start.
    Warm(warm::Arguments),
    /// Many jobs one after the other, by a running service: time from the request to the result, success rate.
    Sequential(load::Arguments),
    /// Many jobs at once, by a running service: the same.
    Burst(load::Arguments),
    /// Very many jobs one after the other: what the service holds after 100 and at the end.
    Soak(load::SoakArguments),
    /// What one more idle clone takes of the host's memory.
    Memory(memory::Arguments),
    /// The first output of an interpreter that waits, against that of a fresh one.
    Parked(parked::Arguments),
    /// The tuned kernel against Debian's.
    Kernels(kernels::Arguments),
    /// The service itself, without machines: requests a second, latency and memory, also beyond what it admits.
    Http(http::Arguments),
}

/// What every benchmark takes.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// How many rounds.
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    pairs: u32,
    /// Where CSV and SVG files are written to [default: bench in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Common {
    fn out(&self) -> PathBuf {
        self.out
            .clone()
            .unwrap_or_else(|| crate::build::target_dir().join("bench"))
    }
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        return again_in_release();
    }
    interrupt::watch()?;
    match bench {
        Bench::Cold(arguments) => cold::run(arguments),
        Bench::Restore(arguments) => restore::run(arguments),
        Bench::Warm(arguments) => warm::run(arguments),
        Bench::Sequential(arguments) => load::sequential(arguments),
        Bench::Burst(arguments) => load::burst(arguments),
        Bench::Soak(arguments) => load::soak(arguments),
        Bench::Memory(arguments) => memory::run(arguments),
        Bench::Parked(arguments) => parked::run(arguments),
        Bench::Kernels(arguments) => kernels::run(arguments),
        Bench::Http(arguments) => http::run(arguments),
    }
}

/// Some of what is measured runs in this process, and is to be what users run. Returns only to say why that cannot be.
fn again_in_release() -> anyhow::Result<()> {
    let xtask = crate::build::release("xtask")?;
    let error = Command::new(&xtask).args(std::env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("cannot start {}", xtask.display()))
}
