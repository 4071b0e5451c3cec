//! A Firecracker that runs no guest: a process that only waits, and a server at the path of its API socket that takes what
//! the published description allows, keeps the rules about the machine's state, and writes down every request.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;
use vmm::{Accel, BackendKind, VmmBinary};

use crate::spec::Spec;

/// What waits in Firecracker's place, until it is told how to end.
const PROCESS: &str = "#!/bin/sh
echo \"$@\" >../../arguments
while [ ! -e ctrl-alt-del ]; do sleep 0.01; done
";

/// What differs from a Firecracker that does all it is asked.
#[derive(Default)]
pub(crate) struct Faults {
    /// The fault that a request such as `PUT /drives/rootfs` is answered with.
    pub(crate) refuse: Option<(&'static str, &'static str)>,
    /// The guest does not react to Ctrl-Alt-Del.
    pub(crate) deaf: bool,
    /// The request that is never answered.
    pub(crate) silent: Option<&'static str>,
    /// There is no API socket.
    pub(crate) no_api: bool,
    /// The process, in place of the one that waits.
    pub(crate) process: Option<&'static str>,
}

/// The server; gone when dropped.
pub(crate) struct Fake {
    shared: Arc<Shared>,
    server: AbortHandle,
    program: PathBuf,
}

struct Shared {
    /// The machine's directory.
    dir: PathBuf,
    version: &'static str,
    spec: Option<Spec>,
    faults: Faults,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<(String, Value)>,
    /// What a snapshot remembers; empty until something is configured.
    machine: BTreeMap<String, Value>,
    started: bool,
    paused: bool,
    metrics: Option<File>,
    vsock: Option<AbortHandle>,
}

impl Fake {
    /// Serves the API of a machine whose directory is `dir`, two below `top`.
    pub(crate) fn serve(version: &'static str, faults: Faults, dir: &Path, top: &Path) -> Self {
        let program = top.join("firecracker");
        fs::write(&program, faults.process.unwrap_or(PROCESS)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let name = if faults.no_api { "nothing.sock" } else { "api.sock" };
        let listener = UnixListener::bind(dir.join(name)).unwrap();
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            version,
            spec: Spec::published(version),
            faults,
            seen: Mutex::default(),
        });
        let server = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self {
            shared,
            server,
            program,
        }
    }

    pub(crate) fn binary(&self) -> VmmBinary {
        let kind = BackendKind::Firecracker;
        VmmBinary {
            kind,
            path: self.program.clone(),
            version: (0, 0, 0),
            accel: Accel::Kvm,
        }
    }

    /// All requests up to now, by name and body.
    pub(crate) fn requests(&self) -> Vec<(String, Value)> {
        self.shared.seen().requests.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
        if let Some(vsock) = self.shared.seen().vsock.take() {
            vsock.abort();
        }
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if shared.faults.silent == Some(&format!("{} {}", head.method, head.uri.path())) {
        std::future::pending::<()>().await;
    }
    let (status, body) = match shared.take(head.method.as_str(), head.uri.path(), &body) {
        Ok(None) => (204, String::new()),
        Ok(Some(answer)) => (200, answer.to_string()),
        Err(fault) => (400, json!({ "fault_message": fault }).to_string()),
    };
    let response = Response::builder().status(status).body(Full::from(body));
    Ok(response.expect("a status and a body make a response"))
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn take(&self, method: &str, path: &str, body: &[u8]) -> Result<Option<Value>, String> {
        let name = format!("{method} {path}");
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut seen = self.seen();
        seen.requests.push((name.clone(), value.clone()));
        if let Some(spec) = &self.spec {
            spec.check(method, path, body)?;
        }
        if let Some((_, fault)) = self.faults.refuse.filter(|(refused, _)| *refused == name) {
            return Err(fault.to_owned());
        }
        match (path, &value["action_type"]) {
            ("/version", _) => return Ok(Some(json!({ "firecracker_version": self.version }))),
            ("/actions", Value::String(action)) => self.act(&mut seen, action)?,
            ("/vm", _) if seen.started => seen.paused = value["state"] == "Paused",
            ("/snapshot/create", _) if seen.paused => self.save(&seen, &value)?,
            _ if seen.started => {
                return Err(
                    "The requested operation is not supported after starting the microVM.".to_owned(),
                );
            }
            ("/logger", _) => self.log(&value),
            ("/metrics", _) => seen.metrics = Some(self.fifo(&value["metrics_path"])),
            ("/snapshot/load", _) => self.load(&mut seen, &value)?,
            ("/vsock", _) => seen.vsock = Some(self.listen(&value["uds_path"])),
            ("/drives/rootfs" | "/drives/scratch", _) => drop(self.open(&value["path_on_host"])?),
            ("/boot-source", _) => drop(self.open(&value["kernel_image_path"])?),
            ("/machine-config", _) => {}
            _ => return Err("The requested operation is not supported in this state.".to_owned()),
        }
        if !["/logger", "/metrics"].contains(&path) {
            seen.machine.insert(path.to_owned(), value);
        }
        Ok(None)
    }

    /// Writes memory, all of it, although only the last MiB is not zero, and the machine as its version has it.
    fn save(&self, seen: &Seen, value: &Value) -> Result<(), String> {
        let create = |field: &str| {
            let path = self.dir.join(value[field].as_str().unwrap());
            File::create(path).map_err(|error| format!("Cannot write {field}: {error}"))
        };
        let mib = seen.machine["/machine-config"]["mem_size_mib"].as_u64().unwrap();
        let mut memory = create("mem_file_path")?;
        for last in (1..=mib).map(|nth| nth == mib) {
            memory.write_all(&vec![u8::from(last); 1 << 20]).unwrap();
        }
        let state = json!({ "version": self.version, "machine": seen.machine });
        serde_json::to_writer(create("snapshot_path")?, &state).map_err(|error| error.to_string())
    }

    /// Makes the machine that a snapshot is of, in this machine's directory.
    fn load(&self, seen: &mut Seen, value: &Value) -> Result<(), String> {
        if !seen.machine.is_empty() {
            return Err(
                "Loading a microVM snapshot not allowed after configuring boot-specific resources."
                    .to_owned(),
            );
        }
        self.open(&value["mem_backend"]["backend_path"])?;
        let state: Value = serde_json::from_reader(self.open(&value["snapshot_path"])?)
            .map_err(|error| format!("Cannot deserialize the microVM state: {error}"))?;
        if state["version"] != self.version {
            return Err(format!("Invalid snapshot version: {}", state["version"]));
        }
        for drive in ["/drives/rootfs", "/drives/scratch"] {
            self.open(&state["machine"][drive]["path_on_host"])?;
        }
        let socket = match &value["vsock_override"]["uds_path"] {
            Value::Null => &state["machine"]["/vsock"]["uds_path"],
            overridden => overridden,
        };
        seen.vsock = Some(self.listen(socket));
        seen.started = value["resume_vm"] == true;
        Ok(())
    }

    fn act(&self, seen: &mut Seen, action: &str) -> Result<(), String> {
        match action {
            "InstanceStart" => seen.started = true,
            "FlushMetrics" => {
                let metrics = seen.metrics.as_mut().ok_or("Metrics are not configured.")?;
                metrics.write_all(b"{\"vmm\":{\"panic_count\":0}}\n").unwrap();
            }
            "SendCtrlAltDel" if seen.started && !self.faults.deaf => {
                fs::write(self.dir.join("ctrl-alt-del"), "").unwrap();
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens a file as Firecracker would, from its working directory and with its descriptors.
    fn open(&self, path: &Value) -> Result<File, String> {
        let path = path.as_str().unwrap();
        let path = match path.strip_prefix("/proc/self/") {
            Some(rest) => Path::new("/proc").join(self.process().to_string()).join(rest),
            None => self.dir.join(path),
        };
        File::open(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The process that waits in Firecracker's place, as the machine's journal has it.
    fn process(&self) -> u64 {
        let journal = fs::read(self.dir.join("journal")).unwrap();
        let journal: Value = serde_json::from_slice(&journal).unwrap();
        journal["processes"][0]["pid"].as_u64().unwrap()
    }

    /// v1.7.0 opens a log without making it.
    fn fifo(&self, path: &Value) -> File {
        const O_NONBLOCK: i32 = 0o4000;
        let path = self.dir.join(path.as_str().unwrap());
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(path)
            .unwrap()
    }

    fn log(&self, value: &Value) {
        let mut log = self.fifo(&value["log_path"]);
        log.write_all(b"[WARN] no guest runs here\n").unwrap();
    }

    /// A guest that returns what it is sent.
    fn listen(&self, path: &Value) -> AbortHandle {
        let listener = UnixListener::bind(self.dir.join(path.as_str().unwrap())).unwrap();
        let accepting = async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        };
        tokio::spawn(accepting).abort_handle()
    }
}

async fn echo(mut stream: UnixStream) -> std::io::Result<()> {
    while stream.read_u8().await? != b'\n' {}
    stream.write_all(b"OK 1073741824\n").await?;
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.map(drop)
}
