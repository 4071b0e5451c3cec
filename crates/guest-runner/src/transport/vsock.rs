//! vsock: one listener a port, and the host as the only peer.

use std::io;
use std::os::fd::OwnedFd;

use protocol::limits::{CONTROL_PORT, JOB_PORT};
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener};

use crate::serve::Server;

pub(crate) struct Listeners {
    jobs: VsockListener,
    control: VsockListener,
}

impl Listeners {
    pub(crate) fn bind() -> io::Result<Self> {
        Ok(Self {
            jobs: VsockListener::bind_with_cid_port(VMADDR_CID_ANY, JOB_PORT)?,
            control: VsockListener::bind_with_cid_port(VMADDR_CID_ANY, CONTROL_PORT)?,
        })
    }

    pub(crate) fn serve(self, server: &Server) -> io::Result<()> {
        let (control, theirs) = (self.control, server.clone());
        std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(crate::THREAD_STACK)
            .spawn(move || accept(&control, CONTROL_PORT, &theirs))?;
        accept(&self.jobs, JOB_PORT, server)
    }
}

fn accept(listener: &VsockListener, port: u32, server: &Server) -> io::Result<()> {
    loop {
        match listener.accept() {
            // A job could open its own end of vsock.
            Ok((_, peer)) if peer.cid() != VMADDR_CID_HOST => {}
            Ok((stream, _)) => server.accept(port, OwnedFd::from(stream)),
            Err(error) if passes(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether an accept that failed says nothing of the next.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
