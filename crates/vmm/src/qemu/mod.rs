//! QEMU's `microvm` machine, on KVM or emulated.
//!
//! ```text
//! MachineConfig ─► args ─► qemu-system-x86_64 ── serial port (stdout) ─► Console
//! RestoreConfig ─┘              │  ├─ virtio-serial port "runner" ◄─mux─► Port ◄─► Channel…
//!                               │  ├─ QMP: up? migrate, migrate-incoming; out of disk?
//!                               │  └─ memory: a file of its own, or a snapshot's, copy-on-write
//!                               └─ virtio-blk: root (read-only), scratch
//!
//! snapshot:  Running ─ migrate, all but memory ─► a socket ─► `state`;  the memory file is `memory`;  SIGKILL ─► gone
//! restore:   -incoming defer ─ capabilities ─► Prespawned ─ migrate-incoming ─► Running
//! ```
//!
//! Everything QEMU needs is on its command line and in descriptors that it inherits or is sent: no socket has a name, and of the
//! host's files it opens only kernel and initramfs itself.

mod args;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod port;
mod qmp;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{timeout, timeout_at};

use self::args::{Disks, Hardware, Start, Wiring};
use self::port::Port;
use self::qmp::{Command, Monitor};
use crate::channel::Channel;
use crate::console::Console;
use crate::error::VmmError;
use crate::jail::{Jail, Launch, Layer, Size};
use crate::machine::{
    BackendKind, BootTimings, MachineConfig, RestoreConfig, RestoreTimings, RootDrive, Shutdown, Started,
    VmmBinary,
};
use crate::process::{VmmExit, VmmProcess};
use crate::snapshot::{Draft, SnapshotFile, SnapshotFiles};
use crate::state::VmDir;
use crate::{arch, disks, snapshot};

pub(crate) use self::port::MuxStream;

/// How long QEMU may take to load kernel and initramfs and to take commands.
const START: Duration = Duration::from_secs(20);
/// The most bytes of a machine's state; some hundred thousand are usual.
const MAX_STATE: u64 = 16 << 20;
/// The port's first generation. A restored guest has seen it.
const FIRST_GENERATION: u32 = 1;

/// A QEMU's process and what it is connected to.
// The order is that of release.
#[derive(Debug)]
struct Qemu {
    process: VmmProcess,
    port: Port,
    monitor: Monitor,
    /// When the process was started.
    began: Instant,
}

impl Qemu {
    /// Starts the process; it takes the `commands` as soon as it can. It also inherits the descriptors of `inherit`.
    async fn start(
        vmm: &VmmBinary,
        (start, hardware): (Start<'_>, Hardware),
        commands: &[Command],
        (mut jail, mut inherit): (Jail, Vec<OwnedFd>),
        keep_console: Option<&Path>,
        dir: &mut VmDir,
    ) -> Result<Self, VmmError> {
        let (port, their_port) = pair()?;
        let (qmp, their_qmp) = pair()?;
        let wiring = Wiring {
            port: their_port.as_raw_fd(),
            qmp: their_qmp.as_raw_fd(),
        };
        let firmware = jail.firmware();
        let arguments = args::arguments(vmm, start, hardware, wiring, firmware.as_deref())?;
        let mut environment = Vec::new();
        let generation = match start {
            Start::Kernel { .. } => FIRST_GENERATION,
            Start::Snapshot { .. } => {
                // There are many of these, each with little to do.
                environment.push(("MALLOC_ARENA_MAX".into(), "1".into()));
                jail.without_huge_pages();
                later_generation()?
            }
        };
        inherit.extend([their_port, their_qmp]);
        // The guest may find its first bytes, and QEMU its commands, when they come up.
        let port = Port::open(port, generation);
        let mut monitor = Monitor::open(qmp);
        monitor.send(commands).await?;

        let began = Instant::now();
        let launch = Launch {
            arguments,
            environment,
            inherit,
            jail,
            ..Launch::of(&vmm.path)
        };
        let process = VmmProcess::spawn(launch, keep_console)?;
        let qemu = Self {
            process,
            port,
            monitor,
            began,
        };
        dir.record_process(qemu.process.pid())?;
        Ok(qemu)
    }

    /// Waits until the first `commands` have been answered. Gives how long it took from the start.
    async fn up(&self, commands: usize) -> Result<Duration, VmmError> {
        let up = timeout(START, self.or_death(self.monitor.answered(commands))).await;
        let silent = |_| VmmError::Silent {
            what: "QEMU",
            after: START,
        };
        up.map_err(silent)?.map_err(VmmError::at_start)?;
        Ok(self.began.elapsed())
    }

    /// Does `work` with a process that may end meanwhile, which then is the error.
    async fn or_death<T>(&self, work: impl Future<Output = Result<T, VmmError>>) -> Result<T, VmmError> {
        let done = tokio::select! {
            done = work => done,
            error = self.process.died() => Err(error),
        };
        match done {
            // A monitor that breaks off is the sign of a QEMU that is about to say why.
            Err(error @ VmmError::Interface { .. }) => {
                Err(timeout(START, self.process.died()).await.unwrap_or(error))
            }
            done => done,
        }
    }
}

/// A machine on QEMU.
// The order is that of release: the process and what it was connected to, its directory last.
#[derive(Debug)]
pub struct Vm {
    qemu: Qemu,
    started: Started,
    draft: Option<Draft>,
    scratch: Option<PathBuf>,
    dir: VmDir,
}

impl Vm {
    pub(crate) async fn boot(vmm: &VmmBinary, mut config: MachineConfig) -> Result<Self, VmmError> {
        let began = Instant::now();
        let scratch = disks::prepare(&config, config.dir.path())?;
        let draft = config.snapshot_dir.as_deref().map(Draft::create).transpose()?;
        let size = Size {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
        };
        let mut jail = Jail::prepare(vmm, size, &mut config.dir)?;
        let command_line = arch::kernel_command_line(BackendKind::Qemu, vmm.accel, arch::tsc_khz(), &config);
        let kernel = jail.file("kernel", &config.kernel, &config.dir)?;
        let initramfs = config.initramfs.as_deref();
        let initramfs = initramfs.map(|path| jail.file("initramfs", path, &config.dir));
        let initramfs = initramfs.transpose()?;
        let memory = draft.as_ref().map(|draft| open_writable(draft.memory()));
        let memory = memory.transpose()?.map(|file| jail.memory(file));
        let start = Start::Kernel {
            kernel: &kernel,
            initramfs: initramfs.as_deref(),
            command_line: &command_line,
            memory: memory.as_deref(),
        };
        let (disks, inherit) = Disks::open(config.root.as_ref(), scratch.as_deref())?;
        let hardware = Hardware {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
            disks,
        };
        let configure = began.elapsed();
        let qemu = Qemu::start(
            vmm,
            (start, hardware),
            &[Command::begin()],
            (jail, inherit),
            config.keep_console.as_deref(),
            &mut config.dir,
        )
        .await?;
        let vmm_spawn = qemu.up(1).await?;
        Ok(Self {
            qemu,
            started: Started::Booted(BootTimings { vmm_spawn, configure }),
            draft,
            scratch,
            dir: config.dir,
        })
    }

    pub(crate) async fn restore(
        vmm: &VmmBinary,
        config: RestoreConfig,
        deadline: Instant,
    ) -> Result<Self, VmmError> {
        Prespawned::start(vmm, config).await?.restore(deadline).await
    }

    pub(crate) async fn snapshot(mut self, deadline: Instant) -> Result<SnapshotFiles, VmmError> {
        let mut draft = self.draft.take().ok_or_else(snapshot::not_meant)?;
        let asked = Instant::now();
        let saved = timeout_at(deadline.into(), self.save()).await;
        let state = saved.unwrap_or_else(|_| Err(overdue("migrate", asked)))?;
        self.qemu.process.kill();
        self.qemu.process.exited().await;
        draft.keep_scratch(self.dir.path())?;
        draft.complete(Some(state)).await
    }

    /// Stops the guest for good; gives its state without its memory. QEMU may not open files to write to, and we take no more
    /// than [`MAX_STATE`] from it.
    async fn save(&mut self) -> Result<Vec<u8>, VmmError> {
        let (state, their_state) = pair()?;
        let commands = [
            Command::set_migration_capabilities(),
            Command::name_descriptor("state"),
            Command::migrate("fd:state"),
        ];
        self.qemu
            .monitor
            .send_with(&commands, their_state.as_fd())
            .await?;
        drop(their_state);
        let saved = async { tokio::try_join!(read_state(state), self.qemu.monitor.migrated()) };
        let (state, ()) = self.qemu.or_death(saved).await?;
        Ok(state)
    }

    pub(crate) async fn connect(&self, port: u32, deadline: Instant) -> Result<Channel, VmmError> {
        match self.qemu.port.connect(port) {
            Ok(stream) => Ok(stream.into()),
            Err(error) if self.qemu.port.is_open() => Err(error),
            // The port ends with its VMM, or because of its guest; which of the two shows in a moment.
            Err(error) => Err(timeout_at(deadline.into(), self.failed()).await.unwrap_or(error)),
        }
    }

    pub(crate) fn console(&self) -> Console {
        self.qemu.process.console()
    }

    pub(crate) fn started(&self) -> Started {
        self.started
    }

    pub(crate) fn pid(&self) -> u32 {
        self.qemu.process.pid()
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        self.qemu.process.layers()
    }

    pub(crate) async fn exited(&self) -> VmmExit {
        self.qemu.process.exited().await
    }

    pub(crate) async fn failed(&self) -> VmmError {
        tokio::select! {
            error = self.qemu.process.died() => self.explained(error),
            () = self.qemu.monitor.out_of_disk() => {
                VmmError::DiskFull(self.scratch.clone().unwrap_or_else(|| self.dir.path().to_owned()))
            }
            error = self.qemu.port.broken() => error,
        }
    }

    /// A machine that is to be frozen has a file for a memory. When its disk has no room for a page of it, the kernel says so
    /// with a SIGBUS (mmap(2)).
    fn explained(&self, error: VmmError) -> VmmError {
        match (&self.draft, error) {
            (Some(draft), VmmError::Died { exit, .. }) if exit.signal() == Some(Signal::BUS.as_raw()) => {
                VmmError::DiskFull(draft.memory().to_owned())
            }
            (_, error) => error,
        }
    }

    /// The machine is not used again, so there is nothing for QEMU to tidy up.
    pub(crate) async fn shutdown(self) -> Shutdown {
        let began = Instant::now();
        self.qemu.process.kill();
        let exit = self.qemu.process.exited().await;
        Shutdown {
            graceful: false,
            took: began.elapsed(),
            exit,
        }
    }
}

/// A QEMU that waits for a machine's state.
// The order is that of release, as in `Vm`.
#[derive(Debug)]
pub struct Prespawned {
    qemu: Qemu,
    /// How long it took to come up, once it has.
    vmm_spawn: Option<Duration>,
    /// Where QEMU finds the state.
    uri: String,
    /// What errors call it.
    state: PathBuf,
    scratch: Option<PathBuf>,
    dir: VmDir,
}

impl Prespawned {
    pub(crate) async fn spawn(vmm: &VmmBinary, config: RestoreConfig) -> Result<Self, VmmError> {
        let mut spawned = Self::start(vmm, config).await?;
        spawned.ready().await?;
        Ok(spawned)
    }

    /// What is sent before the snapshot can be loaded.
    fn preparation() -> [Command; 2] {
        [Command::begin(), Command::set_migration_capabilities()]
    }

    /// Starts QEMU without waiting for it.
    async fn start(vmm: &VmmBinary, mut config: RestoreConfig) -> Result<Self, VmmError> {
        let root = config.root.as_ref();
        let template = config.scratch.as_ref().map(SnapshotFile::open_path);
        let scratch = disks::prepare_disks(root, template.as_deref(), config.dir.path())?;
        let size = Size {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
        };
        let mut jail = Jail::prepare(vmm, size, &mut config.dir)?;
        let memory = jail.memory(config.memory.share()?);
        let state = config.state.reopen()?;
        let start = Start::Snapshot { memory: &memory };
        let (disks, mut inherit) = Disks::open(root, scratch.as_deref())?;
        let hardware = Hardware {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
            disks,
        };
        let uri = format!("fd:{}", state.as_raw_fd());
        inherit.push(state);
        let qemu = Qemu::start(
            vmm,
            (start, hardware),
            &Self::preparation(),
            (jail, inherit),
            config.keep_console.as_deref(),
            &mut config.dir,
        )
        .await?;
        Ok(Self {
            qemu,
            vmm_spawn: None,
            uri,
            state: config.state.path().to_owned(),
            scratch,
            dir: config.dir,
        })
    }

    /// Waits until QEMU takes commands. Gives how long that took when it came up.
    async fn ready(&mut self) -> Result<Duration, VmmError> {
        let vmm_spawn = match self.vmm_spawn {
            Some(took) => took,
            None => self.qemu.up(Self::preparation().len()).await?,
        };
        self.vmm_spawn = Some(vmm_spawn);
        Ok(vmm_spawn)
    }

    pub(crate) async fn restore(mut self, deadline: Instant) -> Result<Vm, VmmError> {
        let asked = Instant::now();
        let loaded = timeout_at(deadline.into(), self.load()).await;
        let timings = loaded.unwrap_or_else(|_| Err(overdue("migrate-incoming", asked)))?;
        Ok(Vm {
            qemu: self.qemu,
            started: Started::Restored(timings),
            draft: None,
            scratch: self.scratch,
            dir: self.dir,
        })
    }

    async fn load(&mut self) -> Result<RestoreTimings, VmmError> {
        let told = Instant::now();
        let sent = self
            .qemu
            .monitor
            .send(&[Command::migrate_incoming(&self.uri)])
            .await;
        // A QEMU that came to nothing says more than that it is gone.
        let vmm_spawn = self.ready().await?;
        let began = told.max(self.qemu.began + vmm_spawn);
        let loaded = self.qemu.or_death(async {
            sent?;
            self.qemu.monitor.resumed().await
        });
        loaded.await.map_err(|error| error.at_restore(&self.state))?;
        Ok(RestoreTimings {
            vmm_spawn,
            load: began.elapsed(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.qemu.process.pid()
    }

    pub(crate) async fn failed(&self) -> VmmError {
        self.qemu.process.died().await
    }
}

/// The layers that a QEMU has which is started for its version.
pub(crate) async fn layers(vmm: &VmmBinary, mut dir: VmDir) -> Result<Vec<Layer>, VmmError> {
    let launch = Launch {
        arguments: vec!["--version".into()],
        jail: Jail::prepare(vmm, Size::LEAST, &mut dir)?,
        ..Launch::of(&vmm.path)
    };
    let process = VmmProcess::spawn(launch, None)?;
    if process.exited().await.code() == Some(0) {
        return Ok(process.layers().to_vec());
    }
    Err(process.died().await.at_start())
}

async fn read_state(from: UnixStream) -> Result<Vec<u8>, VmmError> {
    let mut state = Vec::new();
    let read = from.take(MAX_STATE + 1).read_to_end(&mut state).await;
    let wrong = |source| VmmError::Interface {
        what: "the machine's state",
        source,
    };
    match read {
        Ok(length) if length as u64 <= MAX_STATE => Ok(state),
        Ok(_) => Err(wrong(io::ErrorKind::FileTooLarge.into())),
        Err(error) => Err(wrong(error)),
    }
}

impl Disks {
    /// Opens the disks, each for this machine alone: QEMU knows none of their paths.
    fn open(root: Option<&RootDrive>, scratch: Option<&Path>) -> Result<(Self, Vec<OwnedFd>), VmmError> {
        let read = |root: &RootDrive| {
            File::open(&root.path).map_err(|error| VmmError::state("read", &root.path, error))
        };
        let root: Option<OwnedFd> = root.map(read).transpose()?.map(OwnedFd::from);
        let scratch = scratch.map(open_writable).transpose()?;
        let disks = Self {
            root: root.as_ref().map(OwnedFd::as_raw_fd),
            scratch: scratch.as_ref().map(OwnedFd::as_raw_fd),
        };
        Ok((disks, root.into_iter().chain(scratch).collect()))
    }
}

fn open_writable(path: &Path) -> Result<OwnedFd, VmmError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| VmmError::state("write", path, error))?;
    Ok(file.into())
}

/// A generation that no other machine made from the same snapshot is likely to have, nor the snapshot itself.
fn later_generation() -> Result<u32, VmmError> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| VmmError::state("read", Path::new("/dev/urandom"), errno))?;
    Ok(u32::from_ne_bytes(bytes).max(FIRST_GENERATION + 1))
}

fn overdue(request: &str, since: Instant) -> VmmError {
    VmmError::Unanswered {
        request: request.to_owned(),
        reason: format!("not done within {:.1} s", since.elapsed().as_secs_f64()),
    }
}

/// Our end of a connection, and the one that QEMU inherits.
fn pair() -> Result<(UnixStream, OwnedFd), VmmError> {
    let pair = || {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs.into()))
    };
    pair().map_err(|source| VmmError::Interface {
        what: "a socket pair",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::jail::Isolation;
    use crate::machine::Accel;
    use crate::snapshot::SnapshotFile;
    use crate::state::{RuntimeDir, VmId};

    const MIB: u32 = 128;
    /// Speaks QMP on the descriptor that its arguments name, up to the point where it has a snapshot to load.
    const UP_TO_THE_LOAD: &str = r#"#!/bin/bash
[[ "$*" =~ id=qmp,fd=([0-9]+) ]] && eval "exec 3<&${BASH_REMATCH[1]} 4>&${BASH_REMATCH[1]}"
echo '{"QMP": {}}' >&4
for _ in capabilities migration-capabilities; do read -r _ <&3; echo '{"return": {}}' >&4; done
read -r load <&3
"#;

    /// A QEMU that does what the script says, and a place for its machines.
    struct Host {
        vmm: VmmBinary,
        runtime: RuntimeDir,
        top: tempfile::TempDir,
    }

    impl Host {
        fn new(script: &str) -> Self {
            let top = tempfile::tempdir().unwrap();
            let path = top.path().join("qemu");
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            let vmm = VmmBinary {
                kind: BackendKind::Qemu,
                path,
                version: (7, 2, 0),
                accel: Accel::Tcg,
            };
            let runtime = RuntimeDir::open(top.path().join("run")).unwrap();
            let runtime = runtime.isolation(Isolation::least());
            Self { vmm, runtime, top }
        }

        fn dir(&self) -> VmDir {
            self.runtime.create(VmId::random().unwrap()).unwrap()
        }

        fn clone_config(&self) -> RestoreConfig {
            let file = |name, length| {
                let path = self.top.path().join(name);
                File::create(&path).unwrap().set_len(length).unwrap();
                SnapshotFile::open(path).unwrap()
            };
            RestoreConfig {
                dir: self.dir(),
                memory: file("memory", u64::from(MIB) << 20),
                state: file("state", 1),
                root: None,
                scratch: None,
                vcpus: 1,
                memory_mib: MIB,
                keep_console: None,
            }
        }

        /// Both ways to restore, which have to come to the same.
        async fn restore_errors(&self, patience: Duration) -> [VmmError; 2] {
            let at_once = Vm::restore(&self.vmm, self.clone_config(), Instant::now() + patience).await;
            let at_once = at_once.unwrap_err();
            let spawned = Prespawned::spawn(&self.vmm, self.clone_config()).await.unwrap();
            let ahead = spawned.restore(Instant::now() + patience).await.unwrap_err();
            self.is_clean();
            [at_once, ahead]
        }

        fn is_clean(&self) {
            let vms = fs::read_dir(self.runtime.path().join("vms")).unwrap();
            assert_eq!(vms.count(), 0, "a machine's directory is left");
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_qemu_that_does_not_start_says_why_and_leaves_nothing() {
        let host = Host::new("#!/bin/sh\necho 'unsupported machine type' >&2\nexit 1\n");
        let kernel = host.top.path().join("vmlinux");
        fs::write(&kernel, disks::tests::elf(200)).unwrap();
        let snapshot_dir = host.top.path().join("snapshot");
        fs::create_dir(&snapshot_dir).unwrap();
        let config = MachineConfig {
            dir: host.dir(),
            kernel,
            initramfs: None,
            root: None,
            scratch: None,
            vcpus: 1,
            memory_mib: MIB,
            cid: 3,
            extra_kernel_args: Vec::new(),
            keep_console: None,
            snapshot_dir: Some(snapshot_dir.clone()),
        };
        let said = "The VMM did not start: exit status: 1: unsupported machine type";
        let error = Vm::boot(&host.vmm, config).await.unwrap_err();
        assert_eq!(error.to_string(), said);
        assert_eq!(fs::read_dir(snapshot_dir).unwrap().count(), 0);
        let error = Vm::restore(&host.vmm, host.clone_config(), Instant::now() + LONG).await;
        assert_eq!(error.unwrap_err().to_string(), said);
        host.is_clean();
    }

    #[tokio::test]
    async fn a_snapshot_is_loaded_from_an_inherited_descriptor() {
        let script = r#"
[[ $load =~ '"execute":"migrate-incoming","arguments":{"uri":"fd:'([0-9]+) ]] && [ -e /proc/self/fd/${BASH_REMATCH[1]} ] &&
    echo '{"return": {}}' >&4 && echo '{"event": "RESUME"}' >&4
read -r _ <&3
"#;
        let host = Host::new(&format!("{UP_TO_THE_LOAD}{script}"));
        let vm = Vm::restore(&host.vmm, host.clone_config(), Instant::now() + LONG)
            .await
            .unwrap();
        assert!(matches!(vm.started(), Started::Restored(_)));
        let error = vm.snapshot(Instant::now() + LONG).await.unwrap_err();
        assert!(matches!(error, VmmError::Config(_)), "{error}");
        host.is_clean();
    }

    #[tokio::test]
    async fn a_snapshot_that_qemu_dies_of_is_refused_with_its_words() {
        let script = "echo 'qemu: load of migration failed: Invalid argument' >&2; exit 1";
        let host = Host::new(&format!("{UP_TO_THE_LOAD}{script}"));
        for error in host.restore_errors(LONG).await {
            let state = host.top.path().join("state");
            let expected = format!(
                "The snapshot file {} cannot be used: the VMM ended with exit status: 1: qemu: load of migration failed: \
                 Invalid argument",
                state.display()
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn a_refused_command_is_the_snapshot_s_fault_too() {
        let script = r#"echo '{"error": {"class": "GenericError", "desc": "not so"}}' >&4; read -r _ <&3"#;
        let host = Host::new(&format!("{UP_TO_THE_LOAD}{script}"));
        for error in host.restore_errors(LONG).await {
            assert!(matches!(error, VmmError::Snapshot { .. }), "{error}");
            assert!(error.to_string().ends_with("migrate-incoming: not so"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_load_that_is_not_done_by_its_deadline_is_given_up() {
        let host = Host::new(&format!("{UP_TO_THE_LOAD}read -r _ <&3"));
        for error in host.restore_errors(Duration::from_secs(2)).await {
            assert!(matches!(error, VmmError::Unanswered { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_killed_qemu_is_not_the_snapshot_s_fault() {
        let host = Host::new(&format!("{UP_TO_THE_LOAD}kill -KILL $$"));
        for error in host.restore_errors(LONG).await {
            assert!(matches!(error, VmmError::Died { .. }), "{error}");
        }
    }

    #[test]
    fn a_clone_s_generation_is_its_own() {
        let generations: std::collections::BTreeSet<u32> =
            (0..100).map(|_| later_generation().unwrap()).collect();
        assert!(generations.len() > 90);
        assert!(
            generations
                .iter()
                .all(|generation| *generation > FIRST_GENERATION)
        );
    }
}
