//! `host-agent completions`

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints a shell's completion script.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    clap_complete::generate(shell, &mut Cli::command(), "host-agent", &mut io::stdout());
    ExitCode::SUCCESS
}
