//! Picks the kernel modules that a guest needs out of a kernel package: by what they do, dependencies first, unpacked and without
//! their signatures, which an emulated guest would spend more time on than on loading them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection};
use sha2::{Digest, Sha256};

use crate::initramfs::hex;
use crate::{ImageError, extract, fresh};

/// What the guest-runner loads together, in the order that it may ask for them, and the modules that make up each.
const SETS: &[(&str, &[Wanted])] = &[
    ("core", &[needed("virtio_mmio"), needed("virtio_blk")]),
    ("serial", &[needed("virtio_console")]),
    ("vsock", &[needed("vmw_vsock_virtio_transport")]),
    ("squashfs", &[needed("squashfs")]),
    ("ext4", &[optional("crc32c_generic"), needed("ext4")]),
    ("overlay", &[needed("overlay")]),
    ("rng", &[optional("virtio_rng")]),
];

/// Far above any module.
pub(crate) const MAX_MODULE: usize = 64 * 1024 * 1024;
/// The name of the file that says what to load in which order.
const ORDER: &str = "order";

struct Wanted {
    module: &'static str,
    needed: bool,
}

const fn needed(module: &'static str) -> Wanted {
    Wanted { module, needed: true }
}

const fn optional(module: &'static str) -> Wanted {
    Wanted {
        module,
        needed: false,
    }
}

/// The modules of one kernel, ready for the initramfs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct ModuleSet {
    order: String,
    files: Vec<(String, Vec<u8>)>,
}

impl ModuleSet {
    #[cfg(test)]
    pub(crate) fn new(order: String, files: Vec<(String, Vec<u8>)>) -> Self {
        Self { order, files }
    }

    /// One line per module: the set, a space, the file's name.
    pub(crate) fn order(&self) -> &str {
        &self.order
    }

    /// The files by name, sorted.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(name, contents)| (name.as_str(), contents.as_slice()))
    }

    /// A digest of all of it, in hexadecimal.
    pub(crate) fn sha256(&self) -> String {
        let mut digest = Sha256::new().chain_update(&self.order);
        for (name, contents) in &self.files {
            digest.update(name);
            digest.update((contents.len() as u64).to_le_bytes());
            digest.update(contents);
        }
        hex(&digest.finalize())
    }

    /// Reads what [`ModuleSet::write`] wrote; a directory that is not there is a kernel without modules.
    pub(crate) fn read(directory: &Path) -> Result<Self, ImageError> {
        let mut modules = Self::default();
        for path in fresh::entries(directory)? {
            let contents = fs::read(&path).map_err(ImageError::io("read", &path))?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name == ORDER {
                modules.order =
                    String::from_utf8(contents).map_err(|_| ImageError::invalid(&path, "it is not text"))?;
            } else {
                modules.files.push((name, contents));
            }
        }
        Ok(modules)
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), ImageError> {
        fs::create_dir(directory).map_err(ImageError::io("create", directory))?;
        for (name, contents) in self.files() {
            write(&directory.join(name), contents)?;
        }
        write(&directory.join(ORDER), self.order.as_bytes())
    }

    /// Picks from `package`, which gives a module's file as it is packaged. `built_in` has the modules that the kernel itself holds.
    pub(crate) fn pick(
        package: impl Fn(&str) -> Result<Option<Vec<u8>>, ImageError>,
        built_in: &BTreeSet<String>,
    ) -> Result<Self, ImageError> {
        let mut picker = Picker {
            package,
            built_in,
            files: BTreeMap::new(),
            order: Vec::new(),
        };
        for (set, wanted) in SETS {
            for Wanted { module, needed } in *wanted {
                if !picker.add(set, module)? && *needed {
                    return Err(ImageError::ModuleMissing { module });
                }
            }
        }
        let order = picker
            .order
            .iter()
            .map(|(set, module)| format!("{set} {module}.ko\n"))
            .collect();
        let files = picker
            .files
            .into_iter()
            .map(|(name, module)| (format!("{name}.ko"), module.contents));
        Ok(Self {
            order,
            files: files.collect(),
        })
    }
}

fn write(path: &Path, contents: &[u8]) -> Result<(), ImageError> {
    fs::write(path, contents).map_err(ImageError::io("write", path))
}

/// The name of the module in a file: without suffixes, with the underscores that the kernel uses.
pub(crate) fn module_name(file_name: &str) -> Option<String> {
    let (stem, _) = file_name.split_once(".ko")?;
    Some(stem.replace('-', "_"))
}

/// The modules listed in `modules.builtin`, a path each.
pub(crate) fn built_in_modules(list: &str) -> BTreeSet<String> {
    list.lines()
        .filter_map(|line| module_name(line.rsplit('/').next()?))
        .collect()
}

pub(crate) struct Module {
    pub(crate) contents: Vec<u8>,
    pub(crate) dependencies: Vec<String>,
}

struct Picker<'a, F> {
    package: F,
    built_in: &'a BTreeSet<String>,
    files: BTreeMap<String, Module>,
    order: Vec<(&'static str, String)>,
}

impl<F: Fn(&str) -> Result<Option<Vec<u8>>, ImageError>> Picker<'_, F> {
    /// Adds a module and, before it, what it needs. False when there is no such module.
    fn add(&mut self, set: &'static str, name: &str) -> Result<bool, ImageError> {
        if self.built_in.contains(name) || self.is_loaded_before(set, name) {
            return Ok(true);
        }
        if !self.files.contains_key(name) {
            let Some(packed) = (self.package)(name)? else {
                return Ok(false);
            };
            let module = open(name, &packed)?;
            self.files.insert(name.to_owned(), module);
        }
        let dependencies = self.files[name].dependencies.clone();
        for dependency in dependencies {
            if !self.add(set, &dependency)? {
                let reason = format!("its dependency {dependency} is not in the package");
                return Err(ImageError::invalid(Path::new(name), reason));
            }
        }
        self.order.push((set, name.to_owned()));
        Ok(true)
    }

    /// Whether a line that is sure to be carried out before has it: one of the same set, or of `core`. Other sets may be skipped.
    fn is_loaded_before(&self, set: &str, name: &str) -> bool {
        self.order
            .iter()
            .any(|(other, module)| module == name && (*other == set || *other == "core"))
    }
}

pub(crate) fn open(name: &str, packed: &[u8]) -> Result<Module, ImageError> {
    let invalid = |reason: String| ImageError::invalid(Path::new(name), reason);
    let mut contents = extract::decompress(packed, MAX_MODULE).map_err(invalid)?;
    let signed = contents.len();
    contents.truncate(signed - signature_length(&contents));
    let elf = ElfFile64::<Endianness>::parse(contents.as_slice())
        .map_err(|error| invalid(format!("it is no kernel module: {error}")))?;
    let information = elf
        .section_by_name(".modinfo")
        .and_then(|section| section.data().ok())
        .ok_or_else(|| invalid("it has no module information".to_owned()))?;
    let dependencies = dependencies(information);
    Ok(Module {
        contents,
        dependencies,
    })
}

/// `depends=a,b` of the module information, which is NUL-separated.
fn dependencies(information: &[u8]) -> Vec<String> {
    information
        .split(|byte| *byte == 0)
        .filter_map(|entry| str::from_utf8(entry).ok()?.strip_prefix("depends="))
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// How many bytes at the end are an appended signature (`struct module_signature` of the kernel, then a marker).
fn signature_length(module: &[u8]) -> usize {
    const MARKER: &[u8] = b"~Module signature appended~\n";
    const INFORMATION: usize = 12;
    let Some(before) = module.strip_suffix(MARKER) else {
        return 0;
    };
    let Some((_, information)) = before.split_last_chunk::<INFORMATION>() else {
        return 0;
    };
    let [_, _, _, signer, key, _, _, _, length @ ..] = *information;
    let signature = u32::from_be_bytes(length) as usize;
    let total = MARKER.len() + INFORMATION + usize::from(signer) + usize::from(key) + signature;
    if total < module.len() { total } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relocatable ELF file with nothing but a `.modinfo` section.
    fn module(depends: &str) -> Vec<u8> {
        let information = format!("license=GPL\0depends={depends}\0name=x\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let information_at = 64;
        let names_at = information_at + information.len();
        let sections_at = (names_at + names.len()).next_multiple_of(8);
        let mut elf = vec![0; 64];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16] = 1; // relocatable
        elf[18] = 62; // x86-64
        elf[20] = 1;
        elf[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
        elf[52] = 64; // header
        elf[58] = 64; // section header
        elf[60] = 3; // sections
        elf[62] = 2; // section of names
        elf.extend_from_slice(information.as_bytes());
        elf.extend_from_slice(names);
        elf.resize(sections_at, 0);
        elf.resize(sections_at + 64, 0);
        for (name, kind, at, size) in [
            (1_u32, 1_u32, information_at, information.len()),
            (10, 3, names_at, names.len()),
        ] {
            let start = elf.len();
            elf.extend_from_slice(&name.to_le_bytes());
            elf.extend_from_slice(&kind.to_le_bytes());
            elf.resize(start + 24, 0);
            elf.extend_from_slice(&(at as u64).to_le_bytes());
            elf.extend_from_slice(&(size as u64).to_le_bytes());
            elf.resize(start + 64, 0);
        }
        elf
    }

    fn signed(mut module: Vec<u8>) -> Vec<u8> {
        module.extend_from_slice(&[7; 40]);
        module.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 40]);
        module.extend_from_slice(b"~Module signature appended~\n");
        module
    }

    fn package(name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let depends = match name {
            "virtio_mmio" | "virtio_blk" | "virtio_console" => "virtio,virtio_ring",
            "virtio" => "virtio_ring",
            "vmw_vsock_virtio_transport" => "vsock,virtio",
            "ext4" => "jbd2,crc-shared",
            "overlay" => "crc-shared",
            "virtio_ring" | "vsock" | "squashfs" | "jbd2" | "crc_shared" => "",
            _ => return Ok(None),
        };
        Ok(Some(signed(module(depends))))
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let modules = ModuleSet::pick(package, &BTreeSet::new()).expect("complete");
        let expected = "core virtio_ring.ko\ncore virtio.ko\ncore virtio_mmio.ko\ncore virtio_blk.ko\n\
             serial virtio_console.ko\n\
             vsock vsock.ko\nvsock vmw_vsock_virtio_transport.ko\n\
             squashfs squashfs.ko\n\
             ext4 jbd2.ko\next4 crc_shared.ko\next4 ext4.ko\n\
             overlay crc_shared.ko\noverlay overlay.ko\n";
        assert_eq!(modules.order(), expected);
    }

    #[test]
    fn what_is_built_in_is_left_out() {
        let list = "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio-ring.ko\n";
        let modules = ModuleSet::pick(package, &built_in_modules(list)).expect("complete");
        assert!(!modules.order().contains("ext4"));
        assert!(!modules.order().contains("virtio_ring"));
    }

    #[test]
    fn a_missing_module_is_named() {
        let without = |name: &str| {
            if name == "squashfs" {
                Ok(None)
            } else {
                package(name)
            }
        };
        let error = ModuleSet::pick(without, &BTreeSet::new()).expect_err("incomplete");
        assert!(
            matches!(error, ImageError::ModuleMissing { module: "squashfs" }),
            "{error}"
        );
    }

    #[test]
    fn modules_come_back_from_disk_without_signatures() {
        let modules = ModuleSet::pick(package, &BTreeSet::new()).expect("complete");
        assert!(
            modules
                .files()
                .all(|(_, contents)| signature_length(contents) == 0)
        );
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("modules");
        modules.write(&directory).expect("written");
        let read = ModuleSet::read(&directory).expect("readable");
        assert_eq!(read, modules);
        assert_eq!(read.sha256(), modules.sha256());
        assert_eq!(
            ModuleSet::read(&parent.path().join("none")).expect("none"),
            ModuleSet::default()
        );
    }

    #[test]
    fn a_signature_that_lies_about_its_length_is_left() {
        let mut module = signed(module(""));
        let at = module.len() - 28 - 4;
        module[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(signature_length(&module), 0);
    }

    #[test]
    fn module_names_have_underscores_and_no_suffix() {
        assert_eq!(module_name("virtio-rng.ko.xz").as_deref(), Some("virtio_rng"));
        assert_eq!(module_name("modules.order"), None);
    }
}
