//! From what was typed to the machine that is wanted: names resolved, sizes and bounds checked, nothing started.

use std::path::{Path, PathBuf};

use image::{BUILT_IN, KernelChoice, RootFilesystem};
use protocol::{ErrorCode, HostError, Language};
use vmm::probe::Choice;
use vmm::{BackendKind, Filesystem, Init, MachineConfig, RootDrive};

use crate::cli::{Backend, MachineArgs, RunArgs};

/// The machine that a run wants.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) root: Root,
    pub(crate) kernel: KernelChoice,
    /// In place of the one that set-up makes.
    pub(crate) initramfs: Option<PathBuf>,
    pub(crate) backend: Choice,
    pub(crate) vcpus: u8,
    pub(crate) memory_mib: u32,
    pub(crate) kernel_args: Vec<String>,
    pub(crate) keep_console: Option<PathBuf>,
}

/// Where its root filesystem comes from.
#[derive(Debug, Clone)]
pub(crate) enum Root {
    /// A template that set-up makes.
    Template(&'static str),
    /// The user's own image.
    Image(RootDrive),
}

impl Machine {
    /// The machine for code in that language.
    pub(crate) fn from_args(args: &RunArgs, language: Language) -> Result<Self, HostError> {
        let root = match (&args.rootfs, &args.template) {
            (Some(path), _) => Root::Image(image(path)?),
            (None, Some(name)) => Root::Template(template(name)?),
            (None, None) => Root::Template(template_with(language)?),
        };
        if let Some(path) = args.initramfs.as_deref().filter(|path| !path.is_file()) {
            let cause = format!("there is no initramfs at {}", path.display());
            return Err(HostError::new(ErrorCode::UnreadableInput, cause));
        }
        Ok(Self {
            initramfs: args.initramfs.clone(),
            kernel_args: args.kernel_args.clone(),
            keep_console: args.keep_console.clone(),
            ..Self::of(root, &args.machine)?
        })
    }

    /// The machine with that root filesystem.
    pub(crate) fn of(root: Root, args: &MachineArgs) -> Result<Self, HostError> {
        if !MachineConfig::VCPUS.contains(&args.vcpus) {
            let cause = format!("--vcpus {} is out of range", args.vcpus);
            return Err(invalid(cause).remedy("give 1 to 32"));
        }
        Ok(Self {
            root,
            kernel: kernel(args.kernel.as_deref())?,
            initramfs: None,
            backend: match args.backend {
                Backend::Auto => Choice::Auto,
                Backend::Firecracker => Choice::Only(BackendKind::Firecracker),
                Backend::Qemu => Choice::Only(BackendKind::Qemu),
            },
            vcpus: args.vcpus,
            memory_mib: memory_mib(&args.memory)?,
            kernel_args: Vec::new(),
            keep_console: None,
        })
    }

    /// Whether it is as templates are frozen: nothing about it is this run's own but what a clone can still take.
    pub(crate) fn can_be_cloned(&self) -> bool {
        matches!(self.root, Root::Template(_)) && self.initramfs.is_none() && self.kernel_args.is_empty()
    }
}

/// The kernel of that name; the default one without a name.
pub(crate) fn kernel(name: Option<&str>) -> Result<KernelChoice, HostError> {
    Ok(name.map(str::parse).transpose()?.unwrap_or_default())
}

/// The template of that name.
pub(crate) fn template(name: &str) -> Result<&'static str, HostError> {
    let found = BUILT_IN.iter().find(|template| template.name == name);
    found.map(|template| template.name).ok_or_else(|| {
        let names: Vec<_> = BUILT_IN.iter().map(|template| template.name).collect();
        invalid(format!("no template is called {name:?}")).remedy(format!("use one of {}", names.join(", ")))
    })
}

pub(crate) fn template_with(language: Language) -> Result<&'static str, HostError> {
    image::template_for_language(language.name())
        .ok_or_else(|| HostError::new(ErrorCode::LanguageMissing, format!("no template has {language}")))
}

/// The root drive of a user's own image.
fn image(path: &Path) -> Result<RootDrive, HostError> {
    if !path.exists() {
        let cause = format!("there is no root filesystem at {}", path.display());
        return Err(
            HostError::new(ErrorCode::TemplateMissing, cause).remedy("name an existing image with --rootfs")
        );
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

/// Memory of a machine in MiB.
fn memory_mib(text: &str) -> Result<u32, HostError> {
    let size = size_mib("--memory", text)?;
    if size < MachineConfig::MIN_MEMORY_MIB {
        let least = MachineConfig::MIN_MEMORY_MIB;
        return Err(
            invalid(format!("--memory {text} is too little")).remedy(format!("give at least {least} MiB"))
        );
    }
    Ok(size)
}

/// A size in MiB: a number of MiB, or one with a suffix.
pub(crate) fn size_mib(option: &str, text: &str) -> Result<u32, HostError> {
    let upper = text.trim().to_ascii_uppercase();
    let number = upper.trim_end_matches("IB").trim_end_matches('B');
    let (digits, factor) = match number.strip_suffix('G') {
        Some(digits) => (digits, 1024),
        None => (number.strip_suffix('M').unwrap_or(number), 1),
    };
    let size = digits
        .parse::<u32>()
        .ok()
        .and_then(|size| size.checked_mul(factor));
    size.ok_or_else(|| {
        invalid(format!("{option} {text:?} is no size")).remedy("write MiB as in 512, or 512M, or 2G")
    })
}

fn invalid(cause: String) -> HostError {
    HostError::new(ErrorCode::InvalidRequest, cause)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn machine(args: &[&str]) -> Result<Machine, HostError> {
        let line = ["host-agent", "run"].iter().chain(args);
        let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else {
            unreachable!()
        };
        Machine::from_args(&args, Language::Rust)
    }

    #[test]
    fn a_language_picks_its_template() {
        assert!(matches!(machine(&[]).unwrap().root, Root::Template("rust")));
        let named = machine(&["--template", "base"]).unwrap();
        assert!(matches!(named.root, Root::Template("base")));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let code = |args: &[&str]| machine(args).unwrap_err().code;
        assert_eq!(code(&["--template", "../x"]), ErrorCode::InvalidRequest);
        assert_eq!(code(&["--kernel", "hurd"]), ErrorCode::InvalidRequest);
        assert_eq!(code(&["--vcpus", "33"]), ErrorCode::InvalidRequest);
        assert_eq!(code(&["--memory", "127"]), ErrorCode::InvalidRequest);
        assert_eq!(code(&["--rootfs", "/nonexistent"]), ErrorCode::TemplateMissing);
        assert_eq!(code(&["--initramfs", "/nonexistent"]), ErrorCode::UnreadableInput);
    }

    #[test]
    fn sizes() {
        for (text, mib) in [
            ("512", 512),
            ("300M", 300),
            ("2G", 2048),
            ("1GiB", 1024),
            ("256mb", 256),
        ] {
            assert_eq!(memory_mib(text).unwrap(), mib, "{text}");
        }
        for text in ["", "M", "-1", "1T", "9999999G"] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }
}
