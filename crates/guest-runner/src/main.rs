//! guest-runner: PID 1 of the microVM, or a service of one. It takes jobs from the host, confines and runs their code,
//! and answers with what came of it.
//!
//! ```text
//! init ─► transport ─► serve ─► run ─► stage (a process) ─► the code
//!                                │
//!                                └─► outcome ─► response
//! ```
//!
//! One binary in three parts: [`init`] when it is PID 1, a service with `--listen`, and [`stage`], which is what the
//! other two start for every job. Threads, no async runtime: a guest has few connections, and each has its own.

mod clock;
mod clone;
mod cmdline;
mod confine;
mod connection;
mod failure;
mod files;
mod guest;
mod init;
mod language;
mod launch;
mod listener;
mod loaders;
mod modules;
mod outcome;
mod output;
mod park;
mod power;
mod reap;
mod root;
mod run;
mod serve;
mod service;
mod stage;
mod sys;
mod transport;

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};

/// The stack of every thread, in bytes: JSON is the deepest that any of them goes.
const THREAD_STACK: usize = 512 << 10;

/// What the runner itself needs with all of its connections busy, and the kernel's default for the most of all.
const OPEN_FILES: Rlimit = Rlimit {
    current: Some(4096),
    maximum: Some(1 << 20),
};

const USAGE: &str = "usage: guest-runner --listen [unix:PATH] | --version
Runs as PID 1 of a guest without arguments, or as a service of one with --listen.";

fn main() -> ExitCode {
    let started = clock::since_boot();
    if std::process::id() == 1 {
        init::main(started);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [stage::ARGUMENT] => stage::main(),
        ["--listen"] => service::main(None, started),
        ["--listen", address] => match address.strip_prefix("unix:") {
            Some(path) => service::main(Some(path.into()), started),
            None => usage(),
        },
        ["--version"] => {
            println!("guest-runner {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

/// Puts this process, and what it starts, before the code that it watches, and lets that code have many open files
/// where it asks for them. Without the right to do so the runner goes on all the same.
fn raise_limits() {
    let _ = setpriority_process(None, -20);
    let _ = setrlimit(Resource::Nofile, OPEN_FILES);
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
