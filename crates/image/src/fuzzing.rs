//! What the fuzz targets call: whatever reads images, packages, lists and manifests, fed from memory. With the feature `fuzzing` only.

use std::path::Path;

use crate::mirror::{self, Mirror};
use crate::snapshot::{Refusal, SnapshotManifest};
use crate::{ImageError, RootFilesystem};
use crate::{extract, filesystem, firecracker_release, kernel, modules, snapshot, template};

/// The domain that manifests are signed in.
pub const MANIFEST_DOMAIN: &str = snapshot::SIGNATURE_DOMAIN;

/// The kernel inside of a bzImage, of at most `limit` bytes.
///
/// # Errors
/// It is no kernel, or a larger one.
pub fn vmlinux(image: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    extract::vmlinux_within(image, limit)
}

/// What is packed in there, of at most `limit` bytes.
///
/// # Errors
/// It is damaged, or more.
pub fn decompress(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    extract::decompress(packed, limit)
}

/// A kernel module without its signature, and the names of those that it needs.
///
/// # Errors
/// It is none.
pub fn module(packed: &[u8]) -> Result<(Vec<u8>, Vec<String>), ImageError> {
    let module = modules::open("module", packed)?;
    Ok((module.contents, module.dependencies))
}

/// What a root filesystem is that begins like that, and the bytes that it has.
///
/// # Errors
/// It is none.
pub fn root_filesystem(start: &[u8]) -> Result<(RootFilesystem, u64), &'static str> {
    filesystem::described(start)
}

/// That a file is a kernel and whole.
///
/// # Errors
/// It is not.
pub fn check_kernel(path: &Path) -> Result<(), ImageError> {
    filesystem::check_kernel(path)
}

/// A program out of a release of Firecracker.
///
/// # Errors
/// It is damaged, or has no such program.
pub fn release(tarball: &[u8], name: &str) -> Result<Vec<u8>, String> {
    firecracker_release::unpack(tarball, name)
}

/// Unpacks a kernel package into `work`, and gives the kernel's release.
///
/// # Errors
/// It is damaged.
pub fn kernel_package(tar: &[u8], work: &Path) -> Result<String, ImageError> {
    Ok(kernel::unpack(tar, work)?.release)
}

/// What is asked of a release's address, if it is a version.
///
/// # Errors
/// It is none.
pub fn release_version(text: &str) -> Result<&str, ImageError> {
    firecracker_release::checked_version(text)
}

/// The digest in what `sha256sum` wrote.
#[must_use]
pub fn digest(text: &[u8]) -> Option<String> {
    firecracker_release::parse_digest(text)
}

/// The lines for apt that come of these mirrors on the command line.
///
/// # Errors
/// They are none.
pub fn mirrors(addresses: &[String]) -> Result<Vec<String>, ImageError> {
    Ok(Mirror::parse(addresses)?.map_or_else(Vec::new, |mirror| mirror.sources("bookworm")))
}

/// The lines for apt that come of a list of sources, in either form.
#[must_use]
pub fn sources(list: &str) -> Vec<String> {
    mirror::of_list(list, "bookworm").map_or_else(Vec::new, |mirror| mirror.sources("bookworm"))
}

/// The packages in a list.
///
/// # Errors
/// One is no package.
pub fn packages(list: &str) -> Result<Vec<String>, String> {
    template::parse_packages(list)
}

/// A manifest whose signature is good.
///
/// # Errors
/// It is none.
pub fn manifest(text: &[u8]) -> Result<SnapshotManifest, Refusal> {
    SnapshotManifest::parse(text)
}
