//! Runs untrusted code in microVMs on this machine. Arguments come in; one command runs; its exit status goes out.

mod advisories;
mod app;
mod cli;
mod client;
mod commands;
mod env_vars;
mod gauges;
mod instant;
mod interrupts;
mod isolation;
mod job;
mod keys;
mod machine;
mod metrics;
mod output;
mod progress;
mod report;
mod server;
mod service;
mod snapshots;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    log(global.verbose);
    match &command {
        Command::Run(args) => commands::run::run(&global, args),
        Command::Setup(args) => commands::setup::setup(&global, args),
        Command::Serve(args) => commands::serve::serve(&global, args),
        Command::Template(command) => commands::template::template(&global, command),
        Command::ApiKey(command) => commands::api_key::api_key(&global, command),
        Command::SigningKey(command) => commands::signing_key::signing_key(&global, command),
        Command::VerifyIsolation(args) => commands::verify_isolation::verify_isolation(&global, args),
        Command::Doctor { kernel } => commands::doctor::doctor(&global, kernel.as_deref()),
        Command::InjectGuestRunner(args) => commands::inject_guest_runner::inject_guest_runner(&global, args),
        Command::Completions { shell } => commands::completions::completions(*shell),
    }
}

/// Logs to standard error when asked to, by `--verbose` or by a filter in the environment.
fn log(verbose: u8) {
    let filter = match (std::env::var(env_vars::LOG), verbose) {
        (Ok(filter), _) if !filter.is_empty() => EnvFilter::new(filter),
        (_, 0) => return,
        (_, 1) => EnvFilter::new("info"),
        (_, _) => EnvFilter::new("debug"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
