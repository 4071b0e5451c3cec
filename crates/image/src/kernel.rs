//! Guest kernels: which one is meant, and Debian's packaged one brought into the store as ELF with the modules that a guest needs.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::initramfs::hex;
use crate::mirror::Mirror;
use crate::mmdebstrap::{self, Debootstrap};
use crate::modules::{ModuleSet, built_in_modules, module_name};
use crate::progress::{Progress, Report, Unit};
use crate::{ImageError, extract, filesystem};

/// The release whose kernel is of the series that Firecracker supports as a guest (6.1).
pub(crate) const DEFAULT_SUITE: &str = "bookworm";
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Far above any packaged kernel.
const MAX_BZIMAGE: u64 = 128 * 1024 * 1024;

/// Which kernel guests boot. Written as `debian`, `debian-SUITE`, `tuned`, or a path, which has a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KernelChoice {
    /// Debian's packaged cloud kernel of that suite.
    Debian {
        /// The release, by code name.
        suite: String,
    },
    /// Debian's kernel source of the default suite with our own configuration: boots faster, and Firecracker below 1.8 can use it.
    Tuned,
    /// The user's own, as ELF or bzImage, with all that a guest needs built in.
    File(PathBuf),
}

impl Default for KernelChoice {
    fn default() -> Self {
        Self::Debian {
            suite: DEFAULT_SUITE.to_owned(),
        }
    }
}

impl KernelChoice {
    /// The directory below `kernels/` in the store; none for a file, which stays where it is.
    pub(crate) fn store_name(&self) -> Option<String> {
        match self {
            Self::Debian { suite } => Some(format!("debian-{suite}")),
            Self::Tuned => Some(format!("tuned-{DEFAULT_SUITE}")),
            Self::File(_) => None,
        }
    }
}

impl fmt::Display for KernelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { suite } if suite == DEFAULT_SUITE => f.write_str("debian"),
            Self::Debian { suite } => write!(f, "debian-{suite}"),
            Self::Tuned => f.write_str("tuned"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for KernelChoice {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let unknown = || ImageError::UnknownKernel {
            name: text.to_owned(),
        };
        match text {
            "debian" => Ok(Self::default()),
            "tuned" => Ok(Self::Tuned),
            path if path.contains('/') => Ok(Self::File(PathBuf::from(path))),
            _ => {
                let suite = text.strip_prefix("debian-").ok_or_else(unknown)?;
                let is_name = !suite.is_empty() && suite.bytes().all(|byte| byte.is_ascii_lowercase());
                is_name
                    .then(|| Self::Debian {
                        suite: suite.to_owned(),
                    })
                    .ok_or_else(unknown)
            }
        }
    }
}

/// What the store records about a kernel beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KernelManifest {
    /// `6.1.0-37-cloud-amd64`.
    pub(crate) release: String,
    /// Of the ELF kernel.
    pub(crate) sha256: String,
    /// Of the ELF kernel.
    pub(crate) bytes: u64,
    /// Of the modules and their order.
    pub(crate) modules_sha256: String,
}

impl KernelManifest {
    pub(crate) const FILE: &str = "kernel.json";

    /// Writes kernel, modules and manifest into an empty directory.
    pub(crate) fn write(
        directory: &Path,
        release: String,
        kernel: &[u8],
        modules: &ModuleSet,
    ) -> Result<(), ImageError> {
        let path = directory.join(VMLINUX);
        fs::write(&path, kernel).map_err(ImageError::io("write", &path))?;
        filesystem::check_kernel(&path)?;
        modules.write(&directory.join(MODULES))?;
        let manifest = Self {
            release,
            sha256: hex(&Sha256::digest(kernel)),
            bytes: kernel.len() as u64,
            modules_sha256: modules.sha256(),
        };
        let path = directory.join(Self::FILE);
        let text = serde_json::to_string_pretty(&manifest).expect("a plain structure");
        fs::write(&path, text + "\n").map_err(ImageError::io("write", &path))
    }

    /// Reads it and checks that the kernel beside it is whole.
    pub(crate) fn read(directory: &Path) -> Result<Self, ImageError> {
        let kernel = directory.join(VMLINUX);
        let path = directory.join(Self::FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::KernelMissing { path: kernel });
            }
            Err(error) => return Err(ImageError::from_io("read", &path, error)),
        };
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| ImageError::invalid(&path, error.to_string()))?;
        let metadata = fs::metadata(&kernel).map_err(ImageError::io("read", &kernel))?;
        if metadata.len() != manifest.bytes {
            let reason = format!("it is {} bytes, not {}", metadata.len(), manifest.bytes);
            return Err(ImageError::invalid(&kernel, reason));
        }
        Ok(manifest)
    }
}

/// The kernel's file name in its directory.
pub(crate) const VMLINUX: &str = "vmlinux";
/// The directory of its modules.
pub(crate) const MODULES: &str = "modules";

/// Fetches Debian's packaged kernel into `directory`, which is empty; `work` is for what is only needed meanwhile.
pub(crate) fn fetch_debian(
    suite: &str,
    mirror: Option<&Mirror>,
    directory: &Path,
    work: &Path,
    report: Report<'_>,
) -> Result<(), ImageError> {
    let step = format!("kernel of Debian {suite}");
    report(Progress::Started {
        step: &step,
        unit: Unit::Nothing,
        total: None,
    });
    let unpacked = unpack_package(suite, mirror, work, report)?;
    report(Progress::Stage("unpacking the kernel"));
    let image = fs::read(&unpacked.bzimage).map_err(ImageError::io("read", &unpacked.bzimage))?;
    let kernel = extract::vmlinux(&image).map_err(|reason| ImageError::invalid(&unpacked.bzimage, reason))?;
    let modules = ModuleSet::pick(|name| unpacked.module(name), &unpacked.built_in)?;
    KernelManifest::write(directory, unpacked.release, &kernel, &modules)?;
    report(Progress::Finished);
    Ok(())
}

/// The parts of the kernel package that matter, on disk.
pub(crate) struct Unpacked {
    pub(crate) release: String,
    bzimage: PathBuf,
    modules: PathBuf,
    built_in: BTreeSet<String>,
}

impl Unpacked {
    fn module(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.modules.join(name);
        match fs::read(&path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::from_io("read", &path, error)),
        }
    }
}

fn unpack_package(
    suite: &str,
    mirror: Option<&Mirror>,
    work: &Path,
    report: Report<'_>,
) -> Result<Unpacked, ImageError> {
    let packages = [PACKAGE.to_owned()];
    let bootstrap = Debootstrap {
        suite,
        variant: "extract",
        packages: &packages,
        commands: &[],
        epoch: 0,
    };
    let (running, tar) = bootstrap.spawn(mirror, work)?;
    let unpacked = std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| unpack(tar, work));
        mmdebstrap::finish(running, work, report)?;
        unpacking
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    if unpacked.release.is_empty() {
        return Err(ImageError::invalid(
            &unpacked.bzimage,
            format!("{PACKAGE} of {suite} has no kernel"),
        ));
    }
    Ok(unpacked)
}

pub(crate) fn unpack(tar: impl Read, work: &Path) -> Result<Unpacked, ImageError> {
    let mut unpacked = Unpacked {
        release: String::new(),
        bzimage: work.join("vmlinuz"),
        modules: work.join("packaged-modules"),
        built_in: BTreeSet::new(),
    };
    fs::create_dir(&unpacked.modules).map_err(ImageError::io("create", &unpacked.modules))?;
    let damaged = |error: io::Error| ImageError::from_io("read the package in", work, error);
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let names = normal_components(&path);
        match *names {
            ["boot", file] => {
                if let Some(release) = file.strip_prefix("vmlinuz-") {
                    unpacked.release = release.to_owned();
                    copy(&mut entry, &unpacked.bzimage)?;
                }
            }
            ["lib", "modules", _, "modules.builtin"] | ["usr", "lib", "modules", _, "modules.builtin"] => {
                let mut list = String::new();
                entry.read_to_string(&mut list).map_err(damaged)?;
                unpacked.built_in = built_in_modules(&list);
            }
            ["lib", "modules", .., file] | ["usr", "lib", "modules", .., file] => {
                if let Some(module) = module_name(file) {
                    copy(&mut entry, &unpacked.modules.join(module))?;
                }
            }
            _ => {}
        }
    }
    mmdebstrap::read_padding(archive).map_err(damaged)?;
    Ok(unpacked)
}

fn normal_components(path: &Path) -> Vec<&str> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect()
}

fn copy(entry: &mut impl Read, path: &Path) -> Result<(), ImageError> {
    let mut file = fs::File::create(path).map_err(ImageError::io("create", path))?;
    io::copy(&mut entry.take(MAX_BZIMAGE), &mut file).map_err(ImageError::io("write", path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written() {
        for text in ["debian", "debian-trixie", "tuned", "/boot/vmlinuz", "./vmlinux"] {
            assert_eq!(text.parse::<KernelChoice>().expect(text).to_string(), text);
        }
        for text in ["", "Debian", "debian-", "vmlinux", "debian-Sid"] {
            assert!(text.parse::<KernelChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_kernel_that_is_not_there_or_cut_short_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = KernelManifest::read(directory.path()).expect_err("not there");
        assert!(matches!(missing, ImageError::KernelMissing { .. }), "{missing}");

        let kernel = fs::read(std::env::current_exe().expect("this program")).expect("readable");
        KernelManifest::write(directory.path(), "6.1".to_owned(), &kernel, &ModuleSet::default())
            .expect("written");
        let manifest = KernelManifest::read(directory.path()).expect("whole");
        assert_eq!(
            (manifest.release.as_str(), manifest.bytes),
            ("6.1", kernel.len() as u64)
        );

        let vmlinux = fs::File::options()
            .write(true)
            .open(directory.path().join(VMLINUX))
            .expect("there");
        vmlinux.set_len(100).expect("cut");
        let cut = KernelManifest::read(directory.path()).expect_err("cut short");
        assert!(matches!(cut, ImageError::Invalid { .. }), "{cut}");
    }

    #[test]
    fn the_package_is_unpacked_by_path() {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, contents) in [
            ("./boot/vmlinuz-6.1.0-1-cloud-amd64", "kernel"),
            ("./usr/share/doc/vmlinuz-none", ""),
            (
                "./lib/modules/6.1.0-1-cloud-amd64/modules.builtin",
                "kernel/fs/ext4/ext4.ko\n",
            ),
            (
                "./lib/modules/6.1.0-1-cloud-amd64/kernel/drivers/char/hw_random/virtio-rng.ko.xz",
                "module",
            ),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            tar.append_data(&mut header, path, contents.as_bytes())
                .expect("to memory");
        }
        let work = tempfile::tempdir().expect("a directory");
        let unpacked =
            unpack(tar.into_inner().expect("to memory").as_slice(), work.path()).expect("unpacked");
        assert_eq!(unpacked.release, "6.1.0-1-cloud-amd64");
        assert_eq!(fs::read(&unpacked.bzimage).expect("there"), b"kernel");
        assert_eq!(
            unpacked.module("virtio_rng").expect("readable").as_deref(),
            Some(&b"module"[..])
        );
        assert_eq!(unpacked.module("ext4").expect("readable"), None);
        assert!(unpacked.built_in.contains("ext4"));
    }
}
