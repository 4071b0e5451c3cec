//! Compressed kernels and modules to plain ELF: a bzImage's payload is found by its header and unpacked by its magic number.
//! The layout is that of the kernel's Documentation/arch/x86/boot.rst (protocol 2.08 and later).

use std::io::{self, Read};

use lz4_flex::block::DecompressError;

/// More than any vmlinux without debug information.
const MAX_OUTPUT: usize = 256 * 1024 * 1024;

const HEADER_MAGIC: usize = 0x202;
const HEADER_VERSION: usize = 0x206;
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const MIN_VERSION: u16 = 0x0208;
const SECTOR: usize = 512;

const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_LEGACY_BLOCK: usize = 8 * 1024 * 1024;

/// What something is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Xz,
    Zstd,
    Lz4Legacy,
    None,
}

/// Whether the file is a bzImage.
pub(crate) fn is_bzimage(image: &[u8]) -> bool {
    image.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS")
}

/// The ELF kernel inside a bzImage. The error is a reason, without the path.
pub(crate) fn vmlinux(image: &[u8]) -> Result<Vec<u8>, String> {
    vmlinux_within(image, MAX_OUTPUT)
}

/// The same, of at most `limit` bytes.
pub(crate) fn vmlinux_within(image: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let kernel = decompress(payload(image)?, limit)?;
    if kernel.starts_with(b"\x7fELF") {
        Ok(kernel)
    } else {
        Err("what it holds is not an ELF kernel".to_owned())
    }
}

fn payload(image: &[u8]) -> Result<&[u8], String> {
    let truncated = || "it is shorter than its header says".to_owned();
    if !is_bzimage(image) {
        return Err("it is no bzImage".to_owned());
    }
    let version = bytes_at(image, HEADER_VERSION)
        .map(u16::from_le_bytes)
        .ok_or_else(truncated)?;
    if version < MIN_VERSION {
        return Err(format!(
            "its boot protocol {version:#06x} is older than {MIN_VERSION:#06x}"
        ));
    }
    let sectors = match image.get(SETUP_SECTORS).copied().ok_or_else(truncated)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let offset = bytes_at(image, PAYLOAD_OFFSET)
        .map(u32::from_le_bytes)
        .ok_or_else(truncated)? as usize;
    let length = bytes_at(image, PAYLOAD_LENGTH)
        .map(u32::from_le_bytes)
        .ok_or_else(truncated)? as usize;
    let start = (sectors + 1) * SECTOR + offset;
    image
        .get(start..start.saturating_add(length))
        .ok_or_else(truncated)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Unpacks whatever the magic number says; what has none is returned as it is. The kernel's build appends the unpacked size to a
/// payload, so bytes after the end of the compressed data are no error.
pub(crate) fn decompress(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    match compression(packed)? {
        Compression::Gzip => read_bounded(flate2::read::GzDecoder::new(packed), limit),
        Compression::Xz => read_bounded(lzma_rust2::XzReader::new(packed, false), limit),
        Compression::Zstd => {
            let decoder =
                ruzstd::decoding::StreamingDecoder::new(packed).map_err(|error| error.to_string())?;
            read_bounded(decoder, limit)
        }
        Compression::Lz4Legacy => lz4_legacy(packed, limit),
        Compression::None if packed.len() <= limit => Ok(packed.to_vec()),
        Compression::None => Err(too_large(limit)),
    }
}

fn compression(packed: &[u8]) -> Result<Compression, String> {
    let unsupported = |name: &str| Err(format!("it is compressed with {name}, which is not supported"));
    match packed {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Compression::Xz),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
        [0x02, 0x21, 0x4c, 0x18, ..] => Ok(Compression::Lz4Legacy),
        [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
        [0x5d, 0, 0, ..] => unsupported("lzma"),
        [0x89, b'L', b'Z', b'O', ..] => unsupported("lzo"),
        _ => Ok(Compression::None),
    }
}

fn too_large(limit: usize) -> String {
    format!("it unpacks to more than {limit} bytes")
}

fn read_bounded(reader: impl Read, limit: usize) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader
        .take(bound)
        .read_to_end(&mut unpacked)
        .map_err(|error: io::Error| format!("its compressed data is damaged: {error}"))?;
    if unpacked.len() > limit {
        return Err(too_large(limit));
    }
    Ok(unpacked)
}

/// The format of `lz4 -l`: after the magic number, blocks of at most 8 MiB unpacked, each with its packed length before it.
fn lz4_legacy(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let damaged = || "its compressed data is damaged".to_owned();
    let mut rest = packed.strip_prefix(&LZ4_LEGACY_MAGIC).ok_or_else(damaged)?;
    let mut unpacked = Vec::new();
    let mut block = vec![0; LZ4_LEGACY_BLOCK];
    while let Some((header, after)) = rest.split_first_chunk::<4>() {
        let number = u32::from_le_bytes(*header);
        let is_appended_size = after.is_empty() && usize::try_from(number) == Ok(unpacked.len());
        if is_appended_size {
            break;
        }
        if *header == LZ4_LEGACY_MAGIC {
            rest = after;
            continue;
        }
        let (data, next) = after.split_at_checked(number as usize).ok_or_else(damaged)?;
        let length = lz4_flex::block::decompress_into(data, &mut block)
            .map_err(|error: DecompressError| format!("its compressed data is damaged: {error}"))?;
        if unpacked.len() + length > limit {
            return Err(too_large(limit));
        }
        unpacked.extend_from_slice(&block[..length]);
        rest = next;
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Something ELF-like that compresses, and is longer than one LZ4 block when asked.
    fn kernel(length: usize) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.extend((0..length).map(|i| u8::try_from(i / 7 % 251).expect("under 251")));
        bytes
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        const OFFSET: usize = 100;
        let mut image = vec![0; 3 * SECTOR + OFFSET];
        image[SETUP_SECTORS] = 2;
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[HEADER_VERSION..HEADER_VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4]
            .copy_from_slice(&u32::try_from(OFFSET).expect("small").to_le_bytes());
        let length = u32::try_from(payload.len()).expect("small");
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(&[0xaa; 64]);
        image
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("to memory");
        encoder.finish().expect("to memory")
    }

    /// As the kernel's build does it: with the x86 filter and CRC32.
    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut options = lzma_rust2::XzOptions::with_preset(1);
        options.set_check_sum_type(lzma_rust2::CheckType::Crc32);
        options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).expect("the options are good");
        encoder.write_all(bytes).expect("to memory");
        encoder.finish().expect("to memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut packed = LZ4_LEGACY_MAGIC.to_vec();
        for block in bytes.chunks(LZ4_LEGACY_BLOCK) {
            let block = lz4_flex::block::compress(block);
            packed.extend_from_slice(&u32::try_from(block.len()).expect("small").to_le_bytes());
            packed.extend_from_slice(&block);
        }
        packed
    }

    fn with_size_appended(mut packed: Vec<u8>, unpacked: usize) -> Vec<u8> {
        packed.extend_from_slice(&u32::try_from(unpacked).expect("small").to_le_bytes());
        packed
    }

    #[test]
    fn every_compression_of_a_kernel_is_unpacked() {
        let kernel = kernel(100_000);
        let size = kernel.len();
        let payloads = [
            ("gzip", gzip(&kernel)),
            ("xz", with_size_appended(xz(&kernel), size)),
            ("zstd", with_size_appended(zstd(&kernel), size)),
            ("lz4", with_size_appended(lz4(&kernel), size)),
            ("none", kernel.clone()),
        ];
        for (name, payload) in payloads {
            assert_eq!(vmlinux(&bzimage(&payload)).as_ref(), Ok(&kernel), "{name}");
        }
    }

    #[test]
    fn lz4_of_several_blocks_is_unpacked() {
        let kernel = kernel(2 * LZ4_LEGACY_BLOCK + 5);
        assert!(decompress(&lz4(&kernel), MAX_OUTPUT).as_ref() == Ok(&kernel));
        let with_size = with_size_appended(lz4(&kernel), kernel.len());
        assert!(decompress(&with_size, MAX_OUTPUT).as_ref() == Ok(&kernel));
    }

    #[test]
    fn output_is_bounded() {
        let kernel = kernel(100_000);
        for packed in [
            gzip(&kernel),
            xz(&kernel),
            zstd(&kernel),
            lz4(&kernel),
            kernel.clone(),
        ] {
            assert!(decompress(&packed, kernel.len()).is_ok());
            let error = decompress(&packed, kernel.len() - 1).expect_err("too large");
            assert!(error.contains("unpacks to more than"), "{error}");
        }
    }

    #[test]
    fn a_truncated_image_is_refused_at_every_length() {
        let image = bzimage(&gzip(&kernel(1000)));
        let end = image.len() - 64;
        for length in 0..end {
            assert!(vmlinux(&image[..length]).is_err(), "{length} of {end}");
        }
    }

    #[test]
    fn damaged_data_is_refused() {
        let kernel = kernel(100_000);
        for mut packed in [gzip(&kernel), xz(&kernel), zstd(&kernel), lz4(&kernel)] {
            packed.truncate(packed.len() / 2);
            assert!(vmlinux(&bzimage(&packed)).is_err() || packed.len() < 8);
        }
    }

    #[test]
    fn an_unsupported_compression_is_named() {
        let error = vmlinux(&bzimage(b"BZh91AY")).expect_err("bzip2 is not supported");
        assert!(error.contains("bzip2"), "{error}");
    }

    #[test]
    fn a_payload_that_is_no_kernel_is_refused() {
        assert!(vmlinux(&bzimage(&gzip(b"hello"))).is_err());
    }
}
