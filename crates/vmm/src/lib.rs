//! Drives the virtual machine monitors.
//!
//! ```text
//! probe::detect ─► VmmBinary ─┐
//! state::RuntimeDir ─► VmDir ─┴─► Machine::boot ─► connect(port) ─► Channel ◄─bytes─► guest-runner
//!                                  │  ▲  │             console(), failed()
//!                                  │  │  └─► shutdown(), or drop: process, sockets, directory, all gone
//!                       snapshot() ▼  │ restore(), or Prespawned::{spawn, restore}
//!                               SnapshotFiles
//! ```
//!
//! Only this crate knows a VMM's flags or JSON. What it hands out is the same for both backends; what a guest wrote is
//! passed on as bytes, bounded but not believed.

pub mod arch;
pub mod channel;
pub mod console;
mod disks;
pub mod error;
pub mod firecracker;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod jail;
pub mod machine;
pub mod probe;
pub mod process;
pub mod qemu;
pub mod snapshot;
pub mod state;

pub use channel::Channel;
pub use console::Console;
pub use error::VmmError;
pub use jail::{Isolation, Layer, UidRange};
pub use machine::{
    Accel, BackendKind, BootTimings, Filesystem, Init, Machine, MachineConfig, Prespawned, RestoreConfig,
    RestoreTimings, RootDrive, Shutdown, VmmBinary, layers,
};
pub use process::VmmExit;
pub use snapshot::{SnapshotFile, SnapshotFiles};
pub use state::{RuntimeDir, VmDir, VmId};
