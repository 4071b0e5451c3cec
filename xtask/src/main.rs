//! What a developer runs. Each command does its own set-up on a Debian machine that has only Rust.
//!
//! ```text
//! demo ─┐
//! test ─┼─► debian: packages ─► build: host-agent ─► host-agent setup ─► the command itself
//! bench ┤
//! metal ┘
//! fuzz ───► fuzz
//! ```

mod bench;
mod build;
mod counts;
mod debian;
mod demo;
mod fuzz;
mod metal;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// Builds, shows and tests Runner Codes.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    /// Run a bash and a Python job in microVMs and print what came back.
    Demo,
    /// Run every test, real microVMs included.
    Test(test::Arguments),
    /// Fuzz what reads bytes that cannot be trusted.
    Fuzz(fuzz::Arguments),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run a command on an emulated bare-metal host that has KVM and Firecracker.
    Metal(metal::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Xtask::parse() {
        Xtask::Demo => demo::run_jobs()?,
        Xtask::Test(arguments) => return test::run(&arguments),
        Xtask::Fuzz(arguments) => return fuzz::run(&arguments),
        Xtask::Bench(bench) => bench::run(&bench)?,
        Xtask::Metal(arguments) => return Ok(metal::run(&arguments)?.into()),
    }
    Ok(ExitCode::SUCCESS)
}
