//! What is sent to Firecracker, against what Firecracker publishes that it takes.

mod fake;
mod snapshot;
mod spec;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::{ErrorCode, HostError};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vmm::{Filesystem, Init, Isolation, Machine, MachineConfig, RootDrive, RuntimeDir, VmId, VmmError};

use self::fake::{Fake, Faults};

/// A fake Firecracker and a machine for it.
struct Host {
    fake: Fake,
    config: Option<MachineConfig>,
    /// The machine's directory.
    dir: PathBuf,
    _top: TempDir,
}

impl Host {
    fn new(version: &'static str, faults: Faults) -> Self {
        let top = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::open(top.path())
            .unwrap()
            .isolation(Isolation::least());
        let vm = runtime.create(VmId::random().unwrap()).unwrap();
        let dir = vm.path().to_owned();
        let file = |name: &str, bytes: &[u8]| {
            let path = top.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let config = MachineConfig {
            dir: vm,
            kernel: file("vmlinux", &kernel()),
            initramfs: Some(file("initramfs", b"")),
            root: Some(RootDrive {
                path: file("rootfs", &squashfs()),
                filesystem: Filesystem::Squashfs,
                init: Init::Runner,
            }),
            scratch: Some(file("scratch", &ext4())),
            vcpus: 2,
            memory_mib: 512,
            cid: 3,
            extra_kernel_args: vec!["extra".to_owned()],
            keep_console: None,
            snapshot_dir: None,
        };
        Self {
            fake: Fake::serve(version, faults, &dir, top.path()),
            config: Some(config),
            dir,
            _top: top,
        }
    }

    async fn boot(&mut self) -> Result<Machine, VmmError> {
        Machine::boot(
            &self.fake.binary(),
            self.config.take().expect("a host boots once"),
        )
        .await
    }

    async fn boot_error(&mut self) -> HostError {
        let error = self.boot().await.unwrap_err();
        assert!(
            !self.dir.exists(),
            "something is left of a machine that did not start"
        );
        error.into()
    }

    fn path(&self, name: &str) -> String {
        self._top.path().join(name).to_str().unwrap().to_owned()
    }
}

/// The least that is taken for an uncompressed kernel: an ELF header and one empty segment.
fn kernel() -> Vec<u8> {
    const EXECUTABLE: [u8; 2] = 2_u16.to_le_bytes();
    const X86_64: [u8; 2] = 62_u16.to_le_bytes();
    let mut bytes = vec![0; 64 + 56];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16..18].copy_from_slice(&EXECUTABLE);
    bytes[18..20].copy_from_slice(&X86_64);
    bytes[20] = 1;
    bytes[32] = 64;
    bytes[52] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64] = 1;
    bytes
}

fn squashfs() -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    bytes[..4].copy_from_slice(b"hsqs");
    bytes[28] = 4;
    bytes[40..48].copy_from_slice(&2048_u64.to_le_bytes());
    bytes
}

fn ext4() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[1024 + 4] = 4;
    bytes[1024 + 0x38..1024 + 0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
    bytes
}

fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

async fn a_whole_life(version: &'static str) {
    let mut host = Host::new(version, Faults::default());
    let machine = host.boot().await.unwrap();
    let Machine::Firecracker(vm) = &machine else {
        panic!()
    };
    assert_eq!(
        vm.flush_metrics().await.unwrap(),
        json!({"vmm": {"panic_count": 0}})
    );
    assert_eq!(vm.metrics(), Some(json!({"vmm": {"panic_count": 0}})));
    vm.log().shows("no guest runs here").await;

    let mut channel = machine
        .connect(5000, Instant::now() + Duration::from_secs(10))
        .await
        .unwrap();
    channel.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    channel.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"ping");

    let pid = machine.pid();
    let end = machine.shutdown().await;
    assert!(end.graceful, "{end:?}");
    assert!(!is_running(pid));
    assert!(!host.dir.exists());

    let requests = host.fake.requests();
    let names: Vec<&str> = requests.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "GET /version",
        "PUT /logger",
        "PUT /metrics",
        "PUT /machine-config",
        "PUT /boot-source",
        "PUT /drives/rootfs",
        "PUT /drives/scratch",
        "PUT /vsock",
        "PUT /actions",
        "PUT /actions",
        "PUT /actions",
    ];
    assert_eq!(names, expected);
    let bodies: Vec<&Value> = requests.iter().map(|(_, body)| body).collect();
    assert_eq!(
        bodies[3],
        &json!({"vcpu_count": 2, "mem_size_mib": 512, "smt": false})
    );
    assert_eq!(bodies[4]["kernel_image_path"], host.path("vmlinux"));
    assert_eq!(bodies[4]["initrd_path"], host.path("initramfs"));
    let boot_args: Vec<&str> = bodies[4]["boot_args"].as_str().unwrap().split(' ').collect();
    for arg in [
        "reboot=k",
        "panic=-1",
        "quiet",
        "i8042.noaux",
        "runner.transport=vsock",
        "extra",
    ] {
        assert!(boot_args.contains(&arg), "{arg} is not among {boot_args:?}");
    }
    assert!(
        !boot_args.contains(&"i8042.nokbd"),
        "the guest would not see Ctrl-Alt-Del"
    );
    assert_eq!(bodies[5]["path_on_host"], "rootfs.img", "a link, gone by now");
    assert_eq!(
        (&bodies[5]["is_root_device"], &bodies[5]["is_read_only"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(bodies[6]["path_on_host"], "scratch.ext4");
    assert_eq!(
        (&bodies[6]["is_root_device"], &bodies[6]["is_read_only"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(bodies[7], &json!({"guest_cid": 3, "uds_path": "v.sock"}));
    let actions: Vec<&Value> = bodies[8..].iter().map(|body| &body["action_type"]).collect();
    assert_eq!(actions, ["InstanceStart", "FlushMetrics", "SendCtrlAltDel"]);
    let arguments = fs::read_to_string(host.path("arguments")).unwrap();
    let id = host.dir.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        arguments.trim(),
        format!("--id {id} --api-sock api.sock --level Error")
    );
}

#[tokio::test]
async fn v1_7_0_takes_all_that_is_sent() {
    a_whole_life("1.7.0").await;
}

#[tokio::test]
async fn v1_16_1_takes_all_that_is_sent() {
    a_whole_life("1.16.1").await;
}

#[tokio::test]
async fn a_fault_reaches_the_user_with_its_request() {
    let fault = "Unable to create the block device: BackingFile(Os { code: 13 })";
    for version in spec::VERSIONS {
        let faults = Faults {
            refuse: Some(("PUT /drives/rootfs", fault)),
            ..Faults::default()
        };
        let mut host = Host::new(version, faults);
        let error = host.boot_error().await;
        assert_eq!(error.code, ErrorCode::VmmFailed);
        assert_eq!(
            error.cause,
            format!("The VMM refused PUT /drives/rootfs: {fault}")
        );
        let (last, _) = host.fake.requests().pop().unwrap();
        assert_eq!(last, "PUT /drives/rootfs", "nothing is sent after a refusal");
    }
}

#[tokio::test]
async fn a_disk_too_full_for_a_machine_is_named() {
    let fault = "Cannot create backend for vsock device: UnixBind(Os { code: 28, kind: StorageFull, message: \"No space left on device\" })";
    let faults = Faults {
        refuse: Some(("PUT /vsock", fault)),
        ..Faults::default()
    };
    let mut host = Host::new("1.16.1", faults);
    let error = host.boot_error().await;
    assert_eq!(error.code, ErrorCode::DiskFull);
    let dir = host.dir.display().to_string();
    assert!(error.cause.contains(&dir), "{error}");
}

#[tokio::test]
async fn an_old_version_is_refused_before_anything_is_configured() {
    let mut host = Host::new("1.6.0", Faults::default());
    let error = host.boot_error().await;
    assert_eq!(error.code, ErrorCode::VmmUnsupported);
    assert!(
        error.cause.ends_with("version 1.6.0 is older than 1.7.0"),
        "{error}"
    );
    assert_eq!(host.fake.requests().len(), 1);
}

#[tokio::test]
async fn a_guest_deaf_to_ctrl_alt_del_is_killed_after_a_second() {
    let mut host = Host::new(
        "1.16.1",
        Faults {
            deaf: true,
            ..Faults::default()
        },
    );
    let machine = host.boot().await.unwrap();
    let pid = machine.pid();
    let end = machine.shutdown().await;
    assert!(!end.graceful);
    assert_eq!(end.exit.signal(), Some(9));
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(5)).contains(&end.took),
        "{end:?}"
    );
    assert!(!is_running(pid) && !host.dir.exists());
}

#[tokio::test]
async fn a_firecracker_that_dies_at_once_says_why() {
    let process = "#!/bin/sh\necho 'Error: ArgumentParsing' >&2\nexit 153\n";
    let mut host = Host::new(
        "1.16.1",
        Faults {
            no_api: true,
            process: Some(process),
            ..Faults::default()
        },
    );
    let error = host.boot_error().await;
    assert_eq!(error.code, ErrorCode::VmmFailed);
    assert!(
        error.cause.contains("153") && error.cause.contains("Error: ArgumentParsing"),
        "{error}"
    );
}

#[tokio::test]
async fn a_firecracker_that_dies_later_ends_a_connect_with_its_log() {
    let process = "#!/bin/sh\nwhile [ ! -e ctrl-alt-del ]; do sleep 0.01; done\nexit 148\n";
    let mut host = Host::new(
        "1.16.1",
        Faults {
            process: Some(process),
            ..Faults::default()
        },
    );
    let machine = host.boot().await.unwrap();
    let Machine::Firecracker(vm) = &machine else {
        panic!()
    };
    vm.log().shows("no guest runs here").await;
    fs::remove_file(host.dir.join("v.sock")).unwrap();
    fs::write(host.dir.join("ctrl-alt-del"), "").unwrap();
    let error = machine
        .connect(5000, Instant::now() + Duration::from_secs(30))
        .await
        .unwrap_err();
    let VmmError::Died { exit, stderr, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (exit.code(), stderr),
        (Some(148), vec!["[WARN] no guest runs here".to_owned()])
    );
}
