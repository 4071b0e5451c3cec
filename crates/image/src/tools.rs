//! The programs that set-up calls, each with the Debian package that has it.

use std::env;
use std::path::PathBuf;

use crate::ImageError;

/// What a program is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Fetching the packaged kernel and making root filesystems.
    Images,
    /// The same as a user other than root.
    Rootless,
    /// Compiling the tuned kernel.
    TunedKernel,
    /// Putting the guest-runner into an existing image.
    Inject,
}

/// A program (or C header) and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its file name.
    pub program: &'static str,
    /// The Debian package.
    pub package: &'static str,
    /// What it is needed for.
    pub purpose: Purpose,
}

const fn tool(program: &'static str, package: &'static str, purpose: Purpose) -> Tool {
    Tool {
        program,
        package,
        purpose,
    }
}

const TOOLS: &[Tool] = &[
    tool("mmdebstrap", "mmdebstrap", Purpose::Images),
    tool("sqfstar", "squashfs-tools", Purpose::Images),
    tool("mkfs.ext4", "e2fsprogs", Purpose::Images),
    tool("unshare", "util-linux", Purpose::Images),
    tool("newuidmap", "uidmap", Purpose::Rootless),
    tool("make", "make", Purpose::TunedKernel),
    tool("gcc", "gcc", Purpose::TunedKernel),
    tool("ld", "binutils", Purpose::TunedKernel),
    tool("flex", "flex", Purpose::TunedKernel),
    tool("bison", "bison", Purpose::TunedKernel),
    tool("bc", "bc", Purpose::TunedKernel),
    tool("perl", "perl", Purpose::TunedKernel),
    tool("tar", "tar", Purpose::TunedKernel),
    tool("xz", "xz-utils", Purpose::TunedKernel),
    tool("libelf.h", "libelf-dev", Purpose::TunedKernel),
    tool("stdlib.h", "libc6-dev", Purpose::TunedKernel),
    tool("debugfs", "e2fsprogs", Purpose::Inject),
    tool("e2fsck", "e2fsprogs", Purpose::Inject),
];

/// The programs needed for `purpose`.
pub fn required(purpose: Purpose) -> impl Iterator<Item = Tool> {
    TOOLS.iter().copied().filter(move |tool| tool.purpose == purpose)
}

/// Those of them that are not installed.
#[must_use]
pub fn missing(purpose: Purpose) -> Vec<Tool> {
    required(purpose)
        .filter(|tool| find(tool.program).is_none())
        .collect()
}

/// The command that installs `packages` on Debian.
#[must_use]
pub fn install_command(packages: &[&str]) -> String {
    let sudo = if rustix::process::geteuid().is_root() {
        ""
    } else {
        "sudo "
    };
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    format!("{sudo}apt-get install {}", packages.join(" "))
}

/// Finds a program in `PATH`, then in the directories of system programs, which a user's `PATH` may lack; a header where compilers do.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.ends_with(".h") {
        return Some(PathBuf::from("/usr/include").join(program)).filter(|header| header.exists());
    }
    search_path()
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

/// `PATH`, then the directories of the system that are not in it.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path)
        .filter(|path| path.is_absolute())
        .collect();
    for directory in ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// That all programs of these purposes are installed; the error names every one that is not.
pub(crate) fn check(purposes: &[Purpose]) -> Result<(), ImageError> {
    let tools: Vec<Tool> = purposes.iter().flat_map(|purpose| missing(*purpose)).collect();
    if tools.is_empty() {
        Ok(())
    } else {
        Err(ImageError::ToolMissing { tools })
    }
}

/// What is needed to call mmdebstrap as this user.
pub(crate) fn bootstrap_purposes() -> &'static [Purpose] {
    if rustix::process::geteuid().is_root() {
        &[Purpose::Images]
    } else {
        &[Purpose::Images, Purpose::Rootless]
    }
}

/// A program of the list, wherever it is missing.
pub(crate) fn named(program: &'static str) -> Tool {
    TOOLS
        .iter()
        .copied()
        .find(|tool| tool.program == program)
        .unwrap_or(tool(program, program, Purpose::Images))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there_and_only_that() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program").is_none());
    }

    #[test]
    fn one_command_installs_each_package_once() {
        let command = install_command(&["e2fsprogs", "bc", "e2fsprogs"]);
        assert!(command.ends_with("apt-get install bc e2fsprogs"), "{command}");
    }
}
