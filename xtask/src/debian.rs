//! The Debian packages that the commands need: what is missing is named, then installed.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::build::run;

/// A package, and a file or program that shows that it is installed.
struct Package {
    name: &'static str,
    proof: &'static str,
}

const PACKAGES: [Package; 5] = [
    Package {
        name: "qemu-system-x86",
        proof: "qemu-system-x86_64",
    },
    Package {
        name: "mmdebstrap",
        proof: "mmdebstrap",
    },
    Package {
        name: "squashfs-tools",
        proof: "sqfstar",
    },
    Package {
        name: "e2fsprogs",
        proof: "debugfs",
    },
    Package {
        name: "debian-archive-keyring",
        proof: "/usr/share/keyrings/debian-archive-keyring.gpg",
    },
];

/// Installs the packages that are missing, after saying which.
pub(crate) fn install_missing() -> anyhow::Result<()> {
    let missing: Vec<_> = PACKAGES
        .iter()
        .filter(|package| !present(package.proof))
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !present("apt-get") {
        bail!("these Debian packages, or their like, are missing: {names}");
    }
    eprintln!("Installing Debian packages: {names}");
    let failed = || format!("cannot install them; as root: apt-get install {names}");
    apt(&["update", "--quiet=2"]).with_context(failed)?;
    let install = ["install", "--yes", "--quiet=2", "--no-install-recommends"];
    apt(&[&install[..], &missing[..]].concat()).with_context(failed)
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

/// Whether a file, or a program of that name, is there. Programs of the system administrator count too: a user's `PATH`
/// need not name their directories.
fn present(proof: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(proof).exists())
        || Path::new(proof).is_absolute() && Path::new(proof).exists()
}

#[cfg(test)]
mod tests {
    use super::present;

    #[test]
    fn programs_and_files_are_found_and_missing_ones_are_not() {
        assert!(present("sh"));
        assert!(present("/bin/sh"));
        assert!(!present("no-such-program"));
        assert!(!present("/no/such/file"));
    }
}
