//! Tells what a kernel or root filesystem file is, and whether it is whole, by its header: cheap enough for every run.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use object::Endianness;
use object::elf::{EM_X86_64, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::ImageError;

/// The filesystems that a root drive may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootFilesystem {
    /// Read-only and compressed: what set-up makes.
    Squashfs,
    /// A foreign image.
    Ext4,
}

/// What `path` holds.
///
/// # Errors
/// When it cannot be read, is neither, or is shorter than its superblock says.
pub fn identify(path: &Path) -> Result<RootFilesystem, ImageError> {
    const HEADER: u64 = 2048;
    let (header, length) = read_header(path, HEADER)?;
    let invalid = |reason: String| ImageError::invalid(path, reason);
    match described(&header).map_err(|reason| invalid(reason.to_owned()))? {
        (kind, needed) if needed <= length => Ok(kind),
        (_, needed) => Err(invalid(format!("it is truncated: {length} bytes of {needed}"))),
    }
}

/// What a file is that begins like that, and the bytes that it has by its superblock. The error is a reason.
pub(crate) fn described(header: &[u8]) -> Result<(RootFilesystem, u64), &'static str> {
    let (kind, length) = if header.starts_with(b"hsqs") {
        (RootFilesystem::Squashfs, squashfs_length(header))
    } else if u16_at(header, EXT4_SUPERBLOCK + 0x38) == Some(EXT4_MAGIC) {
        (RootFilesystem::Ext4, ext4_length(header))
    } else {
        return Err("it is neither squashfs nor ext4");
    };
    Ok((kind, length.ok_or("its superblock is damaged")?))
}

const EXT4_SUPERBLOCK: usize = 1024;
const EXT4_MAGIC: u16 = 0xef53;
const EXT4_FEATURE_64BIT: u32 = 0x80;
/// The largest block has 64 KiB.
const EXT4_MAX_LOG_BLOCK: u32 = 6;

fn squashfs_length(header: &[u8]) -> Option<u64> {
    u64_at(header, 40).filter(|length| *length >= 96)
}

fn ext4_length(header: &[u8]) -> Option<u64> {
    let field = |offset| u32_at(header, EXT4_SUPERBLOCK + offset);
    let mut blocks = u64::from(field(0x04)?);
    if field(0x60)? & EXT4_FEATURE_64BIT != 0 {
        blocks |= u64::from(field(0x150)?) << 32;
    }
    blocks
        .checked_mul(ext4_block_size(header)?)
        .filter(|length| *length > 0)
}

fn ext4_block_size(header: &[u8]) -> Option<u64> {
    let log = u32_at(header, EXT4_SUPERBLOCK + 0x18).filter(|log| *log <= EXT4_MAX_LOG_BLOCK)?;
    Some(1024 << log)
}

/// What an ext4 filesystem has left for root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ext4Space {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// As its superblock says, which is right after a check.
pub(crate) fn ext4_free(path: &Path) -> Result<Ext4Space, ImageError> {
    let (header, _) = read_header(path, 2048)?;
    let field = |offset| u32_at(&header, EXT4_SUPERBLOCK + offset);
    let free = || {
        let mut blocks = u64::from(field(0x0c)?);
        if field(0x60)? & EXT4_FEATURE_64BIT != 0 {
            blocks |= u64::from(field(0x158)?) << 32;
        }
        Some(Ext4Space {
            bytes: blocks.checked_mul(ext4_block_size(&header)?)?,
            inodes: u64::from(field(0x10)?),
        })
    };
    free().ok_or_else(|| ImageError::invalid(path, "its superblock is damaged"))
}

/// That `path` is an x86-64 ELF kernel and that all that it loads is in the file.
pub(crate) fn check_kernel(path: &Path) -> Result<(), ImageError> {
    const HEADER: u64 = 4096;
    let (header, length) = read_header(path, HEADER)?;
    let invalid = |reason: &str| ImageError::invalid(path, reason);
    let elf =
        FileHeader64::<Endianness>::parse(header.as_slice()).map_err(|_| invalid("it is no ELF kernel"))?;
    let endian = elf.endian().map_err(|_| invalid("it is no ELF kernel"))?;
    if elf.e_machine(endian) != EM_X86_64 {
        return Err(invalid("it is not for x86-64"));
    }
    let segments = elf
        .program_headers(endian, header.as_slice())
        .map_err(|_| invalid("its program headers are damaged"))?;
    let mut loads = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .peekable();
    if loads.peek().is_none() {
        return Err(invalid("it loads nothing"));
    }
    let end = loads
        .map(|segment| segment.p_offset(endian).saturating_add(segment.p_filesz(endian)))
        .max()
        .unwrap_or_default();
    if end > length {
        return Err(invalid(&format!("it is truncated: {length} bytes of {end}")));
    }
    Ok(())
}

fn read_header(path: &Path, limit: u64) -> Result<(Vec<u8>, u64), ImageError> {
    let file = File::open(path).map_err(ImageError::io("open", path))?;
    let metadata = file.metadata().map_err(ImageError::io("read", path))?;
    if !metadata.is_file() {
        return Err(ImageError::invalid(path, "it is no regular file"));
    }
    let mut header = Vec::new();
    file.take(limit)
        .read_to_end(&mut header)
        .map_err(ImageError::io("read", path))?;
    Ok((header, metadata.len()))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::*;

    fn file(bytes: &[u8], length: u64) -> NamedTempFile {
        let mut file = NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file.as_file().set_len(length).expect("sized");
        file
    }

    fn squashfs(bytes_used: u64) -> Vec<u8> {
        let mut header = vec![0; 96];
        header[..4].copy_from_slice(b"hsqs");
        header[40..48].copy_from_slice(&bytes_used.to_le_bytes());
        header
    }

    fn ext4(blocks: u32) -> Vec<u8> {
        let mut header = vec![0; 2048];
        header[1024 + 4..1024 + 8].copy_from_slice(&blocks.to_le_bytes());
        header[1024 + 0x18] = 2;
        header[1024 + 0x38..1024 + 0x3a].copy_from_slice(&EXT4_MAGIC.to_le_bytes());
        header
    }

    #[test]
    fn whole_filesystems_are_identified() {
        let image = file(&squashfs(5000), 8192);
        assert_eq!(identify(image.path()).expect("whole"), RootFilesystem::Squashfs);
        let image = file(&ext4(16), 65536);
        assert_eq!(identify(image.path()).expect("whole"), RootFilesystem::Ext4);
    }

    #[test]
    fn truncated_and_foreign_files_are_refused() {
        for (bytes, length, reason) in [
            (squashfs(5000), 4096, "truncated"),
            (squashfs(0), 4096, "superblock"),
            (ext4(16), 65535, "truncated"),
            (ext4(0), 65536, "superblock"),
            (b"hello".to_vec(), 5, "neither"),
            (Vec::new(), 0, "neither"),
        ] {
            let image = file(&bytes, length);
            let error = identify(image.path()).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_program_is_no_truncated_kernel() {
        let program = std::env::current_exe().expect("this program");
        check_kernel(&program).expect("an x86-64 ELF file");
        let bytes = std::fs::read(program).expect("readable");
        let half = file(&bytes[..4096], 4096);
        let error = check_kernel(half.path()).expect_err("truncated").to_string();
        assert!(error.contains("truncated"), "{error}");
    }

    #[test]
    fn what_is_no_elf_is_no_kernel() {
        assert!(check_kernel(file(b"MZ", 4096).path()).is_err());
        assert!(check_kernel(Path::new("/nonexistent")).is_err());
        assert!(check_kernel(Path::new("/")).is_err());
    }
}
