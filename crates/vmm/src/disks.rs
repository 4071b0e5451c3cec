//! The files a machine is made of: looked at before a VMM gets them, because a truncated one shows only as a guest that
//! never answers; and the scratch disk, a sparse copy that is the machine's own.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use rustix::fs::SeekFrom as Region;
use rustix::io::Errno;

use crate::arch;
use crate::error::VmmError;
use crate::machine::{Filesystem, MachineConfig, RootDrive};

/// The name of the scratch disk in the machine's directory.
const SCRATCH: &str = "scratch.ext4";
/// Bytes from the start of a disk image that hold the superblock of either filesystem.
const SUPERBLOCK: usize = 2048;

/// Checks kernel, initramfs and root, and makes the scratch disk in `dir`; gives its path.
///
/// # Errors
/// [`VmmError::KernelMissing`], [`VmmError::DiskMissing`], [`VmmError::Image`], [`VmmError::DiskFull`].
pub(crate) fn prepare(config: &MachineConfig, dir: &Path) -> Result<Option<PathBuf>, VmmError> {
    check_kernel(&config.kernel)?;
    if let Some(initramfs) = &config.initramfs {
        open(initramfs, VmmError::KernelMissing)?;
    }
    prepare_disks(config.root.as_ref(), config.scratch.as_deref(), dir)
}

/// The same for a machine that boots nothing.
///
/// # Errors
/// [`VmmError::DiskMissing`], [`VmmError::Image`], [`VmmError::DiskFull`].
pub(crate) fn prepare_disks(
    root: Option<&RootDrive>,
    scratch: Option<&Path>,
    dir: &Path,
) -> Result<Option<PathBuf>, VmmError> {
    if let Some(root) = root {
        check_disk(&root.path, root.filesystem)?;
    }
    scratch.map(|template| copy_scratch(template, dir)).transpose()
}

fn check_kernel(path: &Path) -> Result<(), VmmError> {
    let (file, length) = open(path, VmmError::KernelMissing)?;
    let checked = check_elf(&ReadCache::new(file), length);
    checked.map_err(|reason| VmmError::Image {
        path: path.to_owned(),
        reason,
    })
}

fn check_disk(path: &Path, filesystem: Filesystem) -> Result<(), VmmError> {
    let (file, length) = open(path, VmmError::DiskMissing)?;
    let start = read_up_to(&file, 0, SUPERBLOCK);
    let checked = match filesystem {
        Filesystem::Squashfs => squashfs_size(&start),
        Filesystem::Ext4 => ext4_size(&start),
    };
    let checked = checked.and_then(|size| holds(size, length));
    checked.map_err(|reason| VmmError::Image {
        path: path.to_owned(),
        reason,
    })
}

fn open(path: &Path, missing: fn(PathBuf) -> VmmError) -> Result<(File, u64), VmmError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(path.to_owned()),
        _ => VmmError::state("read", path, error),
    })?;
    let length = file
        .metadata()
        .map_err(|error| VmmError::state("read", path, error))?
        .len();
    Ok((file, length))
}

/// What there is of `length` bytes at `offset`; the checks see a shorter piece as truncation.
fn read_up_to(file: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) | Err(_) => break,
            Ok(read) => filled += read,
        }
    }
    bytes.truncate(filled);
    bytes
}

fn holds(size: u64, length: u64) -> Result<(), String> {
    if size <= length {
        Ok(())
    } else {
        Err(format!("it has {length} bytes of {size}"))
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The bytes that a squashfs 4.0 has by its superblock (Documentation/filesystems/squashfs.rst).
pub(crate) fn squashfs_size(start: &[u8]) -> Result<u64, String> {
    let used = u64_at(start, 40).filter(|_| start.starts_with(b"hsqs"));
    used.ok_or_else(|| "it is no squashfs image".to_owned())
}

/// The bytes that an ext2, 3 or 4 filesystem has by its superblock (Documentation/filesystems/ext4/super.rst).
pub(crate) fn ext4_size(start: &[u8]) -> Result<u64, String> {
    const FEATURE_INCOMPAT_64BIT: u32 = 0x80;
    /// The largest block has 64 KiB.
    const MAX_LOG_BLOCK: u32 = 6;
    let parse = || {
        let superblock = start
            .get(1024..)
            .filter(|superblock| u16_at(superblock, 0x38) == Some(0xef53))?;
        let low = u64::from(u32_at(superblock, 0x04)?);
        let high = u64::from(u32_at(superblock, 0x150)?);
        let wide = u32_at(superblock, 0x60)? & FEATURE_INCOMPAT_64BIT != 0;
        let blocks = if wide { high << 32 | low } else { low };
        let log_block = u32_at(superblock, 0x18).filter(|log| *log <= MAX_LOG_BLOCK)?;
        blocks.checked_mul(1024 << log_block).filter(|size| *size > 0)
    };
    parse().ok_or_else(|| "it is no ext4 image".to_owned())
}

/// Checks that a file is a kernel that a VMM can load directly: a 64-bit ELF executable, all of whose segments are there.
pub(crate) fn check_elf<'data>(data: impl ReadRef<'data>, length: u64) -> Result<(), String> {
    let parsed = FileHeader64::<LittleEndian>::parse(data).ok();
    let header = parsed.filter(|header| header.e_machine.get(LittleEndian) == arch::ELF_MACHINE);
    let header = header.ok_or("it is no uncompressed kernel (ELF vmlinux) for this processor")?;
    let truncated = || format!("its {length} bytes end before its segments do");
    let segments = header
        .program_headers(LittleEndian, data)
        .map_err(|_| truncated())?;
    let ends = segments.iter().map(|segment| {
        let (start, size) = segment.file_range(LittleEndian);
        start.checked_add(size)
    });
    if segments.is_empty() || ends.into_iter().any(|end| end.is_none_or(|end| end > length)) {
        return Err(truncated());
    }
    Ok(())
}

/// Copies the scratch disk of the machine in `dir`, if it has one, to `path`.
///
/// # Errors
/// [`VmmError::State`], [`VmmError::DiskFull`].
pub(crate) fn keep_scratch(dir: &Path, path: &Path) -> Result<bool, VmmError> {
    let scratch = dir.join(SCRATCH);
    // The directory may be the VMM's own: a link in it would be its doing.
    let found = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&scratch);
    let from = match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found.map_err(|error| VmmError::state("read", &scratch, error))?,
    };
    let found = from.metadata();
    let found = found.map_err(|error| VmmError::state("read", &scratch, error))?;
    if !found.is_file() {
        return Err(VmmError::DiskMissing(scratch));
    }
    copy(&from, found.len(), path)?;
    Ok(true)
}

/// Makes the machine's own disk of the template.
fn copy_scratch(template: &Path, dir: &Path) -> Result<PathBuf, VmmError> {
    let (from, length) = open(template, VmmError::DiskMissing)?;
    let start = read_up_to(&from, 0, SUPERBLOCK);
    ext4_size(&start)
        .and_then(|size| holds(size, length))
        .map_err(|reason| VmmError::Image {
            path: template.to_owned(),
            reason,
        })?;
    let path = dir.join(SCRATCH);
    copy(&from, length, &path)?;
    Ok(path)
}

/// Copies what is not a hole; shares the blocks where the filesystem can.
fn copy(from: &File, length: u64, path: &Path) -> Result<(), VmmError> {
    let copy = || {
        let to = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        to.set_len(length)?;
        copy_data(from, &to, length)
    };
    copy().map_err(|error: io::Error| VmmError::state("write", path, error))
}

fn copy_data(mut from: &File, mut to: &File, length: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut end = 0;
    loop {
        let start = match rustix::fs::seek(from, Region::Data(end)) {
            Ok(start) if start < length => start,
            Ok(_) | Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        end = rustix::fs::seek(from, Region::Hole(start))?.min(length);
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        io::copy(&mut from.take(end - start), &mut to)?;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn superblock(fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; SUPERBLOCK];
        for (offset, field) in fields {
            bytes[*offset..offset + field.len()].copy_from_slice(field);
        }
        bytes
    }

    fn ext4(blocks: u32, log_block: u32, incompat: u32, high: u32) -> Vec<u8> {
        superblock(&[
            (1024 + 0x38, &0xef53_u16.to_le_bytes()),
            (1024 + 0x04, &blocks.to_le_bytes()),
            (1024 + 0x18, &log_block.to_le_bytes()),
            (1024 + 0x60, &incompat.to_le_bytes()),
            (1024 + 0x150, &high.to_le_bytes()),
        ])
    }

    #[test]
    fn sizes_come_from_the_superblocks() {
        let squashfs = superblock(&[(0, b"hsqs"), (40, &12_345_u64.to_le_bytes())]);
        assert_eq!(squashfs_size(&squashfs), Ok(12_345));
        assert!(squashfs_size(&squashfs[..40]).is_err());
        assert!(squashfs_size(&[0; 2048]).is_err());

        assert_eq!(ext4_size(&ext4(1000, 2, 0, 9)), Ok(4_096_000));
        assert_eq!(ext4_size(&ext4(1, 2, 0x80, 1)), Ok(((1 << 32) + 1) * 4096));
        assert!(ext4_size(&ext4(1, 64, 0, 0)).is_err());
        assert!(ext4_size(&[]).is_err());
        assert!(ext4_size(&ext4(1000, 2, 0, 0)[..1100]).is_err());
    }

    #[test]
    fn a_shorter_file_is_truncated() {
        assert_eq!(holds(10, 10), Ok(()));
        assert_eq!(holds(10, 9), Err("it has 9 bytes of 10".to_owned()));
    }

    /// A kernel that is whole if it has at least `segment_end` bytes; it has 200.
    pub(crate) fn elf(segment_end: u64) -> Vec<u8> {
        let mut bytes = vec![0; 200];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[18..20].copy_from_slice(&arch::ELF_MACHINE.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64 + 8..64 + 16].copy_from_slice(&100_u64.to_le_bytes());
        bytes[64 + 32..64 + 40].copy_from_slice(&(segment_end.wrapping_sub(100)).to_le_bytes());
        bytes
    }

    fn check(bytes: &[u8]) -> Result<(), String> {
        check_elf(bytes, bytes.len() as u64)
    }

    #[test]
    fn kernels_are_whole_or_refused() {
        assert_eq!(check(&elf(200)), Ok(()));
        assert!(check(&elf(201)).unwrap_err().contains("200 bytes"));
        assert!(check(&elf(99)).is_err(), "a size that overflows");
        assert!(check(&elf(200)[..100]).is_err());
        assert!(check(&elf(200)[..20]).is_err());
        assert!(check(b"MZ bzImage").is_err());
        assert!(check(b"").is_err());
    }

    #[test]
    fn scratch_stays_sparse_and_equal() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("template");
        let file = File::create(&template).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&ext4(16384, 2, 0, 0), 0).unwrap();
        file.write_all_at(b"far away", 32 << 20).unwrap();

        let copied = copy_scratch(&template, dir.path()).unwrap();
        let metadata = fs::metadata(&copied).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (64 << 20, 0o600));
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
        assert_eq!(
            read_up_to(&File::open(&copied).unwrap(), 32 << 20, 8),
            b"far away"
        );
    }

    #[test]
    fn missing_and_truncated_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        assert!(matches!(
            check_disk(&path, Filesystem::Ext4),
            Err(VmmError::DiskMissing(_))
        ));
        assert!(matches!(check_kernel(&path), Err(VmmError::KernelMissing(_))));
        fs::write(&path, ext4(1000, 2, 0, 0)).unwrap();
        let error = check_disk(&path, Filesystem::Ext4).unwrap_err();
        assert!(
            error.to_string().ends_with("it has 2048 bytes of 4096000"),
            "{error}"
        );
    }
}
