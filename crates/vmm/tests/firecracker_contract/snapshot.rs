//! Snapshots: what is sent to make one and to restore it, and what comes of a Firecracker that does not take it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::{ErrorCode, HostError};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vmm::{
    Filesystem, Init, Isolation, Machine, Prespawned, RestoreConfig, RootDrive, RuntimeDir, SnapshotFile,
    SnapshotFiles, VmId, VmmError,
};

use crate::fake::{Fake, Faults};
use crate::{Host, ext4, is_running, spec, squashfs};

const MIB: u32 = 128;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Boots a machine that can be snapshotted; gives the directory too.
async fn source(version: &'static str, faults: Faults) -> (Host, Machine, PathBuf) {
    let mut host = Host::new(version, faults);
    let dir = PathBuf::from(host.path("snapshot"));
    fs::create_dir(&dir).unwrap();
    let config = host.config.as_mut().unwrap();
    config.snapshot_dir = Some(dir.clone());
    config.memory_mib = MIB;
    let machine = host.boot().await.unwrap();
    (host, machine, dir)
}

async fn snapshot(version: &'static str) -> (Host, SnapshotFiles) {
    let (host, machine, _) = source(version, Faults::default()).await;
    let files = machine.snapshot(soon()).await.unwrap();
    (host, files)
}

/// A fake Firecracker and a clone for it, whose root filesystem is elsewhere than it was when the snapshot was taken.
struct Clone {
    fake: Fake,
    config: Option<RestoreConfig>,
    /// The machine's directory.
    dir: PathBuf,
    _top: TempDir,
}

impl Clone {
    fn new(version: &'static str, faults: Faults, files: &SnapshotFiles) -> Self {
        let top = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::open(top.path())
            .unwrap()
            .isolation(Isolation::least());
        let vm = runtime.create(VmId::random().unwrap()).unwrap();
        let dir = vm.path().to_owned();
        let (root, scratch) = (top.path().join("elsewhere"), top.path().join("scratch"));
        fs::write(&root, squashfs()).unwrap();
        fs::write(&scratch, ext4()).unwrap();
        let config = RestoreConfig {
            dir: vm,
            memory: SnapshotFile::open(&files.memory).unwrap(),
            state: SnapshotFile::open(&files.state).unwrap(),
            root: Some(RootDrive {
                path: root,
                filesystem: Filesystem::Squashfs,
                init: Init::Runner,
            }),
            scratch: Some(SnapshotFile::open(scratch).unwrap()),
            vcpus: 2,
            memory_mib: MIB,
            keep_console: None,
        };
        Self {
            fake: Fake::serve(version, faults, &dir, top.path()),
            config: Some(config),
            dir,
            _top: top,
        }
    }

    async fn restore(&mut self, deadline: Instant) -> Result<Machine, VmmError> {
        let config = self.config.take().expect("a clone is restored once");
        Machine::restore(&self.fake.binary(), config, deadline).await
    }

    async fn restore_error(&mut self, deadline: Instant) -> VmmError {
        let error = self.restore(deadline).await.unwrap_err();
        assert!(
            !self.dir.exists(),
            "something is left of a clone that was not restored"
        );
        error
    }

    fn names(&self) -> Vec<String> {
        self.fake.requests().into_iter().map(|(name, _)| name).collect()
    }
}

/// The last request's body.
fn last(fake: &Fake) -> Value {
    fake.requests().pop().unwrap().1
}

async fn a_snapshot(version: &'static str) {
    let (host, machine, dir) = source(version, Faults::default()).await;
    let pid = machine.pid();
    let files = machine.snapshot(soon()).await.unwrap();
    assert!(!is_running(pid) && !host.dir.exists(), "the source is gone");
    assert_eq!(
        (&files.memory, &files.state),
        (&dir.join("memory"), &dir.join("state"))
    );
    let memory = fs::metadata(&files.memory).unwrap();
    assert_eq!(
        (memory.len(), memory.mode() & 0o777),
        (u64::from(MIB) << 20, 0o600)
    );
    assert!(memory.blocks() * 512 < memory.len(), "what is zero takes no room");

    let requests = host.fake.requests();
    let [.., (pause, paused), (create, _)] = requests.as_slice() else {
        panic!()
    };
    assert_eq!(
        (pause.as_str(), create.as_str()),
        ("PATCH /vm", "PUT /snapshot/create")
    );
    assert_eq!(paused, &json!({"state": "Paused"}));
    let expected = json!({
        "snapshot_type": "Full", "snapshot_path": files.state, "mem_file_path": files.memory,
    });
    assert_eq!(last(&host.fake), expected);
}

async fn a_clone(version: &'static str) {
    let (_host, files) = snapshot(version).await;
    let mut clone = Clone::new(version, Faults::default(), &files);
    let spawned = Prespawned::spawn(&clone.fake.binary(), clone.config.take().unwrap())
        .await
        .unwrap();
    assert_eq!(clone.names(), ["GET /version", "PUT /logger", "PUT /metrics"]);
    // What was opened counts, not what has its name by now.
    fs::remove_file(&files.memory).unwrap();
    fs::remove_file(&files.state).unwrap();
    let machine = spawned.restore(soon()).await.unwrap();
    assert!(machine.restore_timings().is_some());
    assert_eq!(clone.names().last().unwrap(), "PUT /snapshot/load");
    let mut load = last(&clone.fake);
    for pointer in ["/snapshot_path", "/mem_backend/backend_path"] {
        let path = load.pointer_mut(pointer).unwrap().take();
        assert!(path.as_str().unwrap().starts_with("/proc/self/fd/"), "{path}");
    }
    let mut expected = json!({
        "snapshot_path": null, "mem_backend": {"backend_type": "File", "backend_path": null}, "resume_vm": true,
    });
    if version == "1.16.1" {
        expected["vsock_override"] = json!({"uds_path": "v.sock"});
    }
    assert_eq!(load, expected);

    let mut channel = machine.connect(5000, soon()).await.unwrap();
    channel.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    channel.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"ping");
    let pid = machine.pid();
    assert!(machine.shutdown().await.graceful);
    assert!(!is_running(pid) && !clone.dir.exists());
}

#[tokio::test]
async fn v1_7_0_makes_snapshots_and_clones() {
    a_snapshot("1.7.0").await;
    a_clone("1.7.0").await;
}

#[tokio::test]
async fn v1_16_1_makes_snapshots_and_clones() {
    a_snapshot("1.16.1").await;
    a_clone("1.16.1").await;
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_leaves_nothing() {
    let fault = "Create snapshot error: Cannot write memory file: Permission denied (os error 13)";
    let faults = Faults {
        refuse: Some(("PUT /snapshot/create", fault)),
        ..Faults::default()
    };
    let (host, machine, dir) = source("1.16.1", faults).await;
    let pid = machine.pid();
    let error = machine.snapshot(soon()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("The VMM refused PUT /snapshot/create: {fault}")
    );
    assert!(!is_running(pid) && !host.dir.exists());
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

#[tokio::test]
async fn a_disk_too_full_for_a_snapshot_is_named() {
    for fault in [
        "Create snapshot error: Cannot write memory file: Cannot dump memory: Guest memory error: No space left on device (os error 28)",
        "Cannot write to the snapshot file: Io(Os { code: 122, kind: QuotaExceeded, message: \"Quota exceeded\" })",
    ] {
        let faults = Faults {
            refuse: Some(("PUT /snapshot/create", fault)),
            ..Faults::default()
        };
        let (host, machine, dir) = source("1.16.1", faults).await;
        let error = machine.snapshot(soon()).await.unwrap_err();
        assert!(
            matches!(&error, VmmError::DiskFull(path) if *path == dir.join("memory")),
            "{error}"
        );
        assert!(!host.dir.exists());
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_disk_too_full_for_a_clone_is_not_the_snapshot_s_fault() {
    let (_host, files) = snapshot("1.16.1").await;
    let faults = Faults {
        refuse: Some((
            "PUT /snapshot/load",
            "Load snapshot error: Error binding to the host-side Unix socket: No space left on device (os error 28)",
        )),
        ..Faults::default()
    };
    let mut clone = Clone::new("1.16.1", faults, &files);
    let error = clone.restore_error(soon()).await;
    assert!(
        matches!(&error, VmmError::DiskFull(path) if *path == clone.dir),
        "{error}"
    );
}

#[tokio::test]
async fn a_snapshot_that_is_not_done_by_its_deadline_is_given_up() {
    let faults = Faults {
        silent: Some("PUT /snapshot/create"),
        ..Faults::default()
    };
    let (host, machine, dir) = source("1.16.1", faults).await;
    let error = machine
        .snapshot(Instant::now() + Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(matches!(error, VmmError::Unanswered { .. }), "{error}");
    assert!(!host.dir.exists());
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

#[tokio::test]
async fn a_machine_not_made_for_it_is_not_snapshotted() {
    let mut host = Host::new("1.16.1", Faults::default());
    let machine = host.boot().await.unwrap();
    let error = machine.snapshot(soon()).await.unwrap_err();
    assert!(matches!(error, VmmError::Config(_)), "{error}");
    assert!(!host.dir.exists());
}

#[tokio::test]
async fn another_version_s_snapshot_is_refused_with_firecracker_s_words() {
    let (_host, files) = snapshot("1.7.0").await;
    let mut clone = Clone::new("1.16.1", Faults::default(), &files);
    let error: HostError = clone.restore_error(soon()).await.into();
    assert_eq!(error.code, ErrorCode::ImageInvalid);
    let state = files.state.display();
    assert_eq!(
        error.cause,
        format!(
            "The snapshot file {state} cannot be used: PUT /snapshot/load: Invalid snapshot version: \"1.7.0\""
        )
    );
}

#[tokio::test]
async fn a_truncated_state_is_refused() {
    let (_host, files) = snapshot("1.16.1").await;
    let state = OpenOptions::new().write(true).open(&files.state).unwrap();
    state.set_len(20).unwrap();
    let mut clone = Clone::new("1.16.1", Faults::default(), &files);
    let error = clone.restore_error(soon()).await;
    assert!(matches!(error, VmmError::Snapshot { .. }), "{error}");
    assert!(error.to_string().contains("Cannot deserialize"), "{error}");
}

#[tokio::test]
async fn files_that_cannot_be_right_start_nothing() {
    let (_host, files) = snapshot("1.16.1").await;
    let memory = OpenOptions::new().write(true).open(&files.memory).unwrap();
    memory.set_len((u64::from(MIB) << 20) - 4096).unwrap();
    let mut clone = Clone::new("1.16.1", Faults::default(), &files);
    let error = clone.restore_error(soon()).await;
    assert!(error.to_string().contains("it has 134213632 bytes"), "{error}");
    assert!(clone.names().is_empty());
    let missing = SnapshotFile::open(Path::new("/nonexistent/state")).unwrap_err();
    assert!(matches!(missing, VmmError::Snapshot { .. }), "{missing}");
}

#[tokio::test]
async fn a_load_that_is_not_done_by_its_deadline_is_given_up() {
    let (_host, files) = snapshot("1.16.1").await;
    let faults = Faults {
        silent: Some("PUT /snapshot/load"),
        ..Faults::default()
    };
    let mut clone = Clone::new("1.16.1", faults, &files);
    let began = Instant::now();
    let error = clone.restore_error(began + Duration::from_millis(500)).await;
    assert!(matches!(error, VmmError::Unanswered { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_firecracker_that_dies_of_a_snapshot_says_why() {
    let process =
        "#!/bin/sh\nwhile [ ! -e die ]; do sleep 0.01; done\necho 'Guest memory is broken' >&2\nexit 1\n";
    let (_host, files) = snapshot("1.16.1").await;
    let faults = Faults {
        silent: Some("PUT /snapshot/load"),
        process: Some(process),
        ..Faults::default()
    };
    let mut clone = Clone::new("1.16.1", faults, &files);
    let spawned = Prespawned::spawn(&clone.fake.binary(), clone.config.take().unwrap())
        .await
        .unwrap();
    fs::write(clone.dir.join("die"), "").unwrap();
    let error = spawned.restore(soon()).await.unwrap_err();
    assert!(matches!(error, VmmError::Snapshot { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("exit status: 1: Guest memory is broken"),
        "{error}"
    );
    assert!(!clone.dir.exists());
}

#[test]
fn both_descriptions_know_what_is_sent() {
    // Where the descriptions are on this machine; the fake checks every request against them.
    for version in spec::VERSIONS {
        let Some(spec) = spec::Spec::published(version) else {
            continue;
        };
        let over = br#"{"snapshot_path":"s","vsock_override":{"uds_path":"v.sock"}}"#;
        let known = spec.check("PUT", "/snapshot/load", over);
        assert_eq!(known.is_ok(), version == "1.16.1", "{version}: {known:?}");
    }
}
