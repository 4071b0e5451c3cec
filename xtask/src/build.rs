//! Builds host-agent and has it make the images.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::debian;

/// How host-agent is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// What users run.
    Release,
}

/// Installs what is missing, builds host-agent, and makes the images of `templates` where they are not there yet.
/// Returns host-agent's path.
pub(crate) fn prepare(profile: Profile, templates: &[&str]) -> anyhow::Result<PathBuf> {
    debian::install_missing()?;
    let host_agent = host_agent(profile)?;
    for template in templates {
        run(Command::new(&host_agent).args(["setup", "--template", template]))?;
    }
    Ok(host_agent)
}

/// Builds host-agent (the static guest-runner inside it included).
pub(crate) fn host_agent(profile: Profile) -> anyhow::Result<PathBuf> {
    program("host-agent", profile)
}

/// Builds a package as users run it, and gives the path of its program.
pub(crate) fn release(package: &str) -> anyhow::Result<PathBuf> {
    program(package, Profile::Release)
}

fn program(package: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--package", package]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    run(&mut build)?;
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    Ok(target_dir().join(directory).join(package))
}

/// A cargo command in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The workspace's root.
pub(crate) fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// Runs a command to its end; an exit status other than 0 is an error that names it.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = format!("{command:?}").replace('"', "");
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}
