//! Firecracker by hand: started as a clone's is, told over its API socket, reached through its vsock's socket.
//!
//! ```text
//! firecracker ── api.sock ◄─ PUT /snapshot/load
//!             └─ v.sock ◄─ CONNECT port ─► OK ─ frames ◄─► guest-runner
//! ```

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use protocol::frame::read_frame;
use serde_json::json;

use super::super::installed::Frozen;
use super::super::interrupt;
use super::{Guest, Killed, Loaded, PATIENCE, Place};

/// Names in the machine's directory; the second is in the snapshot.
const API: &str = "api.sock";
const VSOCK: &str = "v.sock";
const ROOT: &str = "rootfs.img";
/// Between two attempts to reach a socket, which Firecracker makes in some milliseconds.
const RETRY: Duration = Duration::from_micros(200);
/// How long a connection may be silent before another attempt, as vmm does.
const SILENT: Duration = Duration::from_millis(100);
/// The first version that takes a socket's path.
const HAS_VSOCK_OVERRIDE: (u32, u32, u32) = (1, 16, 0);

/// Gives the root filesystem the name that the snapshot remembers. Not measured.
pub(super) fn link_root(frozen: &Frozen, place: &Place) -> anyhow::Result<()> {
    std::os::unix::fs::symlink(&frozen.specimen.root, place.dir.join(ROOT)).context("cannot make a link")
}

/// A Firecracker that waits for a snapshot.
pub(super) struct Spawned {
    process: Killed,
    api: UnixStream,
    vsock: PathBuf,
    load: String,
}

impl Spawned {
    pub(super) fn start(frozen: &Frozen, place: &Place) -> anyhow::Result<Self> {
        let specimen = &frozen.specimen;
        let child = Command::new(&specimen.program)
            .args(&specimen.arguments)
            .current_dir(&place.dir)
            .env_clear()
            .envs(specimen.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start Firecracker")?;
        let process = Killed(child);
        let api = place.dir.join(API);
        let api = attempt(|| UnixStream::connect(&api).ok()).context("Firecracker's API does not come up")?;
        let template = &frozen.template;
        let mut load = json!({
            "snapshot_path": template.state.path(),
            "mem_backend": { "backend_type": "File", "backend_path": template.memory.path() },
            "resume_vm": true,
        });
        if template.vmm.version >= HAS_VSOCK_OVERRIDE {
            load["vsock_override"] = json!({ "uds_path": VSOCK });
        }
        Ok(Self {
            process,
            api,
            vsock: place.dir.join(VSOCK),
            load: load.to_string(),
        })
    }

    pub(super) fn restore(mut self) -> anyhow::Result<Loaded<Restored>> {
        write!(
            self.api,
            "PUT /snapshot/load HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: \
             {}\r\n\r\n{}",
            self.load.len(),
            self.load
        )?;
        self.api.set_read_timeout(Some(PATIENCE))?;
        let mut answer = [0; 4096];
        let read = self.api.read(&mut answer).context("no answer from Firecracker")?;
        let answer = String::from_utf8_lossy(&answer[..read]);
        ensure!(
            answer.starts_with("HTTP/1.1 204"),
            "Firecracker refused: {answer}"
        );
        let guest = Restored {
            _firecracker: self.process,
            vsock: self.vsock,
        };
        Ok(Loaded { guest, up: None })
    }
}

/// Tries until there is something, or patience ends.
fn attempt<T>(mut what: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what() {
            return Ok(found);
        }
        interrupt::check()?;
        ensure!(Instant::now() < end, "out of patience");
        thread::sleep(RETRY);
    }
}

/// A Firecracker whose guest runs.
pub(super) struct Restored {
    _firecracker: Killed,
    vsock: PathBuf,
}

impl Restored {
    /// `None` where it has to be tried again: the first connection after a restore may be dropped, or lost.
    fn try_connect(&self, port: u32) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(&self.vsock).ok()?;
        stream.set_read_timeout(Some(SILENT)).ok()?;
        writeln!(stream, "CONNECT {port}").ok()?;
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            if stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            line.push(byte[0]);
        }
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        line.starts_with(b"OK ").then_some(stream)
    }
}

impl Guest for Restored {
    type Conversation = UnixStream;

    fn connect(&mut self, port: u32) -> anyhow::Result<UnixStream> {
        attempt(|| self.try_connect(port)).with_context(|| format!("port {port} does not answer"))
    }

    fn exchange(&mut self, with: &mut UnixStream, frame: &[u8]) -> anyhow::Result<Vec<u8>> {
        with.write_all(frame)?;
        match read_frame(with)? {
            Some(answer) => Ok(answer),
            None => bail!("the guest closed the connection"),
        }
    }

    fn close(&mut self, conversation: UnixStream) {
        drop(conversation);
    }
}
