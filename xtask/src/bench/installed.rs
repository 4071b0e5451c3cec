//! The host-agent that is measured, in a runtime directory of the benchmark's own; and a snapshot of its.
//!
//! ```text
//! host-agent template build ─► manifest, files ──────────► engine::Template (our side)
//! host-agent run (a clone that waits) ─► /proc of its VMM ─► Specimen (the floor: same program, arguments, environment)
//! ```

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use engine::Template;
use image::Store;
use image::signing::SigningKeys;
use image::snapshot::{SnapshotManifest, Snapshots};
use protocol::Language;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vmm::{Accel, BackendKind, Filesystem, Init, RootDrive, SnapshotFile, VmmBinary};

use super::interrupt;
use crate::build::{Profile, prepare};

/// Names the host-agent to measure, where nothing can be built.
pub(crate) const HOST_AGENT: &str = "RUNNER_CODES_HOST_AGENT";
const STATE_DIR: &str = "RUNNER_CODES_STATE_DIR";
pub(super) const RUNTIME_DIR: &str = "RUNNER_CODES_RUNTIME_DIR";
/// In a snapshot's directory.
const MANIFEST: &str = "manifest.json";
/// How long anything may take that is not measured. Building a template takes long, and longer on an emulated host.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(5);

/// host-agent, and where the benchmark has its machines. What is left there goes with it.
pub(super) struct Installed {
    host_agent: PathBuf,
    work: tempfile::TempDir,
}

impl Installed {
    /// The one that the environment names, else one that is built now, with its images.
    pub(super) fn find() -> anyhow::Result<Self> {
        let host_agent = match env::var_os(HOST_AGENT) {
            Some(path) => path.into(),
            None => prepare(Profile::Release, &["base"])?,
        };
        // Not deep: a socket's path is short.
        let work = tempfile::Builder::new().prefix("rc-bench-").tempdir();
        Ok(Self {
            host_agent,
            work: work.context("cannot make a temporary directory")?,
        })
    }

    pub(super) fn host_agent(&self) -> &Path {
        &self.host_agent
    }

    pub(super) fn work(&self) -> &Path {
        self.work.path()
    }

    pub(super) fn runtime_dir(&self) -> PathBuf {
        self.work().join("run")
    }

    /// host-agent with the benchmark's runtime directory.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.host_agent);
        command
            .env(RUNTIME_DIR, self.runtime_dir())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end, which has to be a good one, and gives the JSON that it printed.
    pub(super) fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = self
            .command(arguments)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start {}", self.host_agent.display()))?;
        ensure!(
            output.status.success(),
            "host-agent {}: {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
        serde_json::from_slice(&output.stdout).context("host-agent printed no JSON")
    }

    /// The snapshot of the template `base` that fits, made now if there is none.
    pub(super) fn frozen(&self) -> anyhow::Result<Frozen> {
        let path = self.build_template()?;
        Frozen::open(&path, self.specimen()?)
    }

    /// Sees to it that there is a snapshot that fits, and gives its path.
    pub(super) fn build_template(&self) -> anyhow::Result<PathBuf> {
        let built = self.json(&["template", "build", "base", "--json"])?;
        let path = built["path"].as_str().context("template build gave no path")?;
        Ok(path.into())
    }

    /// Whether machines are emulated here.
    pub(super) fn emulates(&self) -> anyhow::Result<bool> {
        let manifest = fs::read(self.build_template()?.join(MANIFEST))?;
        let manifest: SnapshotManifest = serde_json::from_slice(&manifest).context("the manifest is none")?;
        Ok(manifest.key.vmm.contains(" tcg "))
    }

    fn specimen(&self) -> anyhow::Result<Specimen> {
        let sleep = ["run", "--lang", "bash", "--timeout", "600", "--code", "sleep 600"];
        let job = self
            .command(&sleep)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start host-agent")?;
        let mut job = Interrupted(job);
        let end = Instant::now() + PATIENCE;
        loop {
            interrupt::check()?;
            if let Some(status) = job.0.try_wait()? {
                bail!("host-agent run ended with {status}");
            }
            if let Some(specimen) = children(job.0.id()).into_iter().find_map(Specimen::of) {
                return Ok(specimen);
            }
            ensure!(Instant::now() < end, "no clone was seen");
            thread::sleep(LOOK);
        }
    }
}

/// A host-agent that is interrupted on drop, and then waited for, so that it removes what it has made.
pub(super) struct Interrupted(pub(super) Child);

impl Drop for Interrupted {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + Duration::from_secs(20);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(LOOK);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process's children.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// What the VMM of a clone is started as.
#[derive(Debug, Clone)]
pub(super) struct Specimen {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The first disk.
    pub(super) root: PathBuf,
}

impl Specimen {
    /// `None` for what is no clone, or not yet.
    fn of(pid: u32) -> Option<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let words = words(&fs::read(proc.join("cmdline")).ok()?);
        let mut words = words
            .into_iter()
            .map(|word| String::from_utf8_lossy(&word).into_owned());
        words.next()?;
        let arguments: Vec<String> = words.collect();
        let root = if arguments.iter().any(|word| word == "-incoming") {
            root_of(&arguments)?
        } else if arguments.iter().any(|word| word == "--api-sock") {
            fs::read_link(proc.join("cwd/rootfs.img")).ok()?
        } else {
            return None;
        };
        let environment = fs::read(proc.join("environ")).ok()?;
        Some(Self {
            program: fs::read_link(proc.join("exe")).ok()?,
            arguments,
            environment: self::words(&environment).into_iter().filter_map(pair).collect(),
            root,
        })
    }
}

fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

fn pair(mut variable: Vec<u8>) -> Option<(OsString, OsString)> {
    let equals = variable.iter().position(|byte| *byte == b'=')?;
    let value = variable.split_off(equals + 1);
    variable.pop();
    Some((OsString::from_vec(variable), OsString::from_vec(value)))
}

/// The root disk in QEMU's arguments.
fn root_of(arguments: &[String]) -> Option<PathBuf> {
    arguments.iter().find_map(|argument| {
        let node: Value = serde_json::from_str(argument).ok()?;
        (node["node-name"] == "root")
            .then(|| node["file"]["filename"].as_str().map(PathBuf::from))
            .flatten()
    })
}

/// A snapshot, for our side and for the floor.
pub(super) struct Frozen {
    pub(super) template: Template,
    pub(super) specimen: Specimen,
}

impl Frozen {
    fn open(path: &Path, specimen: Specimen) -> anyhow::Result<Self> {
        let text = fs::read(path.join(MANIFEST))
            .with_context(|| format!("cannot read the manifest in {}", path.display()))?;
        let manifest: SnapshotManifest = serde_json::from_slice(&text).context("the manifest is none")?;
        let store = Store::open(env::var_os(STATE_DIR).map_or_else(Store::default_path, PathBuf::from));
        let snapshot = Snapshots::open(&store)
            .find(&manifest.key)?
            .context("the snapshot is gone")?
            .open(&SigningKeys::open(store.root()), &manifest.key)?;
        let mut parked = BTreeMap::new();
        for language in &manifest.parked {
            *parked.entry(language.parse::<Language>()?).or_default() += 1;
        }
        let key = &manifest.key;
        let template = Template {
            vmm: vmm_binary(&key.vmm, specimen.program.clone())
                .with_context(|| format!("cannot make sense of {:?}", key.vmm))?,
            memory: SnapshotFile::new(snapshot.memory().try_clone()?, snapshot.memory_path())?,
            state: SnapshotFile::new(snapshot.state().try_clone()?, snapshot.state_path())?,
            root: RootDrive {
                path: specimen.root.clone(),
                filesystem: Filesystem::Squashfs,
                init: Init::Runner,
            },
            scratch: SnapshotFile::new(snapshot.scratch().try_clone()?, snapshot.scratch_path())?,
            vcpus: key.vcpus.try_into().context("too many processors")?,
            memory_mib: key.memory_mib,
            hello: serde_json::from_value(manifest.hello.clone()).context("the hello is none")?,
            parked,
            in_use: Arc::new(snapshot),
            on_restore: None,
        };
        Ok(Self { template, specimen })
    }

    /// What it is, for the heads of tables.
    pub(super) fn describe(&self) -> String {
        let vmm = &self.template.vmm;
        let parked = self.template.parked.iter();
        let parked: Vec<String> = parked
            .map(|(language, count)| format!("{count} {language}"))
            .collect();
        format!(
            "{} ({}), {} MiB, parked: {}",
            vmm.identity(),
            vmm.path.display(),
            self.template.memory_mib,
            parked.join(", ")
        )
    }
}

/// From `VmmBinary::identity`: `qemu 7.2.22 tcg layout 1`.
fn vmm_binary(identity: &str, path: PathBuf) -> Option<VmmBinary> {
    let mut words = identity.split_whitespace();
    let kind = match words.next()? {
        "qemu" => BackendKind::Qemu,
        "firecracker" => BackendKind::Firecracker,
        _ => return None,
    };
    let mut numbers = words.next()?.split('.').map(str::parse);
    let mut number = || numbers.next()?.ok();
    let version = (number()?, number()?, number()?);
    let accel = match words.next()? {
        "kvm" => Accel::Kvm,
        "tcg" => Accel::Tcg,
        _ => return None,
    };
    Some(VmmBinary {
        kind,
        path,
        version,
        accel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmm_is_read_from_its_identity() {
        for (kind, version, accel) in [
            (BackendKind::Qemu, (7, 2, 22), Accel::Tcg),
            (BackendKind::Firecracker, (1, 16, 1), Accel::Kvm),
        ] {
            let vmm = VmmBinary {
                kind,
                path: "/vmm".into(),
                version,
                accel,
            };
            assert_eq!(vmm_binary(&vmm.identity(), "/vmm".into()), Some(vmm));
        }
        assert_eq!(vmm_binary("xen 4 hvm", "/xen".into()), None);
    }

    #[test]
    fn a_process_s_words_and_variables() {
        assert_eq!(words(b"a\0\0b\0"), [&b"a"[..], b"", b"b"]);
        assert_eq!(
            pair(b"A=b=c".to_vec()),
            Some((OsString::from("A"), OsString::from("b=c")))
        );
        assert_eq!(pair(b"A".to_vec()), None);
    }

    #[test]
    fn the_root_is_found_among_qemu_s_arguments() {
        let arguments = [
            "-blockdev".to_owned(),
            r#"{"node-name":"scratch","file":{"filename":"/s"}}"#.to_owned(),
            r#"{"node-name":"root","file":{"filename":"/r"}}"#.to_owned(),
        ];
        assert_eq!(root_of(&arguments), Some("/r".into()));
    }
}
