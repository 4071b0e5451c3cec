//! How the host reaches the runner. All kinds end in one stream socket a connection, with the port it was opened to.

mod serial;
mod unix;
mod vsock;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock;
use crate::cmdline::TransportKind;
use crate::serve::Server;

/// The name of the runner's virtio-serial port.
const PORT_NAME: &str = "runner";
const PORTS: &str = "/sys/class/virtio-ports";

/// A transport that is open and takes connections.
pub(crate) enum Transport {
    Serial(File),
    Vsock(vsock::Listeners),
    Unix(unix::Listener),
}

impl Transport {
    /// Opens the transport of that kind. The device may take up to `patience` to appear.
    pub(crate) fn open(kind: TransportKind, patience: Duration) -> io::Result<Self> {
        match kind {
            TransportKind::Serial => Ok(Self::Serial(retry(patience, serial::open)?)),
            TransportKind::Vsock => Ok(Self::Vsock(retry(patience, vsock::Listeners::bind)?)),
        }
    }

    /// Opens the serial port where there is one, else vsock.
    pub(crate) fn find(patience: Duration) -> io::Result<Self> {
        Self::open(TransportKind::Serial, patience).or_else(|_| Self::open(TransportKind::Vsock, patience))
    }

    /// A Unix socket that takes connections as Firecracker's does, for trying the runner without a machine.
    pub(crate) fn unix(path: PathBuf) -> io::Result<Self> {
        Ok(Self::Unix(unix::Listener::bind(&path)?))
    }

    /// Hands connections to `server` for as long as the transport works.
    pub(crate) fn serve(self, server: &Server) -> io::Result<()> {
        match self {
            Self::Serial(port) => serial::serve(port, server),
            Self::Vsock(listeners) => listeners.serve(server),
            Self::Unix(listener) => listener.serve(server),
        }
    }
}

fn retry<T>(patience: Duration, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = clock::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt() {
            Err(_) if clock::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            outcome => return outcome,
        }
    }
}
