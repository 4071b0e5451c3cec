//! The only place where crates are wired together.
//!
//! ```text
//! GlobalArgs ─► App { store, runtime } ─► parts (image) ─► backend (vmm::probe) ─► Sandbox (engine)
//! ```

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::Sandbox;
use image::{BootFiles, KernelChoice, RootFilesystem, Store, Want};
use protocol::{ErrorCode, HostError, Language};
use vmm::probe::{Choice, Search};
use vmm::{
    Accel, BackendKind, Filesystem, Init, MachineConfig, RootDrive, RuntimeDir, VmId, VmmBinary, probe,
};

use crate::cli::{Backend, GlobalArgs, RunArgs};
use crate::env_vars;
use crate::job;
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
}

/// What a machine is to be made of, all of it there.
#[derive(Debug)]
pub(crate) struct Parts {
    boot: BootFiles,
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
            store: Store::open(global.state_dir.clone().unwrap_or_else(default_state_dir)),
            runtime: global
                .runtime_dir
                .clone()
                .unwrap_or_else(RuntimeDir::default_path),
            runner,
        })
    }

    /// The directory of running machines, with what killed processes left there removed.
    pub(crate) fn runtime(&self) -> Result<RuntimeDir, HostError> {
        let runtime = RuntimeDir::open(&self.runtime)?;
        if let Err(error) = runtime.sweep() {
            tracing::warn!("{error}");
        }
        Ok(runtime)
    }

    /// Where VMMs are looked for.
    pub(crate) fn search(&self) -> Search {
        let named = |variable| {
            std::env::var_os(variable)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        Search {
            firecracker: named(env_vars::FIRECRACKER_BIN),
            qemu: named(env_vars::QEMU_BIN),
            directories: vec![self.store.programs()],
        }
    }

    /// Finds the machine's parts, and makes those that are missing unless that was forbidden.
    pub(crate) fn parts(&self, args: &RunArgs, language: Language) -> Result<Parts, HostError> {
        let kernel = kernel_choice(args.kernel.as_deref())?;
        let template = match (&args.rootfs, &args.template) {
            (Some(_), _) => None,
            (None, Some(name)) => Some(name.as_str()),
            (None, None) => image::template_for_language(language.name()),
        };
        let found = self.look(args, &kernel, template);
        let mut parts = match found {
            Err(error) if makes_good(error.code, &kernel) && !args.no_setup => {
                self.make(&kernel, template)?;
                self.look(args, &kernel, template)?
            }
            Err(error) if makes_good(error.code, &kernel) => {
                let remedy = template.map_or_else(String::new, |name| format!(" --template {name}"));
                return Err(HostError::new(
                    ErrorCode::SetupRefused,
                    format!("{}, and --no-setup forbids making it", error.cause),
                )
                .remedy(format!("run `host-agent setup{remedy}`")));
            }
            found => found?,
        };
        if let Some(initramfs) = &args.initramfs {
            parts.boot.initramfs.clone_from(initramfs);
        }
        Ok(parts)
    }

    fn look(
        &self,
        args: &RunArgs,
        kernel: &KernelChoice,
        template: Option<&str>,
    ) -> Result<Parts, HostError> {
        let Some(template) = template else {
            let root = foreign(args.rootfs.as_deref().unwrap_or(Path::new("")))?;
            let boot = self.store.boot_files(kernel, &self.runner)?;
            return Ok(Parts {
                boot,
                root,
                scratch: self.store.scratch()?,
            });
        };
        let found = self.store.lookup(template, kernel, &self.runner)?;
        let root = RootDrive {
            path: found.rootfs,
            filesystem: Filesystem::Squashfs,
            init: Init::Runner,
        };
        Ok(Parts {
            boot: found.boot,
            root,
            scratch: found.scratch,
        })
    }

    fn make(&self, kernel: &KernelChoice, template: Option<&str>) -> Result<(), HostError> {
        let shown = Shown::default();
        let templates: Vec<&str> = template.into_iter().collect();
        let want = Want {
            kernel: kernel.clone(),
            templates: &templates,
            mirror: &[],
            force: false,
        };
        self.store
            .prepare(&want, &self.runner, &|progress| shown.report(progress))?;
        Ok(())
    }

    /// The VMM to use, and whether the user is now to be told that guests are emulated.
    pub(crate) async fn backend(
        &self,
        choice: Backend,
        parts: &Parts,
        runtime: &RuntimeDir,
    ) -> Result<VmmBinary, HostError> {
        let choice = match choice {
            Backend::Auto => Choice::Auto,
            Backend::Firecracker => Choice::Only(BackendKind::Firecracker),
            Backend::Qemu => Choice::Only(BackendKind::Qemu),
        };
        let vmm = probe::detect(choice, &self.search(), &parts.boot.kernel, runtime).await?;
        if vmm.accel == Accel::Tcg {
            tell_of_emulation(runtime);
        }
        Ok(vmm)
    }

    /// Boots a machine and waits for its guest-runner.
    pub(crate) async fn sandbox(
        &self,
        vmm: &VmmBinary,
        args: &RunArgs,
        parts: Parts,
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
            vcpus: args.vcpus,
            memory_mib: job::memory_mib(&args.memory)?,
            cid: 3,
            extra_kernel_args: args.kernel_args.clone(),
            keep_console: args.keep_console.clone(),
        };
        Ok(Sandbox::acquire(vmm, config, Instant::now() + patience).await?)
    }
}

/// What was typed as a kernel.
pub(crate) fn kernel_choice(name: Option<&str>) -> Result<KernelChoice, HostError> {
    Ok(name.map(str::parse).transpose()?.unwrap_or_default())
}

/// Set-up can make what that error misses. It cannot make a kernel that the user named.
fn makes_good(code: ErrorCode, kernel: &KernelChoice) -> bool {
    match code {
        ErrorCode::KernelMissing => !matches!(kernel, KernelChoice::File(_)),
        ErrorCode::TemplateMissing => true,
        _ => false,
    }
}

/// The root drive of a user's own image.
fn foreign(path: &Path) -> Result<RootDrive, HostError> {
    if !path.exists() {
        return Err(HostError::new(
            ErrorCode::TemplateMissing,
            format!("there is no root filesystem at {}", path.display()),
        )
        .remedy("name an existing image with --rootfs"));
    }
    let (filesystem, init) = match image::identify(path)? {
        RootFilesystem::Squashfs => (Filesystem::Squashfs, Init::Runner),
        RootFilesystem::Ext4 => (Filesystem::Ext4, Init::System),
    };
    Ok(RootDrive {
        path: path.to_owned(),
        filesystem,
        init,
    })
}

/// Says once per host boot what emulation is good for.
fn tell_of_emulation(runtime: &RuntimeDir) {
    let marker = runtime.path().join("emulation-told");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if fs::read_to_string(&marker).is_ok_and(|told| told == boot) {
        return;
    }
    let _ = fs::write(&marker, boot);
    eprintln!(
        "note: KVM cannot be used here, so QEMU emulates the machine: slow, and meant for development and trusted networks \
         (`host-agent doctor` says why)"
    );
}

fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/runner-codes".into();
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| "/var/tmp".into())
        .join("runner-codes")
}
