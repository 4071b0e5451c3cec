//! QEMU's `microvm` machine, on KVM or emulated.
//!
//! ```text
//! MachineConfig ─► args ─► qemu-system-x86_64 ── serial port (stdout) ─► Console
//!                               │  ├─ virtio-serial port "runner" ◄─mux─► Port ◄─► Channel…
//!                               │  └─ QMP: up? out of disk?
//!                               └─ virtio-blk: root (read-only), scratch
//! ```
//!
//! Everything QEMU needs is on its command line and in inherited descriptors: no socket has a name.

mod args;
mod port;
mod qmp;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::time::{timeout, timeout_at};

use self::args::Wiring;
use self::port::Port;
use self::qmp::Monitor;
use crate::channel::Channel;
use crate::console::Console;
use crate::error::VmmError;
use crate::machine::{BackendKind, BootTimings, MachineConfig, Shutdown, VmmBinary};
use crate::process::{VmmExit, VmmProcess};
use crate::state::VmDir;
use crate::{arch, disks};

pub(crate) use self::port::MuxStream;

/// How long QEMU may take to load kernel and initramfs and to take commands.
const START: Duration = Duration::from_secs(20);

/// A machine on QEMU.
// The order is that of release: the process, then what it was connected to, its directory last.
#[derive(Debug)]
pub struct Vm {
    process: VmmProcess,
    port: Port,
    monitor: Monitor,
    timings: BootTimings,
    scratch: Option<PathBuf>,
    dir: VmDir,
}

impl Vm {
    pub(crate) async fn boot(vmm: &VmmBinary, mut config: MachineConfig) -> Result<Self, VmmError> {
        let began = Instant::now();
        let scratch = disks::prepare(&config)?;
        let (port, their_port) = pair()?;
        let (qmp, their_qmp) = pair()?;
        let wiring = Wiring {
            port: their_port.as_raw_fd(),
            qmp: their_qmp.as_raw_fd(),
        };
        let kernel_args = arch::kernel_command_line(BackendKind::Qemu, vmm.accel, arch::tsc_khz(), &config);
        let mut command = Command::new(&vmm.path);
        command.args(args::arguments(
            vmm.accel,
            &kernel_args,
            &config,
            scratch.as_deref(),
            wiring,
        )?);
        let configured = Instant::now();

        let process = VmmProcess::spawn(
            command,
            vec![their_port, their_qmp],
            config.keep_console.as_deref(),
        )?;
        config.dir.record_process(process.pid())?;
        let port = Port::open(port);
        let monitor = tokio::select! {
            connected = timeout(START, Monitor::connect(qmp)) => {
                connected.map_err(|_| VmmError::Silent { what: "QEMU", after: START })
            }
            error = process.died() => Err(error),
        };
        let monitor = match monitor {
            Ok(Ok(monitor)) => monitor,
            // A monitor that breaks off is the sign of a QEMU that is about to say why.
            Ok(Err(error)) => return Err(timeout(START, process.died()).await.unwrap_or(error).at_start()),
            Err(error) => return Err(error.at_start()),
        };
        let timings = BootTimings {
            configure: configured - began,
            vmm_spawn: configured.elapsed(),
        };
        Ok(Self {
            process,
            port,
            monitor,
            timings,
            scratch,
            dir: config.dir,
        })
    }

    pub(crate) async fn connect(&self, port: u32, deadline: Instant) -> Result<Channel, VmmError> {
        match self.port.connect(port) {
            Ok(stream) => Ok(stream.into()),
            Err(error) if self.port.is_open() => Err(error),
            // The port ends with its VMM, or because of its guest; which of the two shows in a moment.
            Err(error) => Err(timeout_at(deadline.into(), self.failed()).await.unwrap_or(error)),
        }
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
        tokio::select! {
            error = self.process.died() => error,
            () = self.monitor.out_of_disk() => {
                VmmError::DiskFull(self.scratch.clone().unwrap_or_else(|| self.dir.path().to_owned()))
            }
            error = self.port.broken() => error,
        }
    }

    /// The machine is not used again, so there is nothing for QEMU to tidy up.
    pub(crate) async fn shutdown(self) -> Shutdown {
        let began = Instant::now();
        self.process.kill();
        let exit = self.process.exited().await;
        Shutdown {
            graceful: false,
            took: began.elapsed(),
            exit,
        }
    }
}

/// Our end of a connection, and the one that QEMU inherits.
fn pair() -> Result<(UnixStream, OwnedFd), VmmError> {
    let pair = || {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs.into()))
    };
    pair().map_err(|source| VmmError::Interface {
        what: "a socket pair",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::machine::Accel;
    use crate::state::{RuntimeDir, VmId};

    #[tokio::test]
    async fn a_qemu_that_does_not_start_says_why_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = dir.path().join("qemu");
        fs::write(&qemu, "#!/bin/sh\necho 'unsupported machine type' >&2\nexit 1\n").unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        let kernel = dir.path().join("vmlinux");
        fs::write(&kernel, disks::tests::elf(200)).unwrap();
        let runtime = RuntimeDir::open(dir.path().join("run")).unwrap();
        let config = MachineConfig {
            dir: runtime.create(VmId::random().unwrap()).unwrap(),
            kernel,
            initramfs: None,
            root: None,
            scratch: None,
            vcpus: 1,
            memory_mib: 128,
            cid: 3,
            extra_kernel_args: Vec::new(),
            keep_console: None,
        };
        let vmm = VmmBinary {
            kind: BackendKind::Qemu,
            path: qemu,
            version: (7, 2, 0),
            accel: Accel::Tcg,
        };
        let error = Vm::boot(&vmm, config).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "The VMM did not start: exit status: 1: unsupported machine type"
        );
        assert_eq!(fs::read_dir(runtime.path().join("vms")).unwrap().count(), 0);
    }
}
