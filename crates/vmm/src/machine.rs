//! One virtual machine, whichever VMM runs it: a configuration goes in, a started guest comes out.
//!
//! ```text
//! MachineConfig ─────────────boot─────────────► Running ──shutdown / drop──► gone (process reaped, directory removed)
//! RestoreConfig ─spawn─► Prespawned ─restore─►    │ └─ the VMM dies ──► failed() resolves; channels end
//!       ▲                                         └─ snapshot ──► gone; SnapshotFiles
//!       └────────────────────── any number of times ────────────────────┘
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::channel::Channel;
use crate::console::Console;
use crate::error::VmmError;
use crate::jail::Layer;
use crate::process::VmmExit;
use crate::snapshot::{SnapshotFile, SnapshotFiles};
use crate::state::{RuntimeDir, VmDir, VmId};
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

impl VmmBinary {
    /// Counts the changes to what a machine is made of here, other than by its configuration: a snapshot fits only the devices
    /// that it was made with.
    const LAYOUT: u32 = 1;

    /// What a snapshot made with this VMM needs of the one that restores it, as one line: they fit if the lines are equal.
    ///
    /// Neither Firecracker nor QEMU (whose `microvm` has no versions of its own) promises that another version of theirs reads
    /// a snapshot. What the processor has to be is in [`crate::arch::cpu_identity`].
    #[must_use]
    pub fn identity(&self) -> String {
        let (major, minor, patch) = self.version;
        let (kind, accel, layout) = (self.kind, self.accel, Self::LAYOUT);
        format!("{kind} {major}.{minor}.{patch} {accel} layout {layout}")
    }
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
    /// The existing directory that [`Machine::snapshot`] is to write to, in a filesystem with room for the guest's memory
    /// (QEMU keeps it there from the start). Without one the machine cannot be snapshotted.
    pub snapshot_dir: Option<PathBuf>,
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
        check_bounds(self.vcpus, self.memory_mib)?;
        if self.cid < 3 {
            return Err(VmmError::Config(format!("CID {}: 0 to 2 are reserved", self.cid)));
        }
        Ok(())
    }
}

fn check_bounds(vcpus: u8, memory_mib: u32) -> Result<(), VmmError> {
    const LEAST: u32 = MachineConfig::MIN_MEMORY_MIB;
    if !MachineConfig::VCPUS.contains(&vcpus) {
        return Err(VmmError::Config(format!("{vcpus} vCPUs: not in 1 to 32")));
    }
    if memory_mib < LEAST {
        return Err(VmmError::Config(format!(
            "{memory_mib} MiB of memory: less than {LEAST}"
        )));
    }
    Ok(())
}

/// What a machine is made of that goes on where a snapshot was taken. All but the directory and the console has to be what
/// the snapshot was made with.
///
/// The guest's vsock address is in the snapshot, so that all clones have the same: each has a socket of its own on the host.
#[derive(Debug)]
pub struct RestoreConfig {
    /// The machine's private directory; it is gone when the machine is.
    pub dir: VmDir,
    /// The guest's memory, mapped copy-on-write. No VMM gets it opened for writing, not even a QEMU that asks for that.
    pub memory: SnapshotFile,
    /// Processors and devices.
    pub state: SnapshotFile,
    /// The first disk.
    pub root: Option<RootDrive>,
    /// The scratch disk as it was when the machine was frozen, which may have it mounted: copied sparsely into `dir` and attached
    /// read-write as the second disk.
    pub scratch: Option<SnapshotFile>,
    /// Virtual processors, 1 to 32.
    pub vcpus: u8,
    /// Guest memory in MiB, at least 128.
    pub memory_mib: u32,
    /// Copy the whole console to this file (up to [`crate::console::MAX_KEPT`]).
    pub keep_console: Option<PathBuf>,
}

impl RestoreConfig {
    /// Checks what can be told without a VMM.
    pub(crate) fn validate(&self) -> Result<(), VmmError> {
        check_bounds(self.vcpus, self.memory_mib)?;
        crate::snapshot::check(&self.memory, &self.state, self.memory_mib)
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

/// Where the time of a restore went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreTimings {
    /// Process spawned until it takes commands; some time ago, where it was spawned ahead.
    pub vmm_spawn: Duration,
    /// Told to restore, until the guest runs.
    pub load: Duration,
}

/// How a machine came to run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Started {
    Booted(BootTimings),
    Restored(RestoreTimings),
}

impl Started {
    fn boot(self) -> BootTimings {
        match self {
            Self::Booted(timings) => timings,
            Self::Restored(_) => BootTimings::default(),
        }
    }

    fn restore(self) -> Option<RestoreTimings> {
        match self {
            Self::Booted(_) => None,
            Self::Restored(timings) => Some(timings),
        }
    }
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

    /// Starts a guest where a snapshot was taken: [`Prespawned::spawn`] and [`Prespawned::restore`] in one, and a little faster.
    ///
    /// # Errors
    /// As those two.
    pub async fn restore(
        vmm: &VmmBinary,
        config: RestoreConfig,
        deadline: Instant,
    ) -> Result<Self, VmmError> {
        config.validate()?;
        match vmm.kind {
            BackendKind::Firecracker => {
                let spawned = firecracker::Prespawned::spawn(vmm, config).await?;
                Ok(Self::Firecracker(spawned.restore(deadline).await?))
            }
            BackendKind::Qemu => Ok(Self::Qemu(qemu::Vm::restore(vmm, config, deadline).await?)),
        }
    }

    /// Freezes the guest into `memory`, `state` and `scratch` in the directory that [`MachineConfig::snapshot_dir`] named, and ends the
    /// machine. Connections to the guest should be closed before: what is under way on them is lost. Half a second later the
    /// guest has come to rest; what it still had to do, every clone would have to do again.
    ///
    /// # Errors
    /// [`VmmError::Config`] for a machine that was not made for it; [`VmmError::Refused`], [`VmmError::Died`],
    /// [`VmmError::DiskFull`]; [`VmmError::Unanswered`] at the deadline. Nothing is left behind then.
    pub async fn snapshot(self, deadline: Instant) -> Result<SnapshotFiles, VmmError> {
        match self {
            Self::Firecracker(vm) => vm.snapshot(deadline).await,
            Self::Qemu(vm) => vm.snapshot(deadline).await,
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

    /// Where the host's part of the boot went; nowhere, if the machine was restored.
    #[must_use]
    pub fn boot_timings(&self) -> BootTimings {
        self.started().boot()
    }

    /// Where the time of the restore went, if the machine was restored.
    #[must_use]
    pub fn restore_timings(&self) -> Option<RestoreTimings> {
        self.started().restore()
    }

    fn started(&self) -> Started {
        match self {
            Self::Firecracker(vm) => vm.started(),
            Self::Qemu(vm) => vm.started(),
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

    /// The layers of isolation that its VMM is in.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        match self {
            Self::Firecracker(vm) => vm.layers(),
            Self::Qemu(vm) => vm.layers(),
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

/// A VMM that waits to be told to restore, so that only the restore itself is left to do. It has its scratch disk already,
/// and belongs to one snapshot. Dropping it kills and reaps it and removes the machine's directory.
#[derive(Debug)]
pub enum Prespawned {
    /// Firecracker, at its API socket.
    Firecracker(firecracker::Prespawned),
    /// QEMU, with its machine made and its guest's memory mapped.
    Qemu(qemu::Prespawned),
}

impl Prespawned {
    /// Starts a VMM for a clone of a snapshot, and waits until it takes commands.
    ///
    /// Call this from a thread that lives as long as the machine should: the kernel ends the VMM with it.
    ///
    /// # Errors
    /// [`VmmError::Snapshot`] for files that cannot be right, and whatever keeps the VMM from starting; nothing is left behind
    /// then.
    pub async fn spawn(vmm: &VmmBinary, config: RestoreConfig) -> Result<Self, VmmError> {
        config.validate()?;
        match vmm.kind {
            BackendKind::Firecracker => Ok(Self::Firecracker(
                firecracker::Prespawned::spawn(vmm, config).await?,
            )),
            BackendKind::Qemu => Ok(Self::Qemu(qemu::Prespawned::spawn(vmm, config).await?)),
        }
    }

    /// Loads the snapshot; the guest runs when this returns.
    ///
    /// # Errors
    /// [`VmmError::Snapshot`] with the VMM's words when it does not take the snapshot; [`VmmError::Unanswered`] at the
    /// deadline; [`VmmError::Died`] when something killed it. Nothing is left behind then.
    pub async fn restore(self, deadline: Instant) -> Result<Machine, VmmError> {
        match self {
            Self::Firecracker(spawned) => Ok(Machine::Firecracker(spawned.restore(deadline).await?)),
            Self::Qemu(spawned) => Ok(Machine::Qemu(spawned.restore(deadline).await?)),
        }
    }

    /// The VMM's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self {
            Self::Firecracker(spawned) => spawned.pid(),
            Self::Qemu(spawned) => spawned.pid(),
        }
    }

    /// Waits until the VMM is gone. May be dropped and called again.
    pub async fn failed(&self) -> VmmError {
        match self {
            Self::Firecracker(spawned) => spawned.failed().await,
            Self::Qemu(spawned) => spawned.failed().await,
        }
    }
}

/// The layers that machines of this VMM have, as one shows that is started for that.
///
/// # Errors
/// [`VmmError::Isolation`] for a layer that cannot be had and may not be left out, and whatever else keeps the VMM from starting.
pub async fn layers(vmm: &VmmBinary, runtime: &RuntimeDir) -> Result<Vec<Layer>, VmmError> {
    let dir = runtime.create(VmId::random()?)?;
    match vmm.kind {
        BackendKind::Firecracker => firecracker::layers(vmm, dir).await,
        BackendKind::Qemu => qemu::layers(vmm, dir).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmm_s_identity_is_one_stable_line() {
        let vmm = VmmBinary {
            kind: BackendKind::Qemu,
            path: "/usr/bin/qemu".into(),
            version: (7, 2, 22),
            accel: Accel::Tcg,
        };
        assert_eq!(vmm.identity(), "qemu 7.2.22 tcg layout 1");
    }
}
