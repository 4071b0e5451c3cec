//! The only place where crates are wired together.
//!
//! ```text
//! GlobalArgs ─► App { store, runtime } ─► parts (image) ─► VMM (vmm::probe) ─► Sandbox (engine)
//! ```

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::Sandbox;
use image::{BootFiles, KernelChoice, Store, Want};
use protocol::{ErrorCode, HostError};
use vmm::probe::Search;
use vmm::{
    Accel, Filesystem, Init, Isolation, MachineConfig, RootDrive, RuntimeDir, VmId, VmmBinary, VmmError,
    probe,
};

use crate::cli::GlobalArgs;
use crate::env_vars;
use crate::keys::Keyring;
use crate::machine::{Machine, Root};
use crate::output::complain;
use crate::progress::Shown;

/// The static guest-runner that goes into every guest.
static GUEST_RUNNER: &[u8] = include_bytes!(env!("GUEST_RUNNER"));

/// How long a guest may take to come up. Emulated ones are slow, and a foreign image starts all its services first.
const BOOT: Duration = Duration::from_secs(60);
const BOOT_SYSTEM: Duration = Duration::from_secs(300);

/// The host's directories and the guest-runner.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) runner: Cow<'static, [u8]>,
    runtime: PathBuf,
    isolation: Isolation,
}

/// What a machine is to be made of, all of it there.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) boot: BootFiles,
    root: RootDrive,
    scratch: PathBuf,
}

impl App {
    /// Opens nothing and makes nothing yet, except that it reads a guest-runner that is named.
    pub(crate) fn new(global: &GlobalArgs) -> Result<Self, HostError> {
        let runner = match &global.guest_runner {
            Some(path) => Cow::Owned(fs::read(path).map_err(|error| {
                HostError::new(
                    ErrorCode::UnreadableInput,
                    format!("cannot read {}: {error}", path.display()),
                )
            })?),
            None => Cow::Borrowed(GUEST_RUNNER),
        };
        Ok(Self {
            store: Store::open(global.state_dir.clone().unwrap_or_else(Store::default_path)),
            runtime: global
                .runtime_dir
                .clone()
                .unwrap_or_else(RuntimeDir::default_path),
            runner,
            isolation: Isolation {
                jailer_program: named(env_vars::JAILER_BIN),
                ..(&global.isolation).into()
            },
        })
    }

    /// The directory of running machines, with what killed processes left there removed.
    pub(crate) fn runtime(&self) -> Result<RuntimeDir, HostError> {
        let runtime = RuntimeDir::open(&self.runtime)?.isolation(self.isolation.clone());
        if let Err(error) = runtime.sweep() {
            tracing::warn!("{error}");
        }
        Ok(runtime)
    }

    /// Where `serve` listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.join("agent.sock")
    }

    /// The API keys.
    pub(crate) fn keyring(&self) -> Keyring {
        Keyring::new(self.store.root())
    }

    /// Where VMMs are looked for.
    pub(crate) fn search(&self) -> Search {
        Search {
            firecracker: named(env_vars::FIRECRACKER_BIN),
            qemu: named(env_vars::QEMU_BIN),
            directories: vec![self.store.programs()],
        }
    }

    /// Finds what the machine is made of, and makes what is missing unless that is forbidden. Blocks, in the latter case for
    /// minutes.
    pub(crate) async fn parts(
        &self,
        machine: &Machine,
        may_make: bool,
        runtime: &RuntimeDir,
    ) -> Result<Parts, HostError> {
        match self.look(machine) {
            Err(missing) if !can_be_made(missing.code, &machine.kernel) => Err(missing),
            Err(missing) if !may_make => Err(refused(&missing, machine)),
            Err(_) => {
                self.has_vmm(machine, runtime).await?;
                self.make(machine)?;
                self.look(machine)
            }
            found => found,
        }
    }

    pub(crate) fn look(&self, machine: &Machine) -> Result<Parts, HostError> {
        let mut parts = match &machine.root {
            Root::Template(name) => {
                let found = self.store.lookup(name, &machine.kernel, &self.runner)?;
                Parts {
                    boot: found.boot,
                    root: Self::root_drive(found.rootfs),
                    scratch: found.scratch,
                }
            }
            Root::Image(drive) => Parts {
                boot: self.store.boot_files(&machine.kernel, &self.runner)?,
                root: drive.clone(),
                scratch: self.store.scratch()?,
            },
        };
        if let Some(initramfs) = &machine.initramfs {
            parts.boot.initramfs.clone_from(initramfs);
        }
        Ok(parts)
    }

    /// The root drive of a template.
    pub(crate) fn root_drive(rootfs: PathBuf) -> RootDrive {
        RootDrive {
            path: rootfs,
            filesystem: Filesystem::Squashfs,
            init: Init::Runner,
        }
    }

    fn make(&self, machine: &Machine) -> Result<(), HostError> {
        let templates: Vec<&str> = match machine.root {
            Root::Template(name) => vec![name],
            Root::Image(_) => Vec::new(),
        };
        let want = Want {
            kernel: machine.kernel.clone(),
            templates: &templates,
            mirror: &[],
            force: false,
        };
        let shown = Shown::default();
        self.store
            .prepare(&want, &self.runner, &|progress| shown.report(progress))?;
        Ok(())
    }

    /// Nobody waits for an image that no VMM is there to run. Whether KVM works cannot be told before there is a kernel.
    async fn has_vmm(&self, machine: &Machine, runtime: &RuntimeDir) -> Result<(), HostError> {
        let report = probe::report(&self.search(), None, runtime).await;
        match report.select(machine.backend) {
            Err(error @ (VmmError::Missing { .. } | VmmError::Unsupported { .. })) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The VMM to run the machine with.
    pub(crate) async fn vmm(
        &self,
        machine: &Machine,
        kernel: &Path,
        runtime: &RuntimeDir,
    ) -> Result<VmmBinary, HostError> {
        let vmm = probe::detect(machine.backend, &self.search(), kernel, runtime).await?;
        if vmm.accel == Accel::Tcg {
            tell_of_emulation(runtime);
        }
        Ok(vmm)
    }

    /// Boots the machine and waits for its guest-runner. It can be frozen into `snapshot_dir`.
    pub(crate) async fn boot(
        &self,
        vmm: &VmmBinary,
        machine: &Machine,
        parts: Parts,
        snapshot_dir: Option<PathBuf>,
        runtime: &RuntimeDir,
    ) -> Result<Sandbox, HostError> {
        let patience = match parts.root.init {
            Init::Runner => BOOT,
            Init::System => BOOT_SYSTEM,
        };
        let config = MachineConfig {
            dir: runtime.create(VmId::random()?)?,
            kernel: parts.boot.kernel,
            initramfs: Some(parts.boot.initramfs),
            root: Some(parts.root),
            scratch: Some(parts.scratch),
            vcpus: machine.vcpus,
            memory_mib: machine.memory_mib,
            cid: 3,
            extra_kernel_args: machine.kernel_args.clone(),
            keep_console: machine.keep_console.clone(),
            snapshot_dir,
        };
        Ok(Sandbox::acquire(vmm, config, Instant::now() + patience).await?)
    }
}

/// The path that an environment variable names.
fn named(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

/// Set-up can make what that error misses. It cannot make a kernel that the user named.
fn can_be_made(missing: ErrorCode, kernel: &KernelChoice) -> bool {
    match missing {
        ErrorCode::KernelMissing => !matches!(kernel, KernelChoice::File(_)),
        // The latter is a scratch disk that is gone.
        ErrorCode::TemplateMissing | ErrorCode::SetupFailed => true,
        _ => false,
    }
}

fn refused(missing: &HostError, machine: &Machine) -> HostError {
    let mut command = "host-agent setup".to_owned();
    if let Root::Template(name) = machine.root {
        command += &format!(" --template {name}");
    }
    if machine.kernel != KernelChoice::default() {
        command += &format!(" --kernel {}", machine.kernel);
    }
    let cause = format!("{}, and --no-setup forbids making it", missing.cause);
    HostError::new(ErrorCode::SetupRefused, cause).remedy(format!("run `{command}`"))
}

/// Says once per host boot what emulation is good for.
fn tell_of_emulation(runtime: &RuntimeDir) {
    let marker = runtime.path().join("emulation-told");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if fs::read_to_string(&marker).is_ok_and(|told| told == boot) {
        return;
    }
    let _ = fs::write(&marker, boot);
    complain(
        "note: KVM cannot be used here, so QEMU emulates the machine: slow, and meant for development and trusted \
         networks (`host-agent doctor` says why)",
    );
}
