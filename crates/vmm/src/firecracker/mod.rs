//! Firecracker: configured over its API socket, reached over its vsock.
//!
//! ```text
//! MachineConfig ─► firecracker (in the machine's directory) ── serial port (stdout) ─► Console
//!                      ▲   │  ├─ log.fifo ─► Console
//!                      │   │  ├─ metrics.fifo ─► Metrics
//!   api.sock ◄─ Client ┘   │  └─ virtio-blk: rootfs (read-only), scratch
//!                          └─ v.sock ◄─ handshake ─ Channel…
//!
//! Not started ─ version, logger, metrics, machine-config, boot-source, drives, vsock ─► InstanceStart ─► Running
//! Running ─ SendCtrlAltDel, or SIGKILL after a second ─► gone
//! ```
//!
//! All paths of the machine's own are given relative to its directory, which is Firecracker's working directory: what a
//! snapshot remembers of them is true in any other directory too.

mod api;
mod client;
mod fifo;
mod handshake;

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::timeout;

use self::api::actions::Action;
use self::api::boot_source::BootSource;
use self::api::drives::Drive;
use self::api::logger::{Level, Logger};
use self::api::vsock::Vsock;
use self::api::{Request, version};
use self::client::Client;
use self::fifo::Metrics;
use crate::channel::Channel;
use crate::console::Console;
use crate::error::VmmError;
use crate::machine::{Accel, BackendKind, BootTimings, MachineConfig, Shutdown, VmmBinary};
use crate::process::{VmmExit, VmmProcess};
use crate::state::VmDir;
use crate::{arch, disks};

/// Names in the machine's directory.
const API_SOCKET: &str = "api.sock";
const VSOCK_SOCKET: &str = "v.sock";
const LOG: &str = "log.fifo";
const METRICS: &str = "metrics.fifo";

/// How long Firecracker may take from its start to its API.
const START: Duration = Duration::from_secs(10);
/// How long the guest may take to end after Ctrl-Alt-Del.
const POLITE: Duration = Duration::from_secs(1);
/// How long a flush of the metrics may take to arrive.
const FLUSH: Duration = Duration::from_secs(1);
/// How long a VMM that broke a connection off may take to be seen dead.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Lines of Firecracker's log that an error shows.
const LOG_LINES: usize = 5;

/// A machine on Firecracker.
// The order is that of release: the process first, its directory last.
#[derive(Debug)]
pub struct Vm {
    process: VmmProcess,
    client: Client,
    log: Console,
    metrics: Metrics,
    timings: BootTimings,
    dir: VmDir,
}

impl Vm {
    pub(crate) async fn boot(vmm: &VmmBinary, mut config: MachineConfig) -> Result<Self, VmmError> {
        let scratch = disks::prepare(&config)?;
        let requests = machine(&config, scratch.as_deref())?;
        let log = fifo::create(&config.dir.path().join(LOG))?;
        let metrics = fifo::create(&config.dir.path().join(METRICS))?;
        let client = Client::new(config.dir.path().join(API_SOCKET));

        let began = Instant::now();
        let process = VmmProcess::spawn(
            command(vmm, &config.dir),
            Vec::new(),
            config.keep_console.as_deref(),
        )?;
        config.dir.record_process(process.pid())?;
        or_death(&process, client.listening(START))
            .await
            .map_err(VmmError::at_start)?;
        let listening = Instant::now();
        let configured = or_death(&process, configure(&client, vmm, requests)).await;
        configured.map_err(|error| with_kvm(error.at_start()))?;
        let timings = BootTimings {
            vmm_spawn: listening - began,
            configure: listening.elapsed(),
        };

        // Firecracker has both open since it was configured.
        let log =
            Console::capture(log, None).map_err(|error| VmmError::state("read", Path::new(LOG), error))?;
        Ok(Self {
            process,
            client,
            log,
            metrics: Metrics::read(metrics),
            timings,
            dir: config.dir,
        })
    }

    pub(crate) async fn connect(&self, port: u32, deadline: Instant) -> Result<Channel, VmmError> {
        let socket = self.dir.path().join(VSOCK_SOCKET);
        tokio::select! {
            stream = handshake::connect(&socket, port, deadline) => stream.map(Channel::from),
            error = self.failed() => Err(error),
        }
    }

    pub(crate) fn console(&self) -> Console {
        self.process.console()
    }

    pub(crate) fn boot_timings(&self) -> BootTimings {
        self.timings
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) async fn exited(&self) -> VmmExit {
        self.process.exited().await
    }

    pub(crate) async fn failed(&self) -> VmmError {
        let mut error = self.process.died().await;
        if let VmmError::Died { stderr, .. } = &mut error {
            stderr.extend(self.log.tail_lines(LOG_LINES));
        }
        error
    }

    /// Firecracker's last metrics, as it documents them; it writes them once a minute.
    #[must_use]
    pub fn metrics(&self) -> Option<Value> {
        self.metrics.last()
    }

    /// Has Firecracker write its metrics now.
    ///
    /// # Errors
    /// [`VmmError::Refused`] or [`VmmError::Unanswered`].
    pub async fn flush_metrics(&self) -> Result<Value, VmmError> {
        let next = self.metrics.next();
        let request = Action::FlushMetrics.request();
        let name = request.to_string();
        self.client.send(request).await?;
        let unanswered = || VmmError::Unanswered {
            request: name,
            reason: "no metrics came".to_owned(),
        };
        timeout(FLUSH, next).await.ok().flatten().ok_or_else(unanswered)
    }

    /// The end of Firecracker's own log: warnings and errors.
    #[must_use]
    pub fn log(&self) -> Console {
        self.log.clone()
    }

    pub(crate) async fn shutdown(self) -> Shutdown {
        let began = Instant::now();
        let polite = async {
            // A refusal means a guest that is ending or has no keyboard; the wait tells which.
            let _ = self
                .client
                .send_within(Action::SendCtrlAltDel.request(), POLITE)
                .await;
            self.process.exited().await
        };
        let (graceful, exit) = match timeout(POLITE, polite).await {
            Ok(exit) => (exit.code() == Some(0), exit),
            Err(_) => {
                self.process.kill();
                (false, self.process.exited().await)
            }
        };
        Shutdown {
            graceful,
            took: began.elapsed(),
            exit,
        }
    }
}

fn command(vmm: &VmmBinary, dir: &VmDir) -> Command {
    // A relative path is relative to our directory, not to the machine's.
    let program = std::path::absolute(&vmm.path).unwrap_or_else(|_| vmm.path.clone());
    let mut command = Command::new(program);
    command.current_dir(dir.path());
    command.args(["--id", dir.id().as_str(), "--api-sock", API_SOCKET]);
    // Until the log has its own place, its lines would be taken for the guest's.
    command.args(["--level", "Error"]);
    command
}

/// The requests that describe a machine, in the order in which they are sent.
fn machine(config: &MachineConfig, scratch: Option<&Path>) -> Result<Vec<Request>, VmmError> {
    let kernel = shared(&config.kernel)?;
    let initramfs = config.initramfs.as_deref().map(shared).transpose()?;
    let boot_args = arch::kernel_command_line(BackendKind::Firecracker, Accel::Kvm, None, config);
    let mut requests = vec![
        Logger {
            log_path: LOG,
            level: Level::Warning,
            show_level: true,
        }
        .request(),
        api::metrics::Metrics {
            metrics_path: METRICS,
        }
        .request(),
        api::machine_config::MachineConfig {
            vcpu_count: config.vcpus,
            mem_size_mib: config.memory_mib,
            smt: false,
        }
        .request(),
        BootSource {
            kernel_image_path: &kernel,
            initrd_path: initramfs.as_deref(),
            boot_args: &boot_args,
        }
        .request(),
    ];
    if let Some(root) = &config.root {
        let path = shared(&root.path)?;
        let drive = Drive {
            drive_id: "rootfs",
            path_on_host: &path,
            is_root_device: true,
            is_read_only: true,
        };
        requests.push(drive.request());
    }
    if let Some(name) = scratch.and_then(Path::file_name) {
        let path = utf8(Path::new(name))?;
        let drive = Drive {
            drive_id: "scratch",
            path_on_host: path,
            is_root_device: false,
            is_read_only: false,
        };
        requests.push(drive.request());
    }
    requests.push(
        Vsock {
            guest_cid: config.cid,
            uds_path: VSOCK_SOCKET,
        }
        .request(),
    );
    requests.push(Action::InstanceStart.request());
    Ok(requests)
}

/// A file of the host's that several machines use: its path must not depend on a machine's directory.
fn shared(path: &Path) -> Result<String, VmmError> {
    let path = std::path::absolute(path).map_err(|error| VmmError::state("find", path, error))?;
    utf8(&path).map(str::to_owned)
}

fn utf8(path: &Path) -> Result<&str, VmmError> {
    path.to_str().ok_or_else(|| {
        VmmError::Config(format!(
            "the path {} is not UTF-8, as Firecracker needs it",
            path.display()
        ))
    })
}

/// Checks the version and sends the requests, in their order.
async fn configure(client: &Client, vmm: &VmmBinary, requests: Vec<Request>) -> Result<(), VmmError> {
    let answer = client.send(version::request()).await?;
    check_version(&vmm.path, &answer)?;
    for request in requests {
        client.send(request).await?;
    }
    Ok(())
}

fn check_version(path: &Path, answer: &[u8]) -> Result<(), VmmError> {
    let unsupported = |reason| VmmError::Unsupported {
        kind: BackendKind::Firecracker,
        path: path.to_owned(),
        reason,
    };
    let Some(version) = version::answer(answer) else {
        return Err(unsupported("GET /version gives no version".to_owned()));
    };
    let (major, minor, patch) = version;
    if version < version::OLDEST {
        return Err(unsupported(format!(
            "version {major}.{minor}.{patch} is older than 1.7.0"
        )));
    }
    if version >= version::UNTRIED {
        tracing::warn!("Firecracker {major}.{minor}.{patch} is newer than any that was tried (1.7 to 1.16)");
    }
    Ok(())
}

/// Does `work` with a process that may end meanwhile, which then is the error.
async fn or_death<T>(
    process: &VmmProcess,
    work: impl Future<Output = Result<T, VmmError>>,
) -> Result<T, VmmError> {
    let result = tokio::select! {
        result = work => result,
        error = process.died() => Err(error),
    };
    match result {
        // A connection that breaks off is the sign of a VMM that is about to say why.
        Err(error @ VmmError::Unanswered { .. }) => {
            Err(timeout(LAST_WORDS, process.died()).await.unwrap_or(error))
        }
        result => result,
    }
}

/// Firecracker opens `/dev/kvm` when it starts the guest; that it could not is the host's matter, not the request's.
fn with_kvm(error: VmmError) -> VmmError {
    let VmmError::Refused { request, fault } = &error else {
        return error;
    };
    if *request != Action::InstanceStart.request().to_string() {
        return error;
    }
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => error,
        Err(reason) => VmmError::Kvm(format!("/dev/kvm: {reason} (Firecracker: {fault})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        let check = |version: &str| {
            let answer = format!("{{\"firecracker_version\":\"{version}\"}}");
            check_version(Path::new("/usr/bin/firecracker"), answer.as_bytes())
        };
        for good in ["1.7.0", "1.16.1", "1.17.0", "2.0.0"] {
            check(good).unwrap();
        }
        let error = check("1.6.9").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/usr/bin/firecracker is not a firecracker that can be used: version 1.6.9 is older than 1.7.0"
        );
        assert!(matches!(check("new"), Err(VmmError::Unsupported { .. })));
    }
}
