//! `host-agent serve`: machines kept ready, and jobs over a Unix socket.

use std::process::ExitCode;

use protocol::{ErrorCode, HostError};
use tokio::sync::watch;

use super::fail;
use crate::app::App;
use crate::cli::{GlobalArgs, ServeArgs};
use crate::commands::run::cannot;
use crate::interrupts::Interrupts;
use crate::keys::since_epoch;
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
        let keyring = app.keyring();
        let mut ports = Vec::new();
        for address in &args.listen {
            ports.push(server::bind_tcp(*address).await?);
        }
        if !ports.is_empty() && !keyring.current()?.any_good(since_epoch()) {
            let cause = "--listen is for clients with a key, and there is none";
            return Err(HostError::new(ErrorCode::Unauthorized, cause)
                .remedy("make one with `host-agent api-key create NAME`"));
        }
        let service = tokio::select! {
            service = Service::start(app, runtime, args.clone()) => service?,
            _ = interrupts.next() => return Ok(()),
        };
        for port in &ports {
            if let Ok(address) = port.local_addr() {
                complain(format_args!(
                    "Listening at http://{address}, for clients with a key"
                ));
            }
        }
        complain(format_args!("Listening at {}", socket.display()));
        let (stop, stopped) = watch::channel(false);
        let served = server::serve(listener, ports, keyring, service.clone(), stopped);
        let signalled = async {
            interrupts.next().await;
            service.stop();
            let _ = stop.send(true);
            std::future::pending().await
        };
        let served = tokio::select! {
            served = served => served,
            never = signalled => never,
        };
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
