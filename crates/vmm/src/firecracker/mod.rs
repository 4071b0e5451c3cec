//! Firecracker: configured over its API socket, reached over its vsock.

use std::time::Instant;

use crate::channel::Channel;
use crate::console::Console;
use crate::error::VmmError;
use crate::machine::{BootTimings, MachineConfig, Shutdown, VmmBinary};
use crate::process::{VmmExit, VmmProcess};

/// A machine on Firecracker.
#[derive(Debug)]
pub struct Vm {
    process: VmmProcess,
    timings: BootTimings,
}

impl Vm {
    pub(crate) async fn boot(_vmm: &VmmBinary, _config: MachineConfig) -> Result<Self, VmmError> {
        Err(VmmError::Config("Firecracker is not driven yet".to_owned()))
    }

    pub(crate) async fn connect(&self, _port: u32, _deadline: Instant) -> Result<Channel, VmmError> {
        Err(VmmError::Config("Firecracker is not driven yet".to_owned()))
    }

    pub(crate) fn console(&self) -> Console {
        self.process.console()
    }

    pub(crate) fn boot_timings(&self) -> BootTimings {
        self.timings
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) async fn exited(&self) -> VmmExit {
        self.process.exited().await
    }

    pub(crate) async fn failed(&self) -> VmmError {
        self.process.died().await
    }

    pub(crate) async fn shutdown(self) -> Shutdown {
        self.process.kill();
        Shutdown {
            graceful: false,
            took: std::time::Duration::ZERO,
            exit: self.process.exited().await,
        }
    }
}
