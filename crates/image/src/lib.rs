//! What a microVM boots from. Debian packages come in; a kernel as ELF, its modules, an initramfs around the
//! guest-runner, squashfs root filesystems and a formatted scratch disk come out, all in one [`Store`]. Beside them are [`snapshot`]s of
//! machines, signed with the keys of [`signing`].
//!
//! Everything here blocks. Progress goes to the caller's closure; nothing is printed.

mod command;
mod cpio;
mod digest;
mod error;
mod extract;
mod filesystem;
mod firecracker_release;
mod fresh;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod guarded;
mod initramfs;
mod inject;
mod kernel;
mod mirror;
mod mmdebstrap;
mod modules;
mod progress;
mod rootfs;
mod scratch;
pub mod signing;
pub mod snapshot;
mod store;
mod sum;
mod template;
mod tools;
mod tuned;

pub use cpio::Cpio;
pub use error::ImageError;
pub use filesystem::{RootFilesystem, identify};
pub use firecracker_release::{FIRECRACKER_RELEASES, FirecrackerRelease, InstalledFirecracker};
pub use fresh::publish_file;
pub use guarded::Unsafe;
pub use inject::{GuestService, Injected, inject_guest_runner};
pub use kernel::KernelChoice;
pub use progress::{Progress, Unit};
pub use store::{Artefacts, BootFiles, Prepared, Store, Want};
pub use sum::{NotHexadecimal, Sha256Sum};
pub use template::{BUILT_IN, Package, TemplateManifest, template_for_language};
pub use tools::{Purpose, Tool, install_command, missing, required};
