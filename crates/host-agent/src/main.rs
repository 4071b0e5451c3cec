//! Runs untrusted code in microVMs on this machine. Arguments come in; one command runs; its exit status goes out.

mod app;
mod cli;
mod commands;
mod env_vars;
mod job;
mod output;
mod progress;

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
        Command::Doctor(args) => commands::doctor::doctor(&global, args),
        Command::InjectGuestRunner(args) => commands::inject_guest_runner::inject_guest_runner(&global, args),
        Command::Completions { shell } => commands::completions::completions(*shell),
    }
}

fn log(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env(env_vars::LOG).unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
