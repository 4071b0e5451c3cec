//! The tuned kernel: Debian's packaged source of the default suite, compiled with `images/kernel/tuned.config`. Takes minutes.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::ImageError;
use crate::command::{self, Running, for_each_line};
use crate::kernel::{DEFAULT_SUITE, KernelManifest};
use crate::mirror::Mirror;
use crate::mmdebstrap::{self, Debootstrap};
use crate::modules::ModuleSet;
use crate::progress::{Progress, Report, Unit};
use crate::tools::{self, Purpose};

const PACKAGE: &str = "linux-source-6.1";
const CONFIG: &str = include_str!("../../../images/kernel/tuned.config");
/// No build date, no user, no host in the kernel.
const REPRODUCIBLE: [&str; 4] = [
    "KBUILD_BUILD_USER=runner",
    "KBUILD_BUILD_HOST=runner",
    "KBUILD_BUILD_VERSION=1",
    "KBUILD_BUILD_TIMESTAMP=2025-08-09T00:00:00Z",
];
/// How many files the configuration compiles, about; only for showing progress.
const FILES: u64 = 1301;

/// Builds it into `directory`, which is empty; `work` takes the source and everything compiled, about 1.7 GB.
pub(crate) fn build(
    mirror: Option<&Mirror>,
    directory: &Path,
    work: &Path,
    report: Report<'_>,
) -> Result<(), ImageError> {
    tools::check(&[Purpose::TunedKernel])?;
    let source = fetch_source(mirror, work, report)?;
    let output = work.join("build");
    fs::create_dir(&output).map_err(ImageError::io("create", &output))?;
    report(Progress::Started {
        step: "tuned kernel",
        unit: Unit::Files,
        total: Some(FILES),
    });
    configure(&source, &output)?;
    compile(&source, &output, report)?;
    let path = output.join("vmlinux");
    let kernel = fs::read(&path).map_err(ImageError::io("read", &path))?;
    let release = fs::read_to_string(output.join("include/config/kernel.release")).unwrap_or_default();
    KernelManifest::write(
        directory,
        release.trim().to_owned(),
        &kernel,
        &ModuleSet::default(),
    )?;
    report(Progress::Finished);
    Ok(())
}

fn fetch_source(mirror: Option<&Mirror>, work: &Path, report: Report<'_>) -> Result<PathBuf, ImageError> {
    report(Progress::Started {
        step: "source of the tuned kernel",
        unit: Unit::Nothing,
        total: None,
    });
    let packages = [PACKAGE.to_owned()];
    let bootstrap = Debootstrap {
        suite: DEFAULT_SUITE,
        variant: "extract",
        packages: &packages,
        commands: &[],
        epoch: 0,
    };
    let (running, tar) = bootstrap.spawn(mirror, work)?;
    let archive = work.join("source.tar.xz");
    let found = thread::scope(|scope| {
        let saving = scope.spawn(|| save_source(tar, &archive));
        mmdebstrap::finish(running, work, report)?;
        saving
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    if !found {
        return Err(ImageError::invalid(
            &archive,
            format!("{PACKAGE} has no source in it"),
        ));
    }
    report(Progress::Stage("unpacking the source"));
    let source = work.join("source");
    fs::create_dir(&source).map_err(ImageError::io("create", &source))?;
    let mut tar = command::command("tar")?;
    tar.args([
        "--extract",
        "--xz",
        "--strip-components=1",
        "--no-same-owner",
        "--file",
    ])
    .arg(&archive);
    tar.arg("--directory").arg(&source);
    command::run(&mut tar, work, |_| {})?;
    report(Progress::Finished);
    Ok(source)
}

fn save_source(tar: impl Read, archive: &Path) -> Result<bool, ImageError> {
    const MAX_SOURCE: u64 = 1 << 30;
    let damaged = |error: io::Error| ImageError::from_io("read the package for", archive, error);
    let mut found = false;
    let mut packages = tar::Archive::new(tar);
    for entry in packages.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if entry
            .path()
            .map_err(damaged)?
            .ends_with(format!("usr/src/{PACKAGE}.tar.xz"))
        {
            let mut file = fs::File::create(archive).map_err(ImageError::io("create", archive))?;
            io::copy(&mut (&mut entry).take(MAX_SOURCE), &mut file)
                .map_err(ImageError::io("write", archive))?;
            found = true;
        }
    }
    mmdebstrap::read_padding(packages).map_err(damaged)?;
    Ok(found)
}

fn make(source: &Path, output: &Path) -> Result<Command, ImageError> {
    let mut make = command::command("make")?;
    make.arg("-C")
        .arg(source)
        .arg(format!("O={}", output.display()))
        .args(REPRODUCIBLE);
    make.stdout(Stdio::null());
    Ok(make)
}

fn configure(source: &Path, output: &Path) -> Result<(), ImageError> {
    let wanted = output.join("tuned.config");
    fs::write(&wanted, CONFIG).map_err(ImageError::io("write", &wanted))?;
    let mut configure = make(source, output)?;
    configure.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &wanted);
    command::run(&mut configure, output, |_| {})?;
    let path = output.join(".config");
    let finished = fs::read_to_string(&path).map_err(ImageError::io("read", &path))?;
    let options = not_held(CONFIG, &finished);
    if options.is_empty() {
        return Ok(());
    }
    Err(ImageError::KernelConfig {
        options: options.join(", "),
    })
}

/// The wanted lines that a configuration does not have. What is wanted off may also be absent.
fn not_held<'a>(wanted: &'a str, finished: &str) -> Vec<&'a str> {
    let holds = |line: &str| match line
        .strip_prefix("# ")
        .and_then(|rest| rest.strip_suffix(" is not set"))
    {
        Some(option) => !finished.lines().any(|other| {
            other
                .strip_prefix(option)
                .is_some_and(|rest| rest.starts_with('='))
        }),
        None => finished.lines().any(|other| other == line),
    };
    wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_"))
        .filter(|line| !holds(line))
        .collect()
}

fn compile(source: &Path, output: &Path, report: Report<'_>) -> Result<(), ImageError> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut compile = make(source, output)?;
    compile
        .arg(format!("-j{jobs}"))
        .arg("vmlinux")
        .stdout(Stdio::piped());
    let mut running = Running::spawn(&mut compile)?;
    let stdout = running.child.stdout.take().expect("standard output is piped");
    thread::scope(|scope| {
        // Standard error is drained meanwhile, so that neither stream holds the compiler up.
        let finishing = scope.spawn(|| running.finish(output, |_| {}));
        let mut compiled = 0;
        for_each_line(stdout, |line| {
            if let Some(file) = line.trim_start().strip_prefix("CC ") {
                compiled += 1;
                report(Progress::Advanced(compiled));
                report(Progress::Stage(file.trim_start()));
            }
        });
        finishing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_did_not_hold_are_found() {
        let wanted = "# A comment\nCONFIG_A=y\nCONFIG_B=32\n# CONFIG_C is not set\n# CONFIG_D is not set\nCONFIG_E=y\n";
        let finished = "CONFIG_A=y\nCONFIG_B=64\nCONFIG_D=y\nCONFIG_CC=y\n# CONFIG_E is not set\n";
        assert_eq!(
            not_held(wanted, finished),
            ["CONFIG_B=32", "# CONFIG_D is not set", "CONFIG_E=y"]
        );
    }

    #[test]
    fn the_configuration_has_what_both_backends_need() {
        for option in [
            "VIRTIO_MMIO_CMDLINE_DEVICES",
            "ACPI",
            "VIRTIO_CONSOLE",
            "VIRTIO_VSOCKETS",
            "SERIO_I8042",
            "PVH",
        ] {
            assert!(
                CONFIG.lines().any(|line| line == format!("CONFIG_{option}=y")),
                "{option}"
            );
        }
    }
}
