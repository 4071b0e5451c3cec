//! What a VMM needs of the host's filesystem: its program, the libraries of that as the dynamic linker finds them, and for QEMU its
//! accelerator's module and its firmware.
//!
//! Asking the linker takes as long as starting the program. What it said is kept in the runtime directory, and holds until one of
//! the files is another.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::LittleEndian;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};
use serde::{Deserialize, Serialize};

use crate::arch;
use crate::machine::{BackendKind, VmmBinary};
use crate::probe::FileStamp;

/// Firmware of QEMU's `microvm`, and what it starts kernels with.
const FIRMWARE: [&str; 8] = [
    "bios-microvm.bin",
    "qboot.rom",
    "pvh.bin",
    "linuxboot.bin",
    "linuxboot_dma.bin",
    "multiboot.bin",
    "multiboot_dma.bin",
    "kvmvapic.bin",
];
/// Where distributions put QEMU's modules, below the directory that has its `bin`.
const MODULES: [&str; 3] = [arch::QEMU_MODULES, "lib64/qemu", "lib/qemu"];
/// Where QEMU looks for them if this is set.
const MODULES_VARIABLE: &str = "QEMU_MODULE_DIR";
/// Where the dynamic linker looks for libraries first.
const LIBRARIES_VARIABLE: &str = "LD_LIBRARY_PATH";

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ProgramFiles {
    /// Wanted by these paths.
    pub(super) files: Vec<PathBuf>,
    /// Wanted by their names.
    pub(super) firmware: Vec<PathBuf>,
    pub(super) environment: Vec<(&'static str, PathBuf)>,
}

/// What was found, with what it was found in.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    vmm: FileStamp,
    files: Vec<FileStamp>,
    firmware: Vec<FileStamp>,
    /// Where the modules are.
    modules: Option<PathBuf>,
}

/// What the VMM needs.
pub(super) fn files(vmm: &VmmBinary, runtime: &Path) -> io::Result<ProgramFiles> {
    let program = std::path::absolute(&vmm.path)?;
    let kept = runtime.join(format!("{}-files.json", vmm.kind));
    let known = fs::read(&kept)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok())
        .filter(|known| known.vmm.path() == program && known.holds());
    let known = match known {
        Some(known) => known,
        None => {
            let found = find(&program, vmm.kind)?;
            found.keep(&kept);
            found
        }
    };
    Ok(known.into())
}

impl Known {
    fn holds(&self) -> bool {
        let all = [&self.vmm].into_iter().chain(&self.files).chain(&self.firmware);
        all.into_iter().all(FileStamp::holds)
    }

    /// Nothing depends on it.
    fn keep(&self, path: &Path) {
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let written = serde_json::to_vec(self)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&new, bytes))
            .and_then(|()| fs::rename(&new, path));
        if let Err(error) = written {
            tracing::debug!(%error, "What a VMM needs is not kept");
            let _ = fs::remove_file(new);
        }
    }
}

impl From<Known> for ProgramFiles {
    fn from(known: Known) -> Self {
        let paths = |stamps: &[FileStamp]| stamps.iter().map(|stamp| stamp.path().to_owned()).collect();
        let files: Vec<PathBuf> = paths(&known.files);
        let mut environment = Vec::new();
        if let Some(libraries) = library_path(&files) {
            environment.push((LIBRARIES_VARIABLE, libraries));
        }
        environment.extend(known.modules.map(|modules| (MODULES_VARIABLE, modules)));
        Self {
            firmware: paths(&known.firmware),
            files,
            environment,
        }
    }
}

/// The directories of libraries: what the host's linker has in its cache, the VMM's looks for.
fn library_path(files: &[PathBuf]) -> Option<PathBuf> {
    let is_library = |file: &&PathBuf| {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.contains(".so")
    };
    let mut directories: Vec<&str> = Vec::new();
    for directory in files
        .iter()
        .filter(is_library)
        .filter_map(|file| file.parent()?.to_str())
    {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    (!directories.is_empty()).then(|| directories.join(":").into())
}

fn find(program: &Path, kind: BackendKind) -> io::Result<Known> {
    let mut files = vec![program.to_owned()];
    let mut modules = None;
    let mut firmware = Vec::new();
    let interpreter = interpreter(program)?;
    if kind == BackendKind::Qemu {
        let prefix = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        let candidates = MODULES.iter().map(|directory| prefix.join(directory));
        let mut accelerators = candidates.map(|directory| directory.join(arch::TCG_MODULE));
        if let Some(module) = accelerators.find(|module| module.is_file()) {
            modules = module.parent().map(Path::to_owned);
            files.push(module);
        }
        firmware = find_firmware(program)?;
    }
    if let Some(interpreter) = interpreter {
        let programs = files.clone();
        files.push(interpreter.clone());
        for program in programs {
            for library in libraries(&interpreter, &program)? {
                if !files.contains(&library) {
                    files.push(library);
                }
            }
        }
    }
    let stamps = |paths: &[PathBuf]| paths.iter().map(|path| stamp(path)).collect::<io::Result<_>>();
    Ok(Known {
        vmm: stamp(program)?,
        files: stamps(&files)?,
        firmware: stamps(&firmware)?,
        modules,
    })
}

fn stamp(path: &Path) -> io::Result<FileStamp> {
    FileStamp::of(path).ok_or_else(|| io::Error::other(format!("{} is gone", path.display())))
}

/// The dynamic linker of a program; none where it is static.
fn interpreter(program: &Path) -> io::Result<Option<PathBuf>> {
    let no_elf = |_| io::Error::other(format!("{} is no ELF program", program.display()));
    let file = ReadCache::new(fs::File::open(program)?);
    let header = FileHeader64::<LittleEndian>::parse(&file).map_err(no_elf)?;
    let endian = header.endian().map_err(no_elf)?;
    let segments = header.program_headers(endian, &file).map_err(no_elf)?;
    let interpreter = segments
        .iter()
        .find(|segment| segment.p_type(endian) == PT_INTERP);
    let Some(interpreter) = interpreter else {
        return Ok(None);
    };
    let path = interpreter
        .data(endian, &file)
        .map_err(|()| io::Error::other(format!("{} does not say what its linker is", program.display())))?;
    let path = String::from_utf8_lossy(path);
    Ok(Some(path.trim_end_matches('\0').into()))
}

/// The libraries that the dynamic linker would load; nothing of the program is run (ld.so(8)).
fn libraries(interpreter: &Path, program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new(interpreter).arg("--list").arg(program).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default();
        return Err(io::Error::other(format!("{}: {said}", interpreter.display())));
    }
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines such as `libz.so.1 => /lib/libz.so.1 (0x…)`; what has no path is the kernel's, or the linker itself.
fn parse_list(text: &str) -> Vec<PathBuf> {
    let paths = text.lines().filter_map(|line| {
        let (_, path) = line.split_once(" => ")?;
        let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

/// The firmware, in the directories where this QEMU looks for it.
fn find_firmware(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new(program).args(["-L", "help"]).output()?;
    let directories = String::from_utf8_lossy(&output.stdout).into_owned();
    let find = |name: &str| {
        let mut candidates = directories
            .lines()
            .map(|directory| Path::new(directory).join(name));
        candidates.find(|path| path.is_file())
    };
    let found: Vec<PathBuf> = FIRMWARE.into_iter().filter_map(find).collect();
    if found.is_empty() {
        return Err(io::Error::other(format!(
            "{} has no firmware for a microvm where it looks",
            program.display()
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_the_linker_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)\n\
                    \tlibmine.so => /opt/my lib/libmine.so (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libz.so.1", "/opt/my lib/libmine.so"];
        assert_eq!(parse_list(text), expected.map(PathBuf::from));
        let path = library_path(&parse_list(text)).unwrap();
        assert_eq!(path, Path::new("/lib/x86_64-linux-gnu:/opt/my lib"));
    }

    #[test]
    fn a_program_s_files_are_found_and_kept_until_one_changes() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::copy("/bin/true", &program).unwrap();
        let found = find(&program, BackendKind::Firecracker).unwrap();
        let names: Vec<_> = found.files.iter().map(|file| file.path().to_owned()).collect();
        assert!(
            names
                .iter()
                .any(|name| name.to_string_lossy().contains("libc.so")),
            "{names:?}"
        );
        assert!(found.holds());
        fs::write(&program, "another").unwrap();
        assert!(!found.holds());
        let error = find(&program, BackendKind::Firecracker).unwrap_err();
        assert!(error.to_string().ends_with("is no ELF program"), "{error}");
    }
}
