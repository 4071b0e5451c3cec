//! The emulated host's own system: a kernel and a root filesystem of Debian's packages, made once and kept.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::build::run;

/// The release where this machine is no Debian. The programs that run on the host are built here, so it must not be older.
const NEWEST: &str = "trixie";
/// Kernel and its modules (KVM among them), what the initramfs is made of and with, and what the tests call.
const PACKAGES: &str =
    "linux-image-cloud-amd64,busybox-static,cpio,kmod,e2fsprogs,iproute2,procps,squashfs-tools";
const INITRAMFS: &str = include_str!("initramfs.sh");
/// Documentation that nobody reads there.
const LEFT_OUT: [&str; 3] = ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// What the emulated host boots.
pub(super) struct Host {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) root: PathBuf,
}

impl Host {
    /// The host in `dir`, made now if it is not there or was made otherwise.
    pub(super) fn prepare(dir: &Path) -> anyhow::Result<Self> {
        let host = Self {
            kernel: dir.join("vmlinuz"),
            initramfs: dir.join("initramfs"),
            root: dir.join("root.squashfs"),
        };
        // Written last: where it is and is right, so is the rest.
        let recipe = dir.join("recipe");
        let release = Release::of_machine()?;
        let wanted = format!("{} {PACKAGES}\n{INITRAMFS}", release.codename);
        if fs::read_to_string(&recipe).is_ok_and(|made| made == wanted) {
            return Ok(host);
        }
        eprintln!("Making the emulated host (a minute or two, once)");
        let _ = fs::remove_file(&recipe);
        host.make(dir, &release)?;
        fs::write(&recipe, wanted).with_context(|| format!("cannot write {}", recipe.display()))?;
        Ok(host)
    }

    fn make(&self, dir: &Path, release: &Release) -> anyhow::Result<()> {
        let tar = tempfile::NamedTempFile::new_in(dir).context("cannot make a temporary file")?;
        let script = dir.join("initramfs.sh");
        fs::write(&script, INITRAMFS).with_context(|| format!("cannot write {}", script.display()))?;
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap
            .current_dir(dir)
            // On an error it ends its whole process group.
            .process_group(0)
            .args(["--quiet", "--variant=minbase", "--format=tar"])
            .arg(format!("--include={PACKAGES}"))
            .args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")))
            .arg("--customize-hook=chroot \"$1\" sh <initramfs.sh")
            .arg("--customize-hook=cat \"$1\"/boot/vmlinuz-* >\"$1\"/boot/vmlinuz")
            .arg("--customize-hook=copy-out /boot/vmlinuz /boot/initramfs .")
            .args([&release.codename, "-"])
            // Sources on its input, else mmdebstrap's own.
            .args((!release.sources.is_empty()).then_some("-"))
            .stdin(Stdio::piped())
            .stdout(tar.reopen().context("cannot open a temporary file")?);
        if std::env::var_os("TMPDIR").is_none() {
            // /tmp may be in memory, and too small.
            bootstrap.env("TMPDIR", "/var/tmp");
        }
        let mut child = bootstrap.spawn().context("cannot start mmdebstrap")?;
        let mut input = child.stdin.take().context("mmdebstrap has no input")?;
        input.write_all(release.sources.as_bytes())?;
        drop(input);
        let status = child.wait().context("cannot wait for mmdebstrap")?;
        if !status.success() {
            bail!("mmdebstrap: {status}");
        }
        let _ = fs::remove_file(&self.root);
        let tar = tar.reopen().context("cannot open a temporary file")?;
        run(Command::new("sqfstar")
            .args(["-quiet", "-no-progress", "-comp", "zstd"])
            .arg(&self.root)
            .stdin(tar))
    }
}

/// Which Debian, and where from.
struct Release {
    codename: String,
    /// Lines of a sources.list; empty for mmdebstrap's own default.
    sources: String,
}

impl Release {
    /// This machine's own release and mirrors where it is a Debian.
    fn of_machine() -> anyhow::Result<Self> {
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| {
            let line = os
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        let (Some("debian"), Some(codename)) = (field("ID").as_deref(), field("VERSION_CODENAME")) else {
            return Ok(Self {
                codename: NEWEST.to_owned(),
                sources: String::new(),
            });
        };
        let format = "$(SITE) $(RELEASE) $(COMPONENT)";
        let output = Command::new("apt-get")
            .args(["indextargets", "--format", format, "Created-By: Packages"])
            .output()
            .context("cannot start apt-get")?;
        let sources = sources(&String::from_utf8_lossy(&output.stdout), &codename);
        Ok(Self { codename, sources })
    }
}

/// From apt's `SITE RELEASE COMPONENT` lines to the sources of one release.
fn sources(targets: &str, codename: &str) -> String {
    let mut lines: Vec<String> = targets
        .lines()
        .filter_map(|line| {
            let (site, rest) = line.split_once(' ')?;
            let suite = rest.strip_suffix(" main")?;
            let pocket = suite.strip_prefix(codename)?;
            ["", "-updates", "-security"]
                .contains(&pocket)
                .then(|| format!("deb {site} {suite} main\n"))
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::sources;

    #[test]
    fn sources_are_those_of_the_release() {
        let targets = "http://a/debian trixie main\nhttp://a/debian trixie contrib\n\
                       http://a/debian trixie-updates main\nhttp://a/debian trixie-backports main\n\
                       http://b/security trixie-security main\nhttp://c/other stable main\n\
                       http://a/debian trixie main\n";
        let expected = "deb http://a/debian trixie main\ndeb http://a/debian trixie-updates main\n\
                        deb http://b/security trixie-security main\n";
        assert_eq!(sources(targets, "trixie"), expected);
        assert_eq!(sources("", "trixie"), "");
    }
}
