//! The Debian packages that the commands need: what is missing is named, then installed.

use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use image::Purpose;

use crate::build::run;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Installs the packages that are missing, after saying which.
pub(crate) fn install_missing() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.into_iter().collect();
    let command = image::install_command(&names);
    if !is_program("apt-get") {
        bail!(
            "these Debian packages, or their like, are missing: {}",
            names.join(" ")
        );
    }
    eprintln!("Installing Debian packages: {}", names.join(" "));
    let failed = || format!("cannot install them; do it with: {command}");
    apt(&["update", "--quiet=2"]).with_context(failed)?;
    let install = ["install", "--yes", "--quiet=2", "--no-install-recommends"];
    apt(&[&install[..], &names[..]].concat()).with_context(failed)
}

/// What images need, what machines need, and the keys of Debian's archive.
fn missing() -> BTreeSet<&'static str> {
    let mut purposes = vec![Purpose::Images, Purpose::Inject];
    if !rustix::process::geteuid().is_root() {
        purposes.push(Purpose::Rootless);
    }
    let tools = purposes.into_iter().flat_map(image::missing);
    let mut missing: BTreeSet<_> = tools.map(|tool| tool.package).collect();
    if !is_program("qemu-system-x86_64") {
        missing.insert("qemu-system-x86");
    }
    if !Path::new(KEYRING).exists() {
        missing.insert("debian-archive-keyring");
    }
    missing
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    };
    run(command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(arguments))
}

fn is_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(name).exists())
}
