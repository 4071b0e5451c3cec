//! The runner as a service of a system that has its own init, started by `guest-runner.service`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use protocol::control::Boot;

use crate::clock;
use crate::cmdline;
use crate::confine::cgroup::Hierarchy;
use crate::failure::{Doing as _, Result};
use crate::guest::{Extent, Guest};
use crate::reap::Reaper;
use crate::root::{Root, Source};
use crate::serve::Server;
use crate::transport::Transport;

/// How long the transport's device may take to appear; systemd starts the runner again after that.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where nothing says which device it is.
const SEARCH: Duration = Duration::from_secs(2);

/// Serves on `socket`, else on whatever this machine has.
pub(crate) fn main(socket: Option<PathBuf>, started: f64) -> ExitCode {
    crate::raise_limits();
    match serve(socket, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("guest-runner: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: Option<PathBuf>, started: f64) -> Result<()> {
    let (transport, extent) = match socket {
        Some(path) => (Transport::unix(path), Extent::Process),
        None => (find_transport(), Extent::Machine),
    };
    let transport = transport.doing(|| "open the way to the host".to_owned())?;
    let boot = Boot {
        init: started,
        modules: started,
        root: started,
        listening: clock::since_boot(),
        ..Boot::default()
    };
    let reaper = Reaper::start().doing(|| "start the reaper".to_owned())?;
    let root = Root::new(Source::System);
    let guest = Guest::new(root, Hierarchy::delegated(), reaper, extent, boot);
    transport
        .serve(&Server::new(guest))
        .doing(|| "serve the host".to_owned())
}

fn find_transport() -> std::io::Result<Transport> {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    match cmdline::parse(&command_line).transport {
        Some(kind) => Transport::open(kind, PATIENCE),
        None => Transport::find(SEARCH),
    }
}
