//! `host-agent serve`: machines kept ready, and jobs over a Unix socket.

use std::process::ExitCode;

use protocol::{ErrorCode, HostError};

use super::fail;
use crate::app::App;
use crate::cli::{GlobalArgs, ServeArgs};
use crate::commands::run::cannot;
use crate::interrupts::Interrupts;
use crate::output::complain;
use crate::server;
use crate::service::Service;

/// Serves until a signal.
pub(crate) fn serve(global: &GlobalArgs, args: &ServeArgs) -> ExitCode {
    match run(global, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, global.json),
    }
}

fn run(global: &GlobalArgs, args: &ServeArgs) -> Result<(), HostError> {
    let app = App::new(global)?;
    let runtime = app.runtime()?;
    let socket = app.socket();
    // One thread: a VMM is killed by the kernel when the thread that started it ends.
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot("start the event loop"))?;
    waiting.block_on(async {
        let listener = server::bind(&socket).map_err(|error| {
            let cause = format!("cannot listen at {}: {error}", socket.display());
            HostError::new(ErrorCode::StateUnusable, cause)
                .remedy("end the service that listens there, or name another --runtime-dir")
        })?;
        let _removed = Socket(socket.clone());
        let mut interrupts = Interrupts::new().map_err(cannot("watch for signals"))?;
        let service = tokio::select! {
            service = Service::start(app, runtime, args.clone()) => service?,
            _ = interrupts.next() => return Ok(()),
        };
        complain(format_args!("Listening at {}", socket.display()));
        let stop = async move {
            interrupts.next().await;
        };
        let served = server::serve(listener, service.clone(), stop).await;
        service.drain().await;
        served.map_err(cannot("listen"))
    })
}

/// Removes the socket's name.
struct Socket(std::path::PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
