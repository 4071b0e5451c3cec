//! `bench`: measurements on this machine. Machines differ and are noisy, so what counts are ratios of pairs that ran one
//! right after the other.

mod cold;
mod statistics;

/// What is measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// A whole `host-agent run` from nothing, against a bare boot of the same kernel.
    Cold(cold::Arguments),
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Cold(arguments) => cold::run(arguments),
    }
}
