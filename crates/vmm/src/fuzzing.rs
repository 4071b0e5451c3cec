//! What the fuzz targets call: whatever reads bytes of a guest or a VMM, fed from memory instead of sockets and files. With the
//! feature `fuzzing` only.

use crate::{console, disks};

pub use crate::firecracker::fuzzing::{
    HttpAnswer, MAX_HTTP_ANSWER, handshake, http_answer, metrics, version,
};
pub use crate::qemu::fuzzing::{QmpSeen, qmp};

/// The longest line that [`printable`] gives, in characters.
pub const MAX_CONSOLE_LINE: usize = console::MAX_LINE;

/// A line of a guest's console, fit to be shown.
#[must_use]
pub fn printable(line: &str) -> String {
    console::printable(line)
}

/// The bytes that a squashfs image has, by its first 2 KiB.
///
/// # Errors
/// It is none.
pub fn squashfs_size(start: &[u8]) -> Result<u64, String> {
    disks::squashfs_size(start)
}

/// The bytes that an ext4 image has, by its first 2 KiB.
///
/// # Errors
/// It is none.
pub fn ext4_size(start: &[u8]) -> Result<u64, String> {
    disks::ext4_size(start)
}

/// That a file of `length` bytes, which begins like that, is a kernel and whole.
///
/// # Errors
/// It is not.
pub fn check_elf(start: &[u8], length: u64) -> Result<(), String> {
    disks::check_elf(start, length)
}
