//! An emulated bare-metal host: QEMU with nested virtualization, in which Firecracker runs for real.

use std::env;
use std::path::PathBuf;

use anyhow::bail;

/// What runs on the emulated host.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// The command and its arguments; the functional suite when there is none.
    #[arg(last = true)]
    command: Vec<String>,
}

/// The Firecracker binary to run there: `FIRECRACKER_BIN`, else the one in `PATH`.
pub(crate) fn firecracker() -> Option<PathBuf> {
    if let Some(path) = env::var_os("FIRECRACKER_BIN") {
        return Some(path.into());
    }
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join("firecracker"))
        .find(|path| path.exists())
}

/// Boots the emulated host and runs the command in it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    bail!("no emulated host yet for {:?}", arguments.command)
}
