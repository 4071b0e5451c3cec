//! A template's root filesystem: mmdebstrap's tar goes through a filter that leaves out and evens out what differs between two builds
//! or would tell of the host, and on into sqfstar, without a copy on disk.
//!
//! Compressed with lz4 in blocks of 128 KiB: an emulated guest starts its interpreters within 5 % of the time that it takes from an
//! uncompressed image, which is twice as large; zstd is a quarter smaller and 5 to 10 % slower.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::thread;

use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::ImageError;
use crate::command::{self, Running};
use crate::initramfs::hex;
use crate::mirror::Mirror;
use crate::mmdebstrap::{self, Debootstrap};
use crate::progress::{Progress, Report, Unit};
use crate::template::{Package, ROOTFS, Recipe, TemplateManifest};

/// The time of every file: no build date, no clock. 2025-08-09, the release of Debian 13.
const EPOCH: u64 = 1_754_697_600;
const MAX_STATUS: u64 = 64 * 1024 * 1024;

/// Directories that are kept empty.
const EMPTIED: &[&str] = &[
    "boot",
    "dev",
    "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/log",
    "var/tmp",
];

/// What is left out of every template: of the build, of the host, or made anew by who needs it.
const DROPPED: &[&str] = &[
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "root/.bash_history",
    "var/lib/apt/extended_states",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
];

/// Files with the same contents in every template.
const FIXED: &[(&str, &str)] = &[
    ("etc/hostname", "runner\n"),
    ("etc/hosts", "127.0.0.1 localhost runner\n::1 localhost\n"),
    ("etc/machine-id", ""),
    ("etc/resolv.conf", ""),
];

/// Makes the root filesystem and its manifest in `directory`, which is empty; `work` is for what is only needed meanwhile.
pub(crate) fn make(
    recipe: &Recipe,
    mirror: Option<&Mirror>,
    directory: &Path,
    work: &Path,
    report: Report<'_>,
) -> Result<(), ImageError> {
    let step = format!("template {}", recipe.name);
    report(Progress::Started {
        step: &step,
        unit: Unit::Nothing,
        total: None,
    });
    let rootfs = directory.join(ROOTFS);
    let packages = build(recipe, mirror, &rootfs, work, report)?;
    let (rootfs_sha256, rootfs_bytes) = digest(&rootfs)?;
    let manifest = TemplateManifest {
        name: recipe.name.clone(),
        suite: recipe.suite.clone(),
        languages: recipe.languages.clone(),
        rootfs_sha256,
        rootfs_bytes,
        recipe_sha256: recipe.sha256.clone(),
        packages,
    };
    manifest.write(directory)?;
    report(Progress::Finished);
    Ok(())
}

fn build(
    recipe: &Recipe,
    mirror: Option<&Mirror>,
    rootfs: &Path,
    work: &Path,
    report: Report<'_>,
) -> Result<Vec<Package>, ImageError> {
    let bootstrap = Debootstrap {
        suite: &recipe.suite,
        variant: "minbase",
        packages: &recipe.packages,
        commands: &recipe.commands,
        epoch: EPOCH,
    };
    let (bootstrapping, tar) = bootstrap.spawn(mirror, work)?;
    let (packing, input) = spawn_sqfstar(rootfs)?;
    let (bootstrapped, packed, filtered) = thread::scope(|scope| {
        // Its standard input ends with the filter, and so it does too.
        let filtering = scope.spawn(|| filter(tar, input, &recipe.exclude));
        let packing = scope.spawn(|| packing.finish(rootfs, |_| {}));
        let bootstrapped = mmdebstrap::finish(bootstrapping, rootfs, report);
        (bootstrapped, join(packing), join(filtering))
    });
    // Each of the three brings down the others when it fails; the cause is told, not what came of it.
    if matches!(&filtered, Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
        packed?;
        bootstrapped?;
    } else {
        bootstrapped?;
        packed?;
    }
    filtered.map_err(ImageError::io("pack", rootfs))
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn spawn_sqfstar(rootfs: &Path) -> Result<(Running, ChildStdin), ImageError> {
    // It gives the root directory to whoever runs it, whatever its options say: so that is root, at least in its own eyes.
    let mut sqfstar = if rustix::process::geteuid().is_root() {
        command::command("sqfstar")?
    } else {
        let mut unshare = command::command("unshare")?;
        unshare.args(["--map-root-user", "--", "sqfstar"]);
        unshare
    };
    sqfstar.args([
        "-quiet",
        "-no-progress",
        "-no-xattrs",
        "-comp",
        "lz4",
        "-b",
        "128K",
        "-root-mode",
        "755",
    ]);
    sqfstar.arg("-root-time").arg(EPOCH.to_string());
    sqfstar.arg(rootfs).env("SOURCE_DATE_EPOCH", EPOCH.to_string());
    sqfstar.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running::spawn(&mut sqfstar)?;
    let input = running.child.stdin.take().expect("standard input is piped");
    Ok((running, input))
}

fn digest(path: &Path) -> Result<(String, u64), ImageError> {
    let mut file = File::open(path).map_err(ImageError::io("open", path))?;
    let mut digest = Sha256::new();
    let mut bytes = 0;
    let mut block = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut block).map_err(ImageError::io("read", path))?;
        if length == 0 {
            return Ok((hex(&digest.finalize()), bytes));
        }
        digest.update(&block[..length]);
        bytes += length as u64;
    }
}

/// Copies a tar, leaving out and evening out; returns the packages of the system in it.
fn filter(tar: impl Read, output: impl Write, exclude: &[String]) -> io::Result<Vec<Package>> {
    let mut output = Builder::new(BufWriter::with_capacity(1 << 20, output));
    let mut packages = Vec::new();
    let mut archive = Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = relative(&entry.path()?);
        if path.as_os_str().is_empty() || is_left_out(&path, exclude) {
            continue;
        }
        let mut header = even_header(entry.header())?;
        match entry.header().entry_type() {
            EntryType::Regular if path == Path::new("var/lib/dpkg/status") => {
                let mut status = String::new();
                (&mut entry).take(MAX_STATUS).read_to_string(&mut status)?;
                packages = installed_packages(&status);
                header.set_size(status.len() as u64);
                output.append_data(&mut header, &path, status.as_bytes())?;
            }
            EntryType::Regular | EntryType::Directory => {
                header.set_size(entry.size());
                output.append_data(&mut header, &path, &mut entry)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.unwrap_or_default();
                output.append_link(&mut header, &path, &*target)?;
            }
            EntryType::Link => {
                let target = relative(&entry.link_name()?.unwrap_or_default());
                if is_left_out(&target, exclude) {
                    return Err(unusable(&path, "is a hard link to a file that is left out"));
                }
                output.append_link(&mut header, &path, &target)?;
            }
            _ => return Err(unusable(&path, "is a device or pipe")),
        }
    }
    mmdebstrap::read_padding(archive)?;
    for (path, contents) in FIXED {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(EPOCH);
        header.set_size(contents.len() as u64);
        output.append_data(&mut header, path, contents.as_bytes())?;
    }
    output.into_inner()?.flush()?;
    Ok(packages)
}

fn unusable(path: &Path, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} {reason}", path.display()))
}

fn even_header(from: &Header) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(from.entry_type());
    header.set_mode(from.mode()?);
    header.set_uid(from.uid()?);
    header.set_gid(from.gid()?);
    header.set_mtime(EPOCH);
    header.set_size(0);
    Ok(header)
}

fn relative(path: &Path) -> PathBuf {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_)))
        .collect()
}

fn is_left_out(path: &Path, exclude: &[String]) -> bool {
    let is_emptied = EMPTIED
        .iter()
        .any(|directory| path != Path::new(directory) && path.starts_with(directory));
    let is_host_key = path.starts_with("etc/ssh")
        && path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"ssh_host_"));
    is_emptied
        || is_host_key
        || DROPPED.iter().any(|dropped| path.starts_with(dropped))
        || FIXED.iter().any(|(fixed, _)| path == Path::new(fixed))
        || exclude.iter().any(|pattern| is_below(path, pattern))
}

/// Whether `path` is what the pattern names, or below it; `*` stands for one whole name.
fn is_below(path: &Path, pattern: &str) -> bool {
    let mut components = path.components();
    pattern.split('/').all(|name| {
        components
            .next()
            .is_some_and(|component| name == "*" || component.as_os_str() == name)
    })
}

/// From dpkg's status file, sorted.
fn installed_packages(status: &str) -> Vec<Package> {
    let mut packages: Vec<Package> = status.split("\n\n").filter_map(installed_package).collect();
    packages.sort();
    packages
}

fn installed_package(stanza: &str) -> Option<Package> {
    let field = |name: &str| {
        stanza
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    field("Status")?.ends_with(" installed").then_some(())?;
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tar: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, contents: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        match kind {
            EntryType::Symlink | EntryType::Link => {
                header.set_size(0);
                tar.append_link(&mut header, path, contents).expect("to memory");
            }
            _ => {
                header.set_size(contents.len() as u64);
                tar.append_data(&mut header, path, contents.as_bytes())
                    .expect("to memory");
            }
        }
    }

    fn filtered(
        exclude: &[&str],
        fill: impl Fn(&mut Builder<Vec<u8>>),
    ) -> io::Result<(Vec<u8>, Vec<Package>)> {
        let mut tar = Builder::new(Vec::new());
        fill(&mut tar);
        let tar = tar.into_inner().expect("to memory");
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let mut output = Vec::new();
        let packages = filter(tar.as_slice(), &mut output, &exclude)?;
        Ok((output, packages))
    }

    fn paths(tar: &[u8]) -> Vec<String> {
        let mut archive = Archive::new(tar);
        let path = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            entry
                .expect("whole")
                .path()
                .expect("a path")
                .display()
                .to_string()
        };
        archive.entries().expect("a tar").map(path).collect()
    }

    #[test]
    fn what_differs_between_hosts_and_builds_is_left_out() {
        let (tar, _) = filtered(&["usr/share/doc", "usr/lib/*/tests"], |tar| {
            entry(tar, "./", EntryType::Directory, "");
            for path in [
                "./dev/",
                "./etc/",
                "./var/log/",
                "./usr/share/doc/",
                "./usr/lib/x/",
            ] {
                entry(tar, path, EntryType::Directory, "");
            }
            for path in [
                "./dev/null",
                "./etc/machine-id",
                "./etc/passwd",
                "./etc/passwd-",
                "./etc/resolv.conf",
                "./etc/ssh/ssh_host_rsa_key",
                "./etc/apt/sources.list",
                "./usr/share/doc/x/copyright",
                "./usr/lib/x/tests/test.py",
                "./usr/lib/x/y/tests",
                "./var/log/dpkg.log",
            ] {
                entry(tar, path, EntryType::Regular, "x");
            }
        })
        .expect("filtered");
        let expected = [
            "dev/",
            "etc/",
            "var/log/",
            "usr/lib/x/",
            "etc/passwd",
            "usr/lib/x/y/tests",
            "etc/hostname",
            "etc/hosts",
            "etc/machine-id",
            "etc/resolv.conf",
        ];
        let paths: Vec<String> = paths(&tar);
        let trim = |path: &str| path.trim_end_matches('/').to_owned();
        assert_eq!(
            paths.iter().map(|path| trim(path)).collect::<Vec<_>>(),
            expected.map(trim)
        );
    }

    #[test]
    fn owners_modes_and_links_stay_and_times_do_not() {
        let (tar, _) = filtered(&[], |tar| {
            entry(tar, "./usr/bin/perl", EntryType::Regular, "perl");
            entry(tar, "./usr/bin/perl5", EntryType::Link, "./usr/bin/perl");
            entry(tar, "./bin", EntryType::Symlink, "usr/bin");
        })
        .expect("filtered");
        let mut archive = Archive::new(tar.as_slice());
        let mut entries = archive.entries().expect("a tar");
        let mut next = || entries.next().expect("another").expect("whole");
        let mut file = next();
        assert_eq!(file.header().mode().expect("a mode"), 0o755);
        assert_eq!(file.header().mtime().expect("a time"), EPOCH);
        let mut contents = String::new();
        file.read_to_string(&mut contents).expect("text");
        assert_eq!(contents, "perl");
        assert_eq!(
            next().link_name().expect("a link").as_deref(),
            Some(Path::new("usr/bin/perl"))
        );
        assert_eq!(
            next().link_name().expect("a link").as_deref(),
            Some(Path::new("usr/bin"))
        );
    }

    #[test]
    fn what_cannot_be_kept_is_an_error() {
        let dangling = filtered(&["usr/share/doc"], |tar| {
            entry(tar, "./usr/x", EntryType::Link, "./usr/share/doc/x");
        });
        assert!(dangling.is_err());
        assert!(filtered(&[], |tar| entry(tar, "./pipe", EntryType::Fifo, "")).is_err());
    }

    #[test]
    fn the_packages_are_those_that_are_installed() {
        let status = "Package: zsh\nStatus: install ok installed\nVersion: 5\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
            Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n";
        let (_, packages) = filtered(&[], |tar| {
            entry(tar, "./var/lib/dpkg/status", EntryType::Regular, status)
        })
        .expect("filtered");
        let names: Vec<String> = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        assert_eq!(names, ["bash=5.2-1", "zsh=5"]);
    }
}
