//! Calls mmdebstrap, which fetches, checks and unpacks Debian packages with and without root, and streams what it made as a tar.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use rustix::thread::CapabilitySet;

use crate::command::{self, Running};
use crate::mirror::{self, Mirror};
use crate::progress::{Progress, Report};
use crate::{ImageError, tools};

/// What is asked of it.
#[derive(Debug)]
pub(crate) struct Debootstrap<'a> {
    /// The release, by code name.
    pub(crate) suite: &'a str,
    /// `extract` only unpacks, `minbase` installs a small system.
    pub(crate) variant: &'a str,
    /// The packages, with what they depend on.
    pub(crate) packages: &'a [String],
    /// Shell commands run inside, as root, at the end.
    pub(crate) commands: &'a [String],
    /// `SOURCE_DATE_EPOCH` for the packages' own scripts.
    pub(crate) epoch: u64,
}

impl Debootstrap<'_> {
    /// Starts it, with `work` for what it unpacks; the tar comes on the second of the pair.
    pub(crate) fn spawn(
        &self,
        mirror: Option<&Mirror>,
        work: &Path,
    ) -> Result<(Running, impl Read + Send + use<>), ImageError> {
        let mut running =
            Running::spawn_ended_by(Signal::KILL, self.command(mirror, work)?.stdout(Stdio::piped()))?;
        let stdout = take_stdout(&mut running.child);
        Ok((running, stdout))
    }

    fn command(&self, mirror: Option<&Mirror>, work: &Path) -> Result<Command, ImageError> {
        tools::check(tools::bootstrap_purposes())?;
        mirror::check_keyring()?;
        let mut command = own_namespaces()?;
        command.args(["mmdebstrap", "--mode=root", "--format=tar"]);
        command.arg(format!("--variant={}", self.variant));
        command.arg("--aptopt=Acquire::Retries \"3\"");
        command.arg(format!("--include={}", self.packages.join(",")));
        for line in self.commands {
            // sh runs the hook outside the new system, with its directory as the first argument.
            command.arg(format!(
                "--customize-hook=chroot \"$1\" sh -c '{}'",
                line.replace('\'', r"'\''")
            ));
        }
        command.args(["--", self.suite, "-"]);
        command.args(
            mirror
                .map(|mirror| mirror.sources(self.suite))
                .unwrap_or_default(),
        );
        command
            .env("SOURCE_DATE_EPOCH", self.epoch.to_string())
            .env("TMPDIR", work);
        Ok(command)
    }
}

/// A command that runs another one in namespaces of its own. When it is killed, or this process is, its mounts and its whole process
/// tree go with it; mmdebstrap alone would leave both. unshare itself ignores gentler signals than SIGKILL. A user other than root becomes root there, over the user's subordinate ids.
///
/// In a container that lets root do neither, mmdebstrap still works, without these.
fn own_namespaces() -> Result<Command, ImageError> {
    let is_root = rustix::process::geteuid().is_root();
    if is_root && !may_make_namespaces() {
        return command::command("env");
    }
    let mut unshare = command::command("unshare")?;
    if !is_root {
        unshare.args(["--map-root-user", "--map-auto"]);
    }
    unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    Ok(unshare)
}

fn may_make_namespaces() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Removes what an mmdebstrap that was killed left in a directory. In it may be directories of the user's subordinate ids.
pub(crate) fn remove_leftovers(directory: &Path) -> Result<(), ImageError> {
    let mut remove = own_namespaces()?;
    remove
        .args(["rm", "--recursive", "--force", "--one-file-system", "--"])
        .arg(directory);
    command::run(&mut remove, directory, |_| {})
}

fn take_stdout(child: &mut Child) -> std::process::ChildStdout {
    child.stdout.take().expect("standard output is piped")
}

/// Waits for the end of an mmdebstrap while its stages are reported.
pub(crate) fn finish(running: Running, directory: &Path, report: Report<'_>) -> Result<(), ImageError> {
    let mut unfetched = None;
    let finished = running.called("mmdebstrap").finish(directory, |line| {
        if let Some(stage) = stage(line) {
            report(Progress::Stage(stage));
        }
        if unfetched.is_none() {
            unfetched = fetch_failure(line);
        }
    });
    match (finished, unfetched) {
        (Err(ImageError::ToolFailed { .. }), Some(unfetched)) => Err(unfetched),
        (finished, _) => finished,
    }
}

/// apt's `E: Failed to fetch ADDRESS  reason`.
fn fetch_failure(line: &str) -> Option<ImageError> {
    let (url, reason) = line.strip_prefix("E: Failed to fetch ")?.split_once(' ')?;
    Some(ImageError::Download {
        url: url.to_owned(),
        reason: reason.trim().to_owned(),
    })
}

/// Reads what follows the last entry of a tar: with its reader gone before its last byte is, mmdebstrap would fail.
pub(crate) fn read_padding(archive: tar::Archive<impl Read>) -> io::Result<()> {
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

fn stage(line: &str) -> Option<&str> {
    line.strip_prefix("I: ")?.strip_suffix("...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_told_from_other_messages() {
        assert_eq!(stage("I: extracting archives..."), Some("extracting archives"));
        assert_eq!(stage("I: success in 15.7982 seconds"), None);
        assert_eq!(stage("E: run_chroot failed"), None);
    }

    #[test]
    fn a_mirror_out_of_reach_is_a_download_that_failed() {
        let line =
            "E: Failed to fetch http://mirror.example/debian/dists/trixie/InRelease  Could not connect";
        let error = fetch_failure(line).expect("it is one").to_string();
        assert_eq!(
            error,
            "Could not download http://mirror.example/debian/dists/trixie/InRelease: Could not connect"
        );
        assert!(fetch_failure("E: mmdebstrap failed to run").is_none());
    }
}
