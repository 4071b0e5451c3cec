//! Firecracker: configured over its API socket, reached over its vsock.
//!
//! ```text
//! MachineConfig ─► firecracker (in its jail) ── serial port (stdout) ─► Console
//!                      ▲   │  ├─ log.fifo ─► Console
//!                      │   │  ├─ metrics.fifo ─► Metrics
//!   api.sock ◄─ Client ┘   │  └─ virtio-blk: rootfs (read-only), scratch
//!                          └─ v.sock ◄─ handshake ─ Channel…
//!
//! At its API ─ version, logger, metrics ─► Prespawned
//! Prespawned ─ machine-config, boot-source, drives, vsock ─► InstanceStart ─► Running
//! Prespawned ─ snapshot/load, resuming ─► Running
//! Running ─ SendCtrlAltDel, or SIGKILL after a second ─► gone
//! Running ─ pause, snapshot/create, SIGKILL ─► gone
//! ```
//!
//! All paths that a snapshot remembers are given relative to Firecracker's working directory, which is the machine's, or the root that
//! its jailer made: they are true in any other directory too. The shared root filesystem is a symbolic link there, or mounted.

mod api;
mod client;
mod fifo;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handshake;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde_json::Value;
use tokio::time::timeout;

use self::api::actions::Action;
use self::api::boot_source::BootSource;
use self::api::drives::Drive;
use self::api::logger::{Level, Logger};
use self::api::snapshot_create::{SnapshotCreate, SnapshotType};
use self::api::snapshot_load::{BackendType, MemoryBackend, SnapshotLoad, VsockOverride};
use self::api::version::Version;
use self::api::vsock::Vsock;
use self::api::{Request, version, vm};
use self::client::Client;
use self::fifo::Metrics;
use crate::channel::Channel;
use crate::console::Console;
use crate::error::VmmError;
use crate::jail::{Jail, Launch, Layer, Size};
use crate::machine::{
    Accel, BackendKind, BootTimings, MachineConfig, RestoreConfig, RestoreTimings, RootDrive, Shutdown,
    Started, VmmBinary,
};
use crate::process::{VmmExit, VmmProcess};
use crate::snapshot::{Draft, SnapshotFile, SnapshotFiles};
use crate::state::VmDir;
use crate::{arch, disks, snapshot};

/// Names in the machine's directory.
const API_SOCKET: &str = "api.sock";
const VSOCK_SOCKET: &str = "v.sock";
const ROOT: &str = "rootfs.img";
const KERNEL: &str = "kernel";
const INITRAMFS: &str = "initramfs";
const MEMORY: &str = "memory";
const STATE: &str = "state";
const LOG: &str = "log.fifo";
const METRICS: &str = "metrics.fifo";

/// How long Firecracker may take from its start to its API.
const START: Duration = Duration::from_secs(10);
/// How long the guest may take to end after Ctrl-Alt-Del.
const POLITE: Duration = Duration::from_secs(1);
/// How long a flush of the metrics may take to arrive.
const FLUSH: Duration = Duration::from_secs(1);
/// How long a VMM that broke a connection off may take to be seen dead.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Lines of Firecracker's log that an error shows.
const LOG_LINES: usize = 5;

/// A Firecracker that takes requests, and has been told where log and metrics go.
#[derive(Debug)]
struct Firecracker {
    process: VmmProcess,
    home: Home,
    client: Client,
    version: Version,
    log: Console,
    metrics: Metrics,
    /// From the process's start to its API.
    vmm_spawn: Duration,
    /// When that was there.
    listening: Instant,
}

impl Firecracker {
    /// Starts the process, which also inherits the descriptors of `inherit`, and waits for it.
    async fn start(
        vmm: &VmmBinary,
        (jail, inherit): (Jail, Vec<OwnedFd>),
        keep_console: Option<&Path>,
        dir: &mut VmDir,
    ) -> Result<Self, VmmError> {
        let home = Home::open(jail.home(dir))?;
        let log = fifo::create(&home.path.join(LOG))?;
        let metrics = fifo::create(&home.path.join(METRICS))?;
        for name in [LOG, METRICS] {
            jail.give(&home.path.join(name))?;
        }
        let client = Client::new(home.socket(API_SOCKET));

        let began = Instant::now();
        let mut process = VmmProcess::spawn(launch(vmm, jail, inherit, dir), keep_console)?;
        dir.record_process(process.pid())?;
        or_death(&process, client.listening(START))
            .await
            .map_err(VmmError::at_start)?;
        let listening = Instant::now();
        let version = or_death(&process, introduce(&client, vmm))
            .await
            .map_err(VmmError::at_start)?;
        if is_filtered(process.pid()) {
            process.also(Layer::Seccomp);
        }

        // Firecracker has both open since it was told of them.
        let log =
            Console::capture(log, None).map_err(|error| VmmError::state("read", Path::new(LOG), error))?;
        Ok(Self {
            process,
            home,
            client,
            version,
            log,
            metrics: Metrics::read(metrics),
            vmm_spawn: listening - began,
            listening,
        })
    }

    /// Sends requests in their order, up to a refusal.
    async fn send_all(&self, requests: Vec<Request>) -> Result<(), VmmError> {
        let sent = async {
            for request in requests {
                self.client.send(request).await?;
            }
            Ok(())
        };
        or_death(&self.process, sent)
            .await
            .map_err(|error| self.with_log(error))
    }

    /// Sends a request that has to be answered by `deadline`.
    async fn send_by(&self, request: Request, deadline: Instant) -> Result<(), VmmError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let sent = self.client.send_within(request, left);
        let sent = or_death(&self.process, sent).await;
        sent.map(drop).map_err(|error| self.with_log(error))
    }

    async fn died(&self) -> VmmError {
        self.with_log(self.process.died().await)
    }

    /// Adds to the last words of a Firecracker those in its log.
    fn with_log(&self, mut error: VmmError) -> VmmError {
        if let VmmError::Died { stderr, .. } = &mut error {
            stderr.extend(self.log.tail_lines(LOG_LINES));
        }
        error
    }
}

/// Firecracker's directory. In a jail its path may be longer than an address of a socket.
#[derive(Debug)]
struct Home {
    directory: OwnedFd,
    path: PathBuf,
}

impl Home {
    fn open(path: &Path) -> Result<Self, VmmError> {
        let directory = File::open(path).map_err(|error| VmmError::state("open", path, error))?;
        Ok(Self {
            directory: directory.into(),
            path: path.to_owned(),
        })
    }

    /// The address of a socket in it, for as long as this lives.
    fn socket(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd()).into()
    }
}

/// Whether Firecracker has put its seccomp filter on its API's thread. The filter of some builds is empty.
fn is_filtered(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let mut threads = threads.into_iter().flatten().flatten();
    threads.any(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| {
            line.strip_prefix("Seccomp:")
                .is_some_and(|mode| mode.trim() == "2")
        })
    })
}

/// The layers that a Firecracker has which waits at its API.
pub(crate) async fn layers(vmm: &VmmBinary, mut dir: VmDir) -> Result<Vec<Layer>, VmmError> {
    let jail = Jail::prepare(vmm, Size::LEAST, &mut dir)?;
    let firecracker = Firecracker::start(vmm, (jail, Vec::new()), None, &mut dir).await?;
    Ok(firecracker.process.layers().to_vec())
}

/// A machine on Firecracker.
// The order is that of release: the process first, its directory last.
#[derive(Debug)]
pub struct Vm {
    firecracker: Firecracker,
    started: Started,
    /// What it can be frozen into, and what it calls that.
    draft: Option<(Draft, Frozen)>,
    _dir: VmDir,
}

impl Vm {
    pub(crate) async fn boot(vmm: &VmmBinary, mut config: MachineConfig) -> Result<Self, VmmError> {
        let size = Size {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
        };
        let mut jail = Jail::prepare(vmm, size, &mut config.dir)?;
        let home = jail.home(&config.dir).to_owned();
        let scratch = disks::prepare(&config, &home)?;
        if let Some(scratch) = &scratch {
            jail.give(scratch)?;
        }
        show_root(config.root.as_ref(), &home, &mut jail)?;
        let boot = BootFiles {
            kernel: shared(&config.kernel, KERNEL, &mut jail)?,
            initramfs: config
                .initramfs
                .as_deref()
                .map(|path| shared(path, INITRAMFS, &mut jail))
                .transpose()?,
        };
        let draft = config.snapshot_dir.as_deref().map(Draft::create).transpose()?;
        let frozen = draft
            .as_ref()
            .map(|draft| Frozen::in_jail(draft, &mut jail))
            .transpose()?;
        let requests = machine(&config, &boot, scratch.as_deref())?;
        let keep_console = config.keep_console.as_deref();
        let firecracker = Firecracker::start(vmm, (jail, Vec::new()), keep_console, &mut config.dir).await?;
        let configured = firecracker.send_all(requests).await;
        configured.map_err(|error| with_full_disk(with_kvm(error.at_start()), config.dir.path()))?;
        let timings = BootTimings {
            vmm_spawn: firecracker.vmm_spawn,
            configure: firecracker.listening.elapsed(),
        };
        Ok(Self {
            firecracker,
            started: Started::Booted(timings),
            draft: draft.zip(frozen),
            _dir: config.dir,
        })
    }

    pub(crate) async fn snapshot(mut self, deadline: Instant) -> Result<SnapshotFiles, VmmError> {
        let (mut draft, frozen) = self.draft.take().ok_or_else(snapshot::not_meant)?;
        let pause = vm::State::Paused.request();
        let create = SnapshotCreate {
            snapshot_type: SnapshotType::Full,
            snapshot_path: &frozen.state,
            mem_file_path: &frozen.memory,
        };
        self.firecracker.send_by(pause, deadline).await?;
        let created = self.firecracker.send_by(create.request(), deadline).await;
        created.map_err(|error| with_full_disk(error, draft.memory()))?;
        self.firecracker.process.kill();
        self.exited().await;
        draft.keep_scratch(&self.firecracker.home.path)?;
        draft.complete(None).await
    }

    pub(crate) async fn connect(&self, port: u32, deadline: Instant) -> Result<Channel, VmmError> {
        let socket = self.firecracker.home.socket(VSOCK_SOCKET);
        tokio::select! {
            stream = handshake::connect(&socket, port, deadline) => stream.map(Channel::from),
            error = self.failed() => Err(error),
        }
    }

    pub(crate) fn console(&self) -> Console {
        self.firecracker.process.console()
    }

    pub(crate) fn started(&self) -> Started {
        self.started
    }

    pub(crate) fn pid(&self) -> u32 {
        self.firecracker.process.pid()
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        self.firecracker.process.layers()
    }

    pub(crate) async fn exited(&self) -> VmmExit {
        self.firecracker.process.exited().await
    }

    pub(crate) async fn failed(&self) -> VmmError {
        self.firecracker.died().await
    }

    /// Firecracker's last metrics, as it documents them; it writes them once a minute.
    #[must_use]
    pub fn metrics(&self) -> Option<Value> {
        self.firecracker.metrics.last()
    }

    /// Has Firecracker write its metrics now.
    ///
    /// # Errors
    /// [`VmmError::Refused`] or [`VmmError::Unanswered`].
    pub async fn flush_metrics(&self) -> Result<Value, VmmError> {
        let next = self.firecracker.metrics.next();
        let request = Action::FlushMetrics.request();
        let name = request.to_string();
        self.firecracker.client.send(request).await?;
        let unanswered = || VmmError::Unanswered {
            request: name,
            reason: "no metrics came".to_owned(),
        };
        timeout(FLUSH, next).await.ok().flatten().ok_or_else(unanswered)
    }

    /// The end of Firecracker's own log: warnings and errors.
    #[must_use]
    pub fn log(&self) -> Console {
        self.firecracker.log.clone()
    }

    pub(crate) async fn shutdown(self) -> Shutdown {
        let began = Instant::now();
        let Firecracker { process, client, .. } = &self.firecracker;
        let polite = async {
            // A refusal means a guest that is ending or has no keyboard; the wait tells which.
            let _ = client.send_within(Action::SendCtrlAltDel.request(), POLITE).await;
            process.exited().await
        };
        let (graceful, exit) = match timeout(POLITE, polite).await {
            Ok(exit) => (exit.code() == Some(0), exit),
            Err(_) => {
                process.kill();
                (false, process.exited().await)
            }
        };
        Shutdown {
            graceful,
            took: began.elapsed(),
            exit,
        }
    }
}

/// A Firecracker that waits for a snapshot.
// The order is that of release, as in `Vm`.
#[derive(Debug)]
pub struct Prespawned {
    firecracker: Firecracker,
    /// The snapshot's files, as Firecracker finds them: in its root, or as descriptors that it inherited.
    memory: String,
    state: String,
    /// What errors call the state.
    path: PathBuf,
    dir: VmDir,
}

impl Prespawned {
    pub(crate) async fn spawn(vmm: &VmmBinary, mut config: RestoreConfig) -> Result<Self, VmmError> {
        let size = Size {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
        };
        let mut jail = Jail::prepare(vmm, size, &mut config.dir)?;
        let home = jail.home(&config.dir).to_owned();
        let root = config.root.as_ref();
        let template = config.scratch.as_ref().map(SnapshotFile::open_path);
        let scratch = disks::prepare_disks(root, template.as_deref(), &home)?;
        if let Some(scratch) = &scratch {
            jail.give(scratch)?;
        }
        show_root(root, &home, &mut jail)?;
        let mut inherit = Vec::new();
        let mut name = |file: &SnapshotFile, name| snapshot_file(file, name, &mut jail, &mut inherit);
        let memory = name(&config.memory, MEMORY)?;
        let state = name(&config.state, STATE)?;
        let keep_console = config.keep_console.as_deref();
        let firecracker = Firecracker::start(vmm, (jail, inherit), keep_console, &mut config.dir).await?;
        Ok(Self {
            firecracker,
            memory,
            state,
            path: config.state.path().to_owned(),
            dir: config.dir,
        })
    }

    pub(crate) async fn restore(self, deadline: Instant) -> Result<Vm, VmmError> {
        let load = SnapshotLoad {
            snapshot_path: &self.state,
            mem_backend: MemoryBackend {
                backend_type: BackendType::File,
                backend_path: &self.memory,
            },
            resume_vm: true,
            vsock_override: VsockOverride::for_version(self.firecracker.version, VSOCK_SOCKET),
        };
        let began = Instant::now();
        let loaded = self.firecracker.send_by(load.request(), deadline).await;
        loaded.map_err(|error| with_full_disk(with_kvm(error), self.dir.path()).at_restore(&self.path))?;
        let timings = RestoreTimings {
            vmm_spawn: self.firecracker.vmm_spawn,
            load: began.elapsed(),
        };
        Ok(Vm {
            firecracker: self.firecracker,
            started: Started::Restored(timings),
            draft: None,
            _dir: self.dir,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.firecracker.process.pid()
    }

    pub(crate) async fn failed(&self) -> VmmError {
        self.firecracker.died().await
    }
}

fn launch(vmm: &VmmBinary, mut jail: Jail, inherit: Vec<OwnedFd>, dir: &VmDir) -> Launch {
    let mut arguments: Vec<OsString> = Vec::new();
    // A jailer gives it one.
    if !jail.has_jailer() {
        arguments.extend(["--id".into(), dir.id().as_str().into()]);
    }
    // Until the log has its own place, its lines would be taken for the guest's.
    arguments.extend(["--api-sock", API_SOCKET, "--level", "Error"].map(OsString::from));
    let directory = Some(jail.home(dir).to_owned());
    let (program, arguments) = jail.command(&vmm.path, arguments);
    Launch {
        arguments,
        directory,
        inherit,
        jail,
        ..Launch::of(&program)
    }
}

/// What a machine boots, as Firecracker finds it.
struct BootFiles {
    kernel: String,
    initramfs: Option<String>,
}

/// The files of a snapshot to be made, as Firecracker finds them.
#[derive(Debug)]
struct Frozen {
    memory: String,
    state: String,
}

impl Frozen {
    fn in_jail(draft: &Draft, jail: &mut Jail) -> Result<Self, VmmError> {
        let mut name = |path: &Path, name| {
            let file = OpenOptions::new().read(true).write(true).open(path);
            let file = file.map_err(|error| VmmError::state("open", path, error))?;
            match jail.show(&file, path, name, true)? {
                Some(name) => Ok(name.to_owned()),
                None => utf8(path).map(str::to_owned),
            }
        };
        Ok(Self {
            memory: name(draft.memory(), MEMORY)?,
            state: name(draft.state(), STATE)?,
        })
    }
}

/// How Firecracker finds an open file of a snapshot.
fn snapshot_file(
    file: &SnapshotFile,
    name: &'static str,
    jail: &mut Jail,
    inherit: &mut Vec<OwnedFd>,
) -> Result<String, VmmError> {
    if let Some(name) = jail.show(file.file(), file.path(), name, false)? {
        return Ok(name.to_owned());
    }
    let file = file.share()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    inherit.push(file);
    Ok(path)
}

/// The requests that describe a machine, in the order in which they are sent.
fn machine(
    config: &MachineConfig,
    boot: &BootFiles,
    scratch: Option<&Path>,
) -> Result<Vec<Request>, VmmError> {
    let boot_args = arch::kernel_command_line(BackendKind::Firecracker, Accel::Kvm, None, config);
    let mut requests = vec![
        api::machine_config::MachineConfig {
            vcpu_count: config.vcpus,
            mem_size_mib: config.memory_mib,
            smt: false,
        }
        .request(),
        BootSource {
            kernel_image_path: &boot.kernel,
            initrd_path: boot.initramfs.as_deref(),
            boot_args: &boot_args,
        }
        .request(),
    ];
    if config.root.is_some() {
        let drive = Drive {
            drive_id: "rootfs",
            path_on_host: ROOT,
            is_root_device: true,
            is_read_only: true,
        };
        requests.push(drive.request());
    }
    if let Some(name) = scratch.and_then(Path::file_name) {
        let path = utf8(Path::new(name))?;
        let drive = Drive {
            drive_id: "scratch",
            path_on_host: path,
            is_root_device: false,
            is_read_only: false,
        };
        requests.push(drive.request());
    }
    requests.push(
        Vsock {
            guest_cid: config.cid,
            uds_path: VSOCK_SOCKET,
        }
        .request(),
    );
    requests.push(Action::InstanceStart.request());
    Ok(requests)
}

/// Gives the root filesystem a name in Firecracker's directory. A snapshot remembers that name, wherever the file is by then.
fn show_root(root: Option<&RootDrive>, home: &Path, jail: &mut Jail) -> Result<(), VmmError> {
    let Some(root) = root else { return Ok(()) };
    let file = File::open(&root.path).map_err(|error| VmmError::state("read", &root.path, error))?;
    if jail.show(&file, &root.path, ROOT, false)?.is_some() {
        return Ok(());
    }
    let link = home.join(ROOT);
    let linked = std::path::absolute(&root.path).and_then(|path| std::os::unix::fs::symlink(path, &link));
    linked.map_err(|error| VmmError::state("create", &link, error))
}

/// How Firecracker finds a file of the host's that several machines use: by a path that does not depend on a machine's directory, or
/// by that name where it sees no other.
fn shared(path: &Path, name: &'static str, jail: &mut Jail) -> Result<String, VmmError> {
    let path = std::path::absolute(path).map_err(|error| VmmError::state("find", path, error))?;
    let file = File::open(&path).map_err(|error| VmmError::state("read", &path, error))?;
    match jail.show(&file, &path, name, false)? {
        Some(name) => Ok(name.to_owned()),
        None => utf8(&path).map(str::to_owned),
    }
}

fn utf8(path: &Path) -> Result<&str, VmmError> {
    path.to_str().ok_or_else(|| {
        VmmError::Config(format!(
            "the path {} is not UTF-8, as Firecracker needs it",
            path.display()
        ))
    })
}

/// Checks the version, and says where log and metrics go.
async fn introduce(client: &Client, vmm: &VmmBinary) -> Result<Version, VmmError> {
    let answer = client.send(version::request()).await?;
    let version = check_version(&vmm.path, &answer)?;
    let log = Logger {
        log_path: LOG,
        level: Level::Warning,
        show_level: true,
    };
    client.send(log.request()).await?;
    let metrics = api::metrics::Metrics {
        metrics_path: METRICS,
    };
    client.send(metrics.request()).await?;
    Ok(version)
}

fn check_version(path: &Path, answer: &[u8]) -> Result<Version, VmmError> {
    let unsupported = |reason| VmmError::Unsupported {
        kind: BackendKind::Firecracker,
        path: path.to_owned(),
        reason,
    };
    let Some(version) = version::answer(answer) else {
        return Err(unsupported("GET /version gives no version".to_owned()));
    };
    let (major, minor, patch) = version;
    if version < version::OLDEST {
        return Err(unsupported(format!(
            "version {major}.{minor}.{patch} is older than 1.7.0"
        )));
    }
    if version >= version::UNTRIED {
        tracing::warn!("Firecracker {major}.{minor}.{patch} is newer than any that was tried (1.7 to 1.16)");
    }
    Ok(version)
}

/// Does `work` with a process that may end meanwhile, which then is the error.
async fn or_death<T>(
    process: &VmmProcess,
    work: impl Future<Output = Result<T, VmmError>>,
) -> Result<T, VmmError> {
    let result = tokio::select! {
        result = work => result,
        error = process.died() => Err(error),
    };
    match result {
        // A connection that breaks off is the sign of a VMM that is about to say why.
        Err(error @ VmmError::Unanswered { .. }) => {
            Err(timeout(LAST_WORDS, process.died()).await.unwrap_or(error))
        }
        result => result,
    }
}

/// Firecracker opens `/dev/kvm` when it makes the machine; that it could not is the host's matter, not the request's.
fn with_kvm(error: VmmError) -> VmmError {
    let VmmError::Refused { request, fault } = &error else {
        return error;
    };
    let start = Action::InstanceStart.request().to_string();
    if *request != start && request != "PUT /snapshot/load" {
        return error;
    }
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => error,
        Err(reason) => VmmError::Kvm(format!("/dev/kvm: {reason} (Firecracker: {fault})")),
    }
}

/// That Firecracker found no room for what it writes at `path` is the host's matter too.
fn with_full_disk(error: VmmError, path: &Path) -> VmmError {
    match &error {
        VmmError::Refused { fault, .. } if speaks_of_full_disk(fault) => VmmError::DiskFull(path.to_owned()),
        _ => error,
    }
}

/// Whether a fault quotes such an error of the kernel's. Some of Firecracker's faults have it as Rust displays it, some as Rust
/// prints it for debugging.
fn speaks_of_full_disk(fault: &str) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|errno| {
        let code = errno.raw_os_error();
        fault.contains(&format!("(os error {code})")) || fault.contains(&format!("Os {{ code: {code}, "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_faults() {
        for full in [
            std::io::Error::from_raw_os_error(28),
            std::io::Error::from_raw_os_error(122),
        ] {
            assert!(speaks_of_full_disk(&format!("Cannot write: {full}")));
            assert!(speaks_of_full_disk(&format!("Cannot write: Io({full:?})")));
        }
        let other = std::io::Error::from_raw_os_error(2);
        assert!(!speaks_of_full_disk(&format!("{other} {other:?} 28")));
    }

    #[test]
    fn old_versions_are_refused() {
        let check = |version: &str| {
            let answer = format!("{{\"firecracker_version\":\"{version}\"}}");
            check_version(Path::new("/usr/bin/firecracker"), answer.as_bytes())
        };
        for good in ["1.7.0", "1.16.1", "1.17.0", "2.0.0"] {
            check(good).unwrap();
        }
        let error = check("1.6.9").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/usr/bin/firecracker is not a firecracker that can be used: version 1.6.9 is older than 1.7.0"
        );
        assert!(matches!(check("new"), Err(VmmError::Unsupported { .. })));
    }
}
