//! Which VMMs this host has, whether KVM runs a guest here, and so which backend to use.
//!
//! ```text
//! Search ─► executables ─► versions ─┐
//! /dev/kvm ─► a guest kernel's first words ─┴─► Report ─► select(Choice) ─► VmmBinary
//! ```
//!
//! That `/dev/kvm` exists and opens proves nothing: there are hosts where it makes a VM that runs no stock kernel. So the
//! guest kernel itself is started, and KVM works once it speaks. What was found is kept in the runtime directory until the
//! host reboots, or the files concerned change.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::VmmError;
use crate::machine::{Accel, BackendKind, Machine, MachineConfig, VmmBinary};
use crate::state::{RuntimeDir, VmId};

/// How long a guest kernel may take to say its first word on KVM. Milliseconds do on hardware; a nested one is slower.
const FIRST_WORDS: Duration = Duration::from_secs(5);
/// The first words.
const BANNER: &str = "Linux version";
/// The oldest Firecracker whose API is spoken here.
const OLDEST_FIRECRACKER: Version = (1, 7, 0);
/// The oldest QEMU whose `microvm` describes its devices by ACPI, which Debian's kernels need.
const OLDEST_QEMU: Version = (5, 2, 0);

type Version = (u32, u32, u32);

/// Which backend is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Firecracker where it is installed and KVM works, else QEMU.
    Auto,
    /// That one or none.
    Only(BackendKind),
}

impl Choice {
    fn wants(self, kind: BackendKind) -> bool {
        self == Self::Auto || self == Self::Only(kind)
    }
}

/// Where VMMs are looked for.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// This Firecracker and no other.
    pub firecracker: Option<PathBuf>,
    /// This QEMU and no other.
    pub qemu: Option<PathBuf>,
    /// Directories to look in after `PATH`.
    pub directories: Vec<PathBuf>,
}

impl Search {
    /// Names a Firecracker outside `PATH`.
    pub const FIRECRACKER_BIN: &str = "FIRECRACKER_BIN";
    /// Names a QEMU outside `PATH`.
    pub const QEMU_BIN: &str = "QEMU_BIN";

    /// The same search, with the environment's answers where there is none yet.
    #[must_use]
    pub fn or_environment(mut self) -> Self {
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        self.firecracker = self.firecracker.or_else(|| variable(Self::FIRECRACKER_BIN));
        self.qemu = self.qemu.or_else(|| variable(Self::QEMU_BIN));
        self
    }

    fn find(&self, kind: BackendKind) -> Result<PathBuf, Problem> {
        let (named, program) = match kind {
            BackendKind::Firecracker => (&self.firecracker, "firecracker"),
            BackendKind::Qemu => (&self.qemu, "qemu-system-x86_64"),
        };
        if let Some(path) = named {
            let found = executable(path).then(|| path.clone());
            return found.ok_or_else(|| Problem::Missing {
                looked_for: path.display().to_string(),
            });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(self.directories.iter().cloned());
        let found = directories
            .map(|directory| directory.join(program))
            .find(|path| executable(path));
        found.ok_or_else(|| Problem::Missing {
            looked_for: format!("{program} in PATH"),
        })
    }
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Why a VMM cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    Missing { looked_for: String },
    Unsupported { path: PathBuf, reason: String },
}

impl Problem {
    fn error(self, kind: BackendKind) -> VmmError {
        match self {
            Self::Missing { looked_for } => VmmError::Missing { kind, looked_for },
            Self::Unsupported { path, reason } => VmmError::Unsupported { kind, path, reason },
        }
    }
}

/// An executable whose version is supported.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    path: PathBuf,
    version: Version,
}

/// What is known of KVM on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    /// A guest kernel was seen running on it.
    Works,
    /// It cannot be used, and why.
    Unusable(String),
    /// Nobody could try, and why.
    Untested(String),
}

/// What this host has.
#[derive(Debug, Clone)]
pub struct Report {
    /// Whether KVM runs guests.
    pub kvm: Kvm,
    firecracker: Result<Found, Problem>,
    qemu: Result<Found, Problem>,
}

/// Something that is not there, and the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What is missing and why it matters.
    pub what: String,
    /// A command, or what to do where none helps.
    pub remedy: String,
    /// Jobs run without it.
    pub optional: bool,
}

/// The VMM to use.
///
/// # Errors
/// None is installed that would do; see [`Report::select`].
pub async fn detect(
    choice: Choice,
    search: &Search,
    kernel: &Path,
    runtime: &RuntimeDir,
) -> Result<VmmBinary, VmmError> {
    survey(choice, search, Some(kernel), runtime).await.select(choice)
}

/// Everything there is to say about this host; `kernel` is started to see whether KVM works.
pub async fn report(search: &Search, kernel: Option<&Path>, runtime: &RuntimeDir) -> Report {
    survey(Choice::Auto, search, kernel, runtime).await
}

async fn survey(choice: Choice, search: &Search, kernel: Option<&Path>, runtime: &RuntimeDir) -> Report {
    let mut memory = Memory::load(runtime);
    let mut look = |kind| {
        if !choice.wants(kind) {
            return Err(Problem::Missing {
                looked_for: "not looked for".to_owned(),
            });
        }
        let path = search.find(kind)?;
        let version = memory.version(kind, &path)?;
        Ok(Found { path, version })
    };
    let firecracker = look(BackendKind::Firecracker);
    let qemu = look(BackendKind::Qemu);
    let tester = match (&firecracker, &qemu) {
        (Ok(found), _) => Some((BackendKind::Firecracker, found)),
        (Err(_), Ok(found)) => Some((BackendKind::Qemu, found)),
        (Err(_), Err(_)) => None,
    };
    let kvm = kvm(tester, kernel, runtime, &mut memory).await;
    memory.store(runtime);
    Report {
        kvm,
        firecracker,
        qemu,
    }
}

impl Report {
    /// The VMM that serves that choice.
    ///
    /// # Errors
    /// [`VmmError::Missing`] or [`VmmError::Unsupported`]; [`VmmError::Kvm`] when Firecracker is insisted on and cannot run.
    pub fn select(&self, choice: Choice) -> Result<VmmBinary, VmmError> {
        match (choice, &self.firecracker, &self.kvm) {
            (Choice::Only(BackendKind::Firecracker) | Choice::Auto, Ok(found), Kvm::Works) => {
                Ok(binary(BackendKind::Firecracker, found, Accel::Kvm))
            }
            (Choice::Only(BackendKind::Firecracker), Err(problem), _) => {
                Err(problem.clone().error(BackendKind::Firecracker))
            }
            (
                Choice::Only(BackendKind::Firecracker),
                Ok(_),
                Kvm::Unusable(reason) | Kvm::Untested(reason),
            ) => Err(VmmError::Kvm(reason.clone())),
            (Choice::Only(BackendKind::Qemu) | Choice::Auto, ..) => {
                let found = self
                    .qemu
                    .as_ref()
                    .map_err(|problem| problem.clone().error(BackendKind::Qemu))?;
                let accel = if self.kvm == Kvm::Works {
                    Accel::Kvm
                } else {
                    Accel::Tcg
                };
                Ok(binary(BackendKind::Qemu, found, accel))
            }
        }
    }

    /// Why `auto` chooses what it chooses, as one sentence.
    #[must_use]
    pub fn why(&self) -> String {
        match (&self.firecracker, &self.qemu, &self.kvm) {
            (Ok(_), _, Kvm::Works) => "Firecracker is installed and a guest kernel ran on KVM".to_owned(),
            (Err(_), Ok(_), Kvm::Works) => "KVM works, but there is no Firecracker to use it".to_owned(),
            // The reason is one of the lacks.
            (_, Ok(_), Kvm::Unusable(_) | Kvm::Untested(_)) => {
                "KVM cannot be used, so QEMU emulates; this is slow, and meant for development and trusted networks"
                    .to_owned()
            }
            (_, Err(_), _) => "no VMM can be used".to_owned(),
        }
    }

    /// The executables that can be used.
    #[must_use]
    pub fn installed(&self) -> Vec<(BackendKind, &Path, (u32, u32, u32))> {
        let all = [
            (BackendKind::Firecracker, &self.firecracker),
            (BackendKind::Qemu, &self.qemu),
        ];
        let usable = all
            .into_iter()
            .filter_map(|(kind, found)| Some((kind, found.as_ref().ok()?)));
        usable
            .map(|(kind, found)| (kind, found.path.as_path(), found.version))
            .collect()
    }

    /// What is missing.
    #[must_use]
    pub fn lacks(&self) -> Vec<Lack> {
        let runs = self.select(Choice::Auto).is_ok();
        let mut lacks = Vec::new();
        for (kind, found) in [
            (BackendKind::Firecracker, &self.firecracker),
            (BackendKind::Qemu, &self.qemu),
        ] {
            if let Err(problem) = found {
                let what = problem.clone().error(kind).to_string();
                lacks.push(Lack {
                    what,
                    remedy: remedy(kind).to_owned(),
                    optional: runs,
                });
            }
        }
        if let Kvm::Unusable(reason) | Kvm::Untested(reason) = &self.kvm {
            let remedy = match &self.kvm {
                Kvm::Untested(_) => "host-agent setup",
                _ if forbidden(&open_kvm()) => "usermod --append --groups kvm \"$USER\", then log in again",
                _ => "use a machine with hardware virtualization, or one that passes it on to its VMs",
            };
            let what = format!("KVM cannot be used: {reason}");
            lacks.push(Lack {
                what,
                remedy: remedy.to_owned(),
                optional: runs,
            });
        }
        lacks
    }
}

/// The command that installs a VMM.
pub(crate) fn remedy(kind: BackendKind) -> &'static str {
    match kind {
        BackendKind::Firecracker => "host-agent setup --firecracker 1.16.1",
        BackendKind::Qemu => "apt-get install qemu-system-x86",
    }
}

fn binary(kind: BackendKind, found: &Found, accel: Accel) -> VmmBinary {
    VmmBinary {
        kind,
        path: found.path.clone(),
        version: found.version,
        accel,
    }
}

async fn kvm(
    tester: Option<(BackendKind, &Found)>,
    kernel: Option<&Path>,
    runtime: &RuntimeDir,
    memory: &mut Memory,
) -> Kvm {
    if let Err(error) = open_kvm() {
        return Kvm::Unusable(match error.kind() {
            io::ErrorKind::NotFound => "there is no /dev/kvm".to_owned(),
            _ => format!("/dev/kvm cannot be opened: {error}"),
        });
    }
    let Some((kind, found)) = tester else {
        return Kvm::Untested("there is no VMM to try it with".to_owned());
    };
    let Some((kernel, seen)) = kernel.and_then(|kernel| Some((kernel, FileStamp::of(kernel)?))) else {
        return Kvm::Untested("there is no guest kernel to try it with".to_owned());
    };
    let subject = (FileStamp::of(&found.path), seen);
    if let Some(known) = memory
        .verdicts
        .iter()
        .find(|known| (&known.vmm, &known.kernel) == (&subject.0, &subject.1))
    {
        return known.fault.clone().map_or(Kvm::Works, Kvm::Unusable);
    }
    let fault = match try_kvm(&binary(kind, found, Accel::Kvm), kernel, runtime).await {
        Ok(fault) => fault,
        // Nothing that is worth remembering: a full disk, a broken kernel image.
        Err(error) => return Kvm::Untested(error.to_string()),
    };
    memory.verdicts.push(Verdict {
        vmm: subject.0,
        kernel: subject.1,
        fault: fault.clone(),
    });
    fault.map_or(Kvm::Works, Kvm::Unusable)
}

fn open_kvm() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/kvm")
}

fn forbidden(opened: &io::Result<File>) -> bool {
    opened
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Starts the kernel, with nothing else in the machine, and waits for its first words. Gives what is wrong with KVM, if
/// anything is.
async fn try_kvm(vmm: &VmmBinary, kernel: &Path, runtime: &RuntimeDir) -> Result<Option<String>, VmmError> {
    let config = MachineConfig {
        dir: runtime.create(VmId::random()?)?,
        kernel: kernel.to_owned(),
        initramfs: None,
        root: None,
        scratch: None,
        vcpus: 1,
        memory_mib: MachineConfig::MIN_MEMORY_MIB,
        cid: 3,
        // In this order: the early console shows what has been said by then as loud as it is told by then.
        extra_kernel_args: vec!["loglevel=7".to_owned(), "earlyprintk=ttyS0".to_owned()],
        keep_console: None,
        snapshot_dir: None,
    };
    let booted = Machine::boot(vmm, config).await;
    let machine = match booted {
        Err(VmmError::NotStarted { exit, stderr }) => {
            let said = stderr.into_iter().next().unwrap_or_else(|| exit.to_string());
            return Ok(Some(format!("{} does not start on it: {said}", vmm.kind)));
        }
        Err(VmmError::Refused { fault, .. }) => {
            return Ok(Some(format!("{} does not start on it: {fault}", vmm.kind)));
        }
        other => other?,
    };
    let console = machine.console();
    let spoke = tokio::select! {
        biased;
        () = console.shows(BANNER) => true,
        // It may have spoken and then run to its end before we looked.
        _ = machine.exited() => false,
        () = tokio::time::sleep(FIRST_WORDS) => false,
    };
    let spoke = spoke || String::from_utf8_lossy(&console.bytes()).contains(BANNER);
    machine.shutdown().await;
    Ok((!spoke).then(|| {
        format!(
            "a guest kernel started on it said nothing within {} s; it may be a partial or nested KVM",
            FIRST_WORDS.as_secs()
        )
    }))
}

/// What was found out since the host's boot.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    boot_id: String,
    versions: Vec<KnownVersion>,
    verdicts: Vec<Verdict>,
    #[serde(skip)]
    loaded: (usize, usize),
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownVersion {
    vmm: FileStamp,
    version: Version,
}

#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    vmm: Option<FileStamp>,
    kernel: FileStamp,
    /// Why KVM cannot be used, if it cannot.
    fault: Option<String>,
}

/// Tells a file from an earlier one of that name, without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileStamp {
    path: PathBuf,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileStamp {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is still the same.
    pub(crate) fn holds(&self) -> bool {
        Self::of(&self.path).as_ref() == Some(self)
    }
}

impl Memory {
    const NAME: &str = "probe.json";

    /// What cannot be read is found out again.
    fn load(runtime: &RuntimeDir) -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned();
        let stored = fs::read(runtime.path().join(Self::NAME)).ok();
        let stored = stored.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        match stored.filter(|stored| stored.boot_id == boot_id && !boot_id.is_empty()) {
            Some(stored) => Self {
                loaded: (stored.versions.len(), stored.verdicts.len()),
                ..stored
            },
            None => Self {
                boot_id,
                ..Self::default()
            },
        }
    }

    /// Kept for the next run where that is possible; nothing depends on it.
    fn store(&self, runtime: &RuntimeDir) {
        if self.loaded == (self.versions.len(), self.verdicts.len()) {
            return;
        }
        let write = || {
            let _guard = runtime.guard()?;
            let new = runtime.path().join("probe.json.new");
            let write = || {
                fs::write(&new, serde_json::to_vec(self)?)?;
                fs::rename(&new, runtime.path().join(Self::NAME))
            };
            write().map_err(|error: io::Error| VmmError::state("write", &new, error))
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "What was found out about this host is not kept");
        }
    }

    fn version(&mut self, kind: BackendKind, path: &Path) -> Result<Version, Problem> {
        let stamp = FileStamp::of(path);
        let known = self
            .versions
            .iter()
            .find(|known| Some(&known.vmm) == stamp.as_ref());
        let version = match known {
            Some(known) => known.version,
            None => ask_version(kind, path)?,
        };
        if let (None, Some(vmm)) = (known, stamp) {
            self.versions.push(KnownVersion { vmm, version });
        }
        Ok(version)
    }
}

/// Runs the executable for its version, which also shows that it runs at all, and that QEMU has its own sandbox.
fn ask_version(kind: BackendKind, path: &Path) -> Result<Version, Problem> {
    let unsupported = |reason| Problem::Unsupported {
        path: path.to_owned(),
        reason,
    };
    let (arguments, oldest): (&[&str], _) = match kind {
        BackendKind::Firecracker => (&["--version"], OLDEST_FIRECRACKER),
        BackendKind::Qemu => (&["-sandbox", "on", "--version"], OLDEST_QEMU),
    };
    let output = Command::new(path).args(arguments.iter().map(OsStr::new)).output();
    let output = output.map_err(|error| unsupported(format!("it does not run: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said
            .lines()
            .next()
            .map_or_else(String::new, |line| format!(": {line}"));
        let status = output.status;
        return Err(unsupported(format!(
            "asked for its version it ended with {status}{said}"
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let version =
        parse_version(&text).ok_or_else(|| unsupported("it does not tell its version".to_owned()))?;
    if version < oldest {
        let (major, minor, patch) = version;
        let (least, least_minor, _) = oldest;
        return Err(unsupported(format!(
            "it is {major}.{minor}.{patch}; {least}.{least_minor} is the oldest that will do"
        )));
    }
    Ok(version)
}

/// The first `1.2.3`, or `1.2`, in the first line: `Firecracker v1.7.0`, `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<Version> {
    let words = text.lines().next()?.split_whitespace();
    words.map(|word| word.trim_start_matches('v')).find_map(|word| {
        let mut numbers = word.splitn(3, '.').map(|number| {
            let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            number[..digits].parse().ok()
        });
        let major = numbers.next()??;
        let minor = numbers.next()??;
        Some((major, minor, numbers.next().flatten().unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        let qemu =
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n";
        assert_eq!(parse_version(qemu), Some((7, 2, 22)));
        assert_eq!(
            parse_version("Firecracker v1.16.1\n\nSupported snapshot data format"),
            Some((1, 16, 1))
        );
        assert_eq!(parse_version("Firecracker v1.9.0-dev"), Some((1, 9, 0)));
        assert_eq!(parse_version("QEMU emulator version 9.2"), Some((9, 2, 0)));
        assert_eq!(parse_version("no number"), None);
        assert_eq!(parse_version(""), None);
    }

    fn found(name: &str) -> Result<Found, Problem> {
        Ok(Found {
            path: name.into(),
            version: (1, 16, 1),
        })
    }

    fn missing() -> Result<Found, Problem> {
        Err(Problem::Missing {
            looked_for: "x in PATH".to_owned(),
        })
    }

    fn selected(report: &Report, choice: Choice) -> (BackendKind, Accel) {
        let binary = report.select(choice).unwrap();
        (binary.kind, binary.accel)
    }

    #[test]
    fn firecracker_is_for_where_kvm_works() {
        use BackendKind::{Firecracker, Qemu};
        let report = Report {
            kvm: Kvm::Works,
            firecracker: found("fc"),
            qemu: found("qemu"),
        };
        assert_eq!(selected(&report, Choice::Auto), (Firecracker, Accel::Kvm));
        assert_eq!(selected(&report, Choice::Only(Qemu)), (Qemu, Accel::Kvm));
        let report = Report {
            firecracker: missing(),
            ..report
        };
        assert_eq!(selected(&report, Choice::Auto), (Qemu, Accel::Kvm));
        assert!(matches!(
            report.select(Choice::Only(Firecracker)),
            Err(VmmError::Missing { .. })
        ));
        let report = Report {
            kvm: Kvm::Unusable("no".into()),
            firecracker: found("fc"),
            ..report
        };
        assert_eq!(selected(&report, Choice::Auto), (Qemu, Accel::Tcg));
        assert!(matches!(
            report.select(Choice::Only(Firecracker)),
            Err(VmmError::Kvm(_))
        ));
        let report = Report {
            qemu: missing(),
            ..report
        };
        assert!(matches!(
            report.select(Choice::Auto),
            Err(VmmError::Missing { kind: Qemu, .. })
        ));
        assert!(
            report.lacks().iter().all(|lack| !lack.optional),
            "{:?}",
            report.lacks()
        );
    }

    fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn versions_are_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::open(dir.path().join("run")).unwrap();
        let log = dir.path().join("asked");
        let path = script(
            dir.path(),
            "firecracker",
            &format!("echo asked >>{}; echo Firecracker v1.7.0", log.display()),
        );
        for _ in 0..2 {
            let mut memory = Memory::load(&runtime);
            assert_eq!(memory.version(BackendKind::Firecracker, &path), Ok((1, 7, 0)));
            memory.store(&runtime);
        }
        assert_eq!(fs::read_to_string(log).unwrap(), "asked\n");
    }

    #[test]
    fn unusable_programs_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let old = script(dir.path(), "old", "echo Firecracker v1.6.0");
        let broken = script(dir.path(), "broken", "echo no such option >&2; exit 1");
        for (path, words) in [
            (old, "it is 1.6.0; 1.7 is the oldest"),
            (broken, "no such option"),
        ] {
            let Err(Problem::Unsupported { reason, .. }) = ask_version(BackendKind::Firecracker, &path)
            else {
                panic!()
            };
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn a_named_program_is_not_replaced_by_another() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "firecracker", "true");
        let directories = vec![dir.path().to_owned()];
        let search = Search {
            directories: directories.clone(),
            ..Search::default()
        };
        assert!(search.find(BackendKind::Firecracker).is_ok());
        let search = Search {
            firecracker: Some("/nonexistent/firecracker".into()),
            directories,
            ..Search::default()
        };
        let looked_for = "/nonexistent/firecracker".to_owned();
        assert_eq!(
            search.find(BackendKind::Firecracker),
            Err(Problem::Missing { looked_for })
        );
    }
}
