//! One test's own corner of the machine.

use std::env;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::env_vars;
use crate::leaks;
use crate::running::Run;
use crate::service::Service;

/// How many tests have machines at a time: emulation keeps a core busy for each.
const SLOTS: usize = 2;
/// How long a test may keep a service.
const SERVICE: Duration = Duration::from_secs(400);

/// What a state directory of a test's own has in it at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshots {
    /// The shared one's snapshots.
    Copied,
    /// None.
    Absent,
}

/// The host-agent's runtime and temporary directories of one test. Dropping it checks that nothing is left.
///
/// The state directory, with its kernels and images, is shared: it is the user's own, or the one that
/// `RUNNER_CODES_STATE_DIR` names.
#[derive(Debug)]
pub struct Host {
    root: tempfile::TempDir,
    /// Instead of the shared one.
    state: Option<PathBuf>,
    _slot: Slot,
}

impl Host {
    /// Waits until few enough other tests run, and makes sure that the images are there.
    ///
    /// # Panics
    /// The images cannot be made.
    pub fn new() -> Self {
        prepare();
        Self::bare()
    }

    /// Like [`Self::new`] for a test that starts no machine from the shared images.
    ///
    /// # Panics
    /// The directories cannot be made.
    pub fn bare() -> Self {
        let slot = Slot::take();
        // Short, because paths of Unix sockets are.
        let root = tempfile::Builder::new()
            .prefix("rc-")
            .tempdir_in("/tmp")
            .expect("a temporary directory");
        let host = Self {
            root,
            state: None,
            _slot: slot,
        };
        fs::create_dir(host.temporary()).expect("a directory for temporary files");
        fs::create_dir(host.runtime()).expect("a directory for machines");
        host.remember();
        host
    }

    /// Like [`Self::new`], with a state directory of the test's own: kernel, `base` and signing key are copies of the shared
    /// ones, and so are the newest snapshots with `Snapshots::Copied`.
    ///
    /// # Panics
    /// Something cannot be copied.
    pub fn with_own_state(snapshots: Snapshots) -> Self {
        let mut host = Self::new();
        let own = host.path("state");
        let private = fs::DirBuilder::new().mode(0o700).create(&own);
        private.expect("the test's own directory can be written");
        fs::create_dir(own.join("templates")).expect("a directory for templates");
        for part in ["kernels", "initramfs", "scratch.ext4", "keys", "templates/base"] {
            copy(&state().join(part), &own.join(part));
        }
        if snapshots == Snapshots::Copied {
            let directory = own.join("snapshots");
            let private = fs::DirBuilder::new().mode(0o700).create(&directory);
            private.expect("a directory for snapshots");
            for template in ["base", "rust"] {
                let snapshot = host.snapshot(template);
                // Named by its machine and its number.
                let machine = snapshot
                    .parent()
                    .and_then(Path::file_name)
                    .expect("the store's layout");
                copy(&state().join("snapshots").join(machine), &directory.join(machine));
            }
        }
        host.state = Some(own);
        host
    }

    /// Like [`Self::bare`], with an empty state directory of the test's own.
    ///
    /// # Panics
    /// The directories cannot be made.
    pub fn without_images() -> Self {
        let mut host = Self::bare();
        let own = host.path("state");
        let private = fs::DirBuilder::new().mode(0o700).create(&own);
        private.expect("the test's own directory can be written");
        host.state = Some(own);
        host
    }

    /// Where it keeps kernels, images and snapshots.
    pub fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(state)
    }

    /// The newest snapshot of that template.
    ///
    /// # Panics
    /// There is none.
    pub fn snapshot(&self, template: &str) -> PathBuf {
        let inspected = self.verb("template").args(["inspect", template, "--json"]);
        let inspected = inspected.finish().succeeded();
        let description: Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
        description["path"].as_str().expect("a path").into()
    }

    /// `host-agent run --lang LANGUAGE --code CODE`, with `--cold` if the environment says so.
    pub fn run(&self, language: &str, code: &str) -> Run {
        let run = self.verb("run").args(["--lang", language, "--code", code]);
        if cold() { run.cold() } else { run }
    }

    /// `host-agent serve`, which listens.
    pub fn serve(&self, arguments: &[&str]) -> Service {
        let running = self.verb("serve").args(arguments).within(SERVICE).start();
        Service::of(running, self.runtime().join("agent.sock"))
    }

    /// `host-agent VERB`.
    pub fn verb(&self, verb: &str) -> Run {
        let run = Run::new(host_agent())
            .arg(verb)
            .env("RUNNER_CODES_RUNTIME_DIR", self.runtime())
            .env("RUNNER_CODES_CGROUP", self.cgroup())
            .env("TMPDIR", self.temporary());
        match &self.state {
            Some(state) => run.env("RUNNER_CODES_STATE_DIR", state),
            None => run,
        }
    }

    /// The initramfs that machines boot with here, as `doctor` says.
    ///
    /// # Panics
    /// There is none.
    pub fn initramfs(&self) -> PathBuf {
        let report = self.verb("doctor").arg("--json").finish().succeeded();
        let report: Value = serde_json::from_slice(&report.stdout).expect("doctor prints JSON");
        let checks = report["checks"].as_array().expect("doctor lists checks");
        let initramfs = checks.iter().find(|check| check["name"] == "initramfs");
        let path = initramfs.and_then(|check| check["detail"].as_str());
        path.expect("set-up has made one").into()
    }

    /// A path in this test's own directory, for what the test makes itself.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file into this test's own directory.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the test's own directory can be written");
        path
    }

    /// What host-agent found out about this machine need not be found out in every test: looking whether KVM works takes
    /// seconds where it does not.
    fn remember(&self) {
        for file in fs::read_dir(memory()).into_iter().flatten().flatten() {
            if file.path().is_file() {
                fs::copy(file.path(), self.runtime().join(file.file_name()))
                    .expect("a small file can be copied");
            }
        }
    }

    /// Where host-agent keeps what exists only while a machine does.
    pub fn runtime(&self) -> PathBuf {
        self.path("run")
    }

    /// The cgroup that this test's machines have theirs in, where they have any.
    pub fn cgroup(&self) -> &str {
        let name = self.root.path().file_name().and_then(std::ffi::OsStr::to_str);
        name.expect("a temporary directory's path is text")
    }

    fn temporary(&self) -> PathBuf {
        self.path("tmp")
    }

    /// What is left of the runs so far, one line each.
    pub fn left_behind(&self) -> Vec<String> {
        leaks::left_behind(
            self.root.path(),
            &self.runtime(),
            &self.temporary(),
            self.cgroup(),
        )
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A test that has failed already has killed its processes in mid-run.
        if !std::thread::panicking() {
            let left = self.left_behind();
            assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        }
        leaks::remove_cgroups(self.cgroup());
    }
}

/// The binary under test.
///
/// # Panics
/// There is none, and cargo cannot build it.
pub fn host_agent() -> PathBuf {
    if let Some(path) = env::var_os(env_vars::HOST_AGENT) {
        return path.into();
    }
    static BUILD: Once = Once::new();
    BUILD.call_once(|| {
        let cargo = env::var_os("CARGO").expect("RUNNER_CODES_HOST_AGENT or cargo");
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", "host-agent"])
            .status();
        assert!(
            built.expect("cargo starts").success(),
            "host-agent does not build"
        );
    });
    build_directory().join("host-agent")
}

/// Whether `run` is to boot each time.
fn cold() -> bool {
    env::var_os(env_vars::COLD).is_some()
}

/// Copies a file or directory with its modes, and its holes as holes.
///
/// # Panics
/// It cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args(["--archive", "--sparse=always", "--no-target-directory"])
        .args([from, to])
        .status();
    assert!(
        copied.expect("cp starts").success(),
        "cannot copy {}",
        from.display()
    );
}

/// Whether all runs use this backend because the environment says so.
pub fn backend_is(name: &str) -> bool {
    env::var_os(env_vars::BACKEND).is_some_and(|backend| backend == name)
}

/// The directory that keeps what is slow to make. It need not exist.
///
/// # Panics
/// The test does not know where it is.
pub fn cache() -> PathBuf {
    env::var_os(env_vars::CACHE)
        .map_or_else(|| build_directory().with_file_name("system-tests"), PathBuf::from)
}

/// Where host-agent keeps kernels and images.
pub fn state() -> PathBuf {
    env::var_os("RUNNER_CODES_STATE_DIR").map_or_else(image::Store::default_path, PathBuf::from)
}

/// The runtime directory of the first run.
fn memory() -> PathBuf {
    cache().join("run")
}

/// Where cargo put host-agent: this is `target/debug/deps/functional-0123456789abcdef`.
pub(crate) fn build_directory() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let directory = test.parent().and_then(Path::parent);
    directory.expect("cargo's layout").to_owned()
}

/// Makes images and snapshots where they are not there yet (a moment where they are), and runs a first job.
fn prepare() {
    static PREPARE: Once = Once::new();
    PREPARE.call_once(|| {
        for template in ["base", "rust"] {
            let made = Command::new(host_agent())
                .args(["setup", "--template", template])
                .output()
                .expect("host-agent starts");
            let stderr = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "setup of {template} failed: {stderr}");
            if cold() {
                continue;
            }
            let built = Command::new(host_agent())
                .args(["template", "build", template, "--runtime-dir"])
                .arg(memory())
                .output()
                .expect("host-agent starts");
            let stderr = String::from_utf8_lossy(&built.stderr);
            assert!(built.status.success(), "no snapshot of {template}: {stderr}");
        }
        let told = Command::new(host_agent())
            .args(["run", "--lang", "bash", "--code", "true", "--runtime-dir"])
            .arg(memory())
            .output()
            .expect("host-agent starts");
        let stderr = String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "no job runs: {stderr}");
    });
}

/// One of the places for tests that have machines.
#[derive(Debug)]
struct Slot;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Slot {
    fn take() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = FREED.wait_while(taken, |taken| *taken >= SLOTS);
        *wait.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}
