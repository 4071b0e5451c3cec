//! Kernels, modules and root filesystems: files that are read before a machine boots from them.

use image::RootFilesystem;

use crate::memory::within;

/// What is unpacked here at most.
const LIMIT: usize = 1 << 20;
/// What a decompressor may take: the largest window that a kernel is packed with (zstd's 128 MiB), a block of lz4, the output twice.
const DECOMPRESSOR: usize = 160 << 20;

/// The first byte says whether the rest is an image, or what an image holds.
pub(crate) fn bzimage(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let image = if kind % 2 == 0 {
        rest.to_vec()
    } else {
        around(rest)
    };
    let most = DECOMPRESSOR + 4 * image.len();
    if let Ok(kernel) = within(most, || image::fuzzing::vmlinux(&image, LIMIT)) {
        assert!(kernel.len() <= LIMIT && kernel.starts_with(b"\x7fELF"));
    }
    if let Ok(unpacked) = within(most, || image::fuzzing::decompress(rest, LIMIT)) {
        assert!(unpacked.len() <= LIMIT);
    }
}

/// A bzImage that holds that (Documentation/arch/x86/boot.rst).
pub(crate) fn around(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 3 * 512];
    image[0x1f1] = 2;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    let length = u32::try_from(payload.len()).expect("it is short");
    image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
    image.extend_from_slice(payload);
    image
}

/// A kernel module, packed or not.
pub(crate) fn module(data: &[u8]) {
    let opened = within(DECOMPRESSOR + 64 * data.len(), || image::fuzzing::module(data));
    if let Ok((contents, dependencies)) = opened {
        assert!(contents.starts_with(b"\x7fELF"));
        for name in dependencies {
            assert!(!name.is_empty() && !name.contains([',', '\0', '-']));
        }
    }
}

/// The first eight bytes are a file's length; it begins with the rest. Both crates that look at it must find the same.
pub(crate) fn disks(data: &[u8]) {
    let Some((length, start)) = data.split_first_chunk() else {
        return;
    };
    let start = &start[..start.len().min(4096)];
    let most = 64 << 10;
    let (squashfs, ext4) = within(most, || {
        (vmm::fuzzing::squashfs_size(start), vmm::fuzzing::ext4_size(start))
    });
    if let Ok(size) = ext4 {
        assert!(size > 0 && size % 1024 == 0, "an ext4 of {size} bytes");
    }
    match within(most, || image::fuzzing::root_filesystem(start)) {
        Ok((RootFilesystem::Squashfs, size)) => assert_eq!(squashfs, Ok(size)),
        Ok((RootFilesystem::Ext4, size)) => assert_eq!(ext4, Ok(size)),
        Err(_) => {}
    }
    let length = u64::from_le_bytes(*length);
    if within(most, || vmm::fuzzing::check_elf(start, length)).is_ok() {
        assert!(start.starts_with(b"\x7fELF\x02\x01"));
    }
}
