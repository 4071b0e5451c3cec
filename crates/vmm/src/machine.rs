//! One virtual machine, whichever VMM runs it: a configuration goes in, a started guest comes out.
//!
//! ```text
//! MachineConfig ──boot──► Running ──shutdown / drop──► gone (process reaped, directory removed)
//!                           └─ the VMM dies ──► failed() resolves; channels end
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::channel::Channel;
use crate::console::Console;
use crate::error::VmmError;
use crate::process::VmmExit;
use crate::state::VmDir;
use crate::{firecracker, qemu};

/// Which VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// Firecracker, on KVM.
    Firecracker,
    /// QEMU's `microvm` machine, on KVM or fully emulated.
    Qemu,
}

impl BackendKind {
    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accel {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator. Slow; for development and trusted networks.
    Tcg,
}

impl Accel {
    /// QEMU's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A VMM that was found on this host, and what it will run guests with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmBinary {
    /// Which VMM.
    pub kind: BackendKind,
    /// The executable.
    pub path: PathBuf,
    /// As the program gives it: major, minor, patch.
    pub version: (u32, u32, u32),
    /// Always [`Accel::Kvm`] for Firecracker.
    pub accel: Accel,
}

/// The root filesystem of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDrive {
    /// Image file, attached read-only as the first disk.
    pub path: PathBuf,
    /// What is in it.
    pub filesystem: Filesystem,
    /// Who is PID 1 when it is up.
    pub init: Init,
}

/// A filesystem that a root image may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// Compressed, read-only; what our own templates are.
    Squashfs,
    /// What foreign images are.
    Ext4,
}

impl Filesystem {
    /// The name that mount(2) takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Ext4 => "ext4",
        }
    }
}

/// Who is PID 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// guest-runner, from the initramfs; the image is only the jobs' root.
    Runner,
    /// The image's own init, which starts guest-runner as a service.
    System,
}

/// Everything a machine is made of.
#[derive(Debug)]
pub struct MachineConfig {
    /// The machine's private directory; it is gone when the machine is.
    pub dir: VmDir,
    /// Uncompressed kernel, ELF `vmlinux`.
    pub kernel: PathBuf,
    /// Uncompressed or compressed cpio, whose `/init` is normally guest-runner. Any other will do: a machine makes no
    /// assumption about what its guest says.
    pub initramfs: Option<PathBuf>,
    /// The first disk. `None` makes a machine that can only show that its kernel starts.
    pub root: Option<RootDrive>,
    /// A formatted image file, copied sparsely into `dir` and attached read-write as the second disk.
    pub scratch: Option<PathBuf>,
    /// Virtual processors, 1 to 32.
    pub vcpus: u8,
    /// Guest memory in MiB, at least 128.
    pub memory_mib: u32,
    /// The guest's vsock address (Firecracker); 3 is the first that a guest may have.
    pub cid: u32,
    /// Appended to the kernel's command line; the last of two contradicting parameters wins.
    pub extra_kernel_args: Vec<String>,
    /// Copy the whole console to this file (up to [`crate::console::MAX_KEPT`]), and let the kernel say more on it.
    pub keep_console: Option<PathBuf>,
}

impl MachineConfig {
    /// The vCPUs a machine may have.
    pub const VCPUS: std::ops::RangeInclusive<u8> = 1..=32;
    /// The least memory that a guest with an initramfs starts with, in MiB.
    pub const MIN_MEMORY_MIB: u32 = 128;

    /// Checks the bounds that need no file to be read.
    ///
    /// # Errors
    /// [`VmmError::Config`].
    pub fn validate(&self) -> Result<(), VmmError> {
        if !Self::VCPUS.contains(&self.vcpus) {
            return Err(VmmError::Config(format!("{} vCPUs: not in 1 to 32", self.vcpus)));
        }
        if self.memory_mib < Self::MIN_MEMORY_MIB {
            return Err(VmmError::Config(format!(
                "{} MiB of memory: less than {}",
                self.memory_mib,
                Self::MIN_MEMORY_MIB
            )));
        }
        if self.cid < 3 {
            return Err(VmmError::Config(format!("CID {}: 0 to 2 are reserved", self.cid)));
        }
        Ok(())
    }
}

/// Where the host's part of a boot went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BootTimings {
    /// Process spawned until it takes commands.
    pub vmm_spawn: Duration,
    /// Telling it what machine to make, up to the guest's start. Zero where the command line says it all.
    pub configure: Duration,
}

/// How a machine ended.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// The guest ended by itself when asked to; otherwise its VMM was killed.
    pub graceful: bool,
    /// From the request to the process being reaped.
    pub took: Duration,
    /// The VMM's exit.
    pub exit: VmmExit,
}

/// A started machine. Dropping it kills and reaps the VMM and removes the machine's directory.
#[derive(Debug)]
pub enum Machine {
    /// On Firecracker.
    Firecracker(firecracker::Vm),
    /// On QEMU.
    Qemu(qemu::Vm),
}

impl Machine {
    /// Starts a guest; it has not necessarily got anywhere when this returns.
    ///
    /// # Errors
    /// Whatever kept the VMM from starting the guest; nothing is left behind then.
    pub async fn boot(vmm: &VmmBinary, config: MachineConfig) -> Result<Self, VmmError> {
        config.validate()?;
        match vmm.kind {
            BackendKind::Firecracker => Ok(Self::Firecracker(firecracker::Vm::boot(vmm, config).await?)),
            BackendKind::Qemu => Ok(Self::Qemu(qemu::Vm::boot(vmm, config).await?)),
        }
    }

    /// Connects to a port of the guest-runner, waiting for the guest to listen until `deadline` where the backend can tell
    /// (QEMU cannot: there the connection's first answer shows it).
    ///
    /// # Errors
    /// [`VmmError::Silent`] at the deadline, [`VmmError::Died`] as soon as the VMM is gone.
    pub async fn connect(&self, port: u32, deadline: Instant) -> Result<Channel, VmmError> {
        match self {
            Self::Firecracker(vm) => vm.connect(port, deadline).await,
            Self::Qemu(vm) => vm.connect(port, deadline).await,
        }
    }

    /// The guest's serial console.
    #[must_use]
    pub fn console(&self) -> Console {
        match self {
            Self::Firecracker(vm) => vm.console(),
            Self::Qemu(vm) => vm.console(),
        }
    }

    /// Where the host's part of the boot went.
    #[must_use]
    pub fn boot_timings(&self) -> BootTimings {
        match self {
            Self::Firecracker(vm) => vm.boot_timings(),
            Self::Qemu(vm) => vm.boot_timings(),
        }
    }

    /// The VMM's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self {
            Self::Firecracker(vm) => vm.pid(),
            Self::Qemu(vm) => vm.pid(),
        }
    }

    /// Waits for the VMM's process to end. May be dropped and called again.
    pub async fn exited(&self) -> VmmExit {
        match self {
            Self::Firecracker(vm) => vm.exited().await,
            Self::Qemu(vm) => vm.exited().await,
        }
    }

    /// Waits until the machine cannot go on: its VMM is gone ([`VmmError::Died`]), or the host has no room for what the
    /// guest writes ([`VmmError::DiskFull`], where the VMM tells). May be dropped and called again.
    pub async fn failed(&self) -> VmmError {
        match self {
            Self::Firecracker(vm) => vm.failed().await,
            Self::Qemu(vm) => vm.failed().await,
        }
    }

    /// Ends the machine: politely where that is quick, by force otherwise. Everything it had is released on return.
    pub async fn shutdown(self) -> Shutdown {
        match self {
            Self::Firecracker(vm) => vm.shutdown().await,
            Self::Qemu(vm) => vm.shutdown().await,
        }
    }
}
