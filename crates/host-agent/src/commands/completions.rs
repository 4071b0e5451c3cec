//! `host-agent completions`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints a shell's completion script.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "host-agent", &mut script);
    // Nobody is left to be told when this fails.
    let _ = io::stdout().lock().write_all(&script);
    ExitCode::SUCCESS
}
