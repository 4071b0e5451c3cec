//! QEMU by hand: started as a clone's QEMU is, its monitor and its serial port being socket pairs that it inherits.
//!
//! ```text
//!                 ┌─ qmp ── capabilities, migrate-incoming ─► … RESUME
//! QEMU (inherits) ┤
//!                 ├─ port ── multiplexed frames ◄─► guest-runner
//!                 └─ memory (copy-on-write), state
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use protocol::frame::FrameDecoder;
use protocol::mux::{Mux, MuxEvent, Side, StreamId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::Value;

use super::super::installed::Frozen;
use super::super::interrupt;
use super::super::split::milliseconds;
use super::{Guest, Killed, Loaded, PATIENCE, Place};

const PREPARATION: &str = concat!(
    r#"{"execute":"qmp_capabilities"}"#,
    "\n",
    r#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true},"#,
    r#"{"capability":"events","state":true}]}}"#,
    "\n"
);
/// The answers to it.
const ANSWERS: usize = 2;

/// Descriptors that QEMU inherits, by their numbers.
struct Wiring {
    qmp: RawFd,
    port: RawFd,
    memory: RawFd,
}

/// A QEMU that has been told how to prepare for a snapshot.
pub(super) struct Spawned {
    restored: Restored,
    state: RawFd,
    began: Instant,
}

impl Spawned {
    pub(super) fn start(frozen: &Frozen, place: &Place) -> anyhow::Result<Self> {
        let (mut qmp, their_qmp) = pair()?;
        let (port, their_port) = pair()?;
        let memory = inherited(frozen.template.memory.path())?;
        let state = inherited(frozen.template.state.path())?;
        let wiring = Wiring {
            qmp: their_qmp.as_raw_fd(),
            port: their_port.as_raw_fd(),
            memory: memory.as_raw_fd(),
        };
        let specimen = &frozen.specimen;
        let arguments: Vec<String> = specimen
            .arguments
            .iter()
            .map(|argument| rewired(argument, &wiring, &place.scratch))
            .collect();
        qmp.write_all(PREPARATION.as_bytes())?;
        let began = Instant::now();
        let child = Command::new(&specimen.program)
            .args(&arguments)
            .env_clear()
            .envs(specimen.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start QEMU")?;
        let mut mux = Mux::new(Side::Host);
        // Not the generation that the snapshot was taken in, which is 1.
        mux.restart(u32::from_ne_bytes(rand_bytes()?).max(2));
        let mut restored = Restored {
            _qemu: Killed(child),
            qmp,
            port,
            mux,
            line: Vec::new(),
            answers: 0,
            up: None,
            resumed: false,
            events: Vec::new(),
        };
        restored.flush()?;
        Ok(Self {
            restored,
            state: state.as_raw_fd(),
            began,
        })
        // Our copies of what QEMU inherits are closed here.
    }

    /// Waits until it is prepared.
    pub(super) fn ready(&mut self) -> anyhow::Result<()> {
        self.restored.until(|seen| seen.answers >= ANSWERS)
    }

    pub(super) fn restore(mut self) -> anyhow::Result<Loaded<Restored>> {
        let waited = self.restored.answers >= ANSWERS;
        let load = format!(
            "{{\"execute\":\"migrate-incoming\",\"arguments\":{{\"uri\":\"fd:{}\"}}}}\n",
            self.state
        );
        self.restored.qmp.write_all(load.as_bytes())?;
        self.restored.until(|seen| seen.resumed)?;
        let up = self.restored.up.filter(|_| !waited);
        Ok(Loaded {
            up: up.map(|up| milliseconds(up - self.began)),
            guest: self.restored,
        })
    }
}

fn rand_bytes() -> anyhow::Result<[u8; 4]> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Our end, and the one that a child inherits.
fn pair() -> anyhow::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    Ok((ours, theirs.into()))
}

/// A file that a child inherits.
fn inherited(path: &Path) -> anyhow::Result<OwnedFd> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file.into())
}

/// The argument of another clone with this one's descriptors and disk.
fn rewired(argument: &str, wiring: &Wiring, scratch: &Path) -> String {
    const MEMORY: &str = "mem-path=/proc/self/fd/";
    if argument.starts_with("socket,id=qmp,fd=") {
        return format!("socket,id=qmp,fd={}", wiring.qmp);
    }
    if argument.starts_with("socket,id=port,fd=") {
        return format!("socket,id=port,fd={}", wiring.port);
    }
    if let Some((before, after)) = argument.split_once(MEMORY) {
        let rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
        return format!("{before}{MEMORY}{}{rest}", wiring.memory);
    }
    match serde_json::from_str::<Value>(argument) {
        Ok(mut node) if node["node-name"] == "scratch" => {
            node["file"]["filename"] = scratch.display().to_string().into();
            node.to_string()
        }
        _ => argument.to_owned(),
    }
}

/// A QEMU and what it has said.
pub(super) struct Restored {
    _qemu: Killed,
    qmp: UnixStream,
    port: UnixStream,
    mux: Mux,
    /// The beginning of a line of the monitor's.
    line: Vec<u8>,
    answers: usize,
    /// When the preparation had been answered.
    up: Option<Instant>,
    resumed: bool,
    events: Vec<MuxEvent>,
}

impl Restored {
    /// Takes in what comes until that is so.
    fn until(&mut self, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            self.pump(end)?;
        }
        Ok(())
    }

    fn pump(&mut self, end: Instant) -> anyhow::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "QEMU or its guest is silent");
        let (qmp, port) = {
            let mut descriptors = [
                PollFd::from_borrowed_fd(self.qmp.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.port.as_fd(), PollFlags::IN),
            ];
            match poll(&mut descriptors, Some(&Timespec::try_from(left)?)) {
                Err(rustix::io::Errno::INTR) => return interrupt::check(),
                polled => polled?,
            };
            (
                !descriptors[0].revents().is_empty(),
                !descriptors[1].revents().is_empty(),
            )
        };
        let mut buffer = [0; 16 << 10];
        if qmp {
            let read = self.qmp.read(&mut buffer)?;
            ensure!(read > 0, "QEMU ended");
            self.take_monitor(&buffer[..read])?;
        }
        if port {
            let read = self.port.read(&mut buffer)?;
            ensure!(read > 0, "QEMU closed the port");
            self.mux.receive(&buffer[..read])?;
            while let Some(event) = self.mux.next_event() {
                self.events.push(event);
            }
            self.flush()?;
        }
        Ok(())
    }

    fn take_monitor(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let message: Value = serde_json::from_slice(&line).context("the monitor speaks no JSON")?;
            if let Some(error) = message.get("error") {
                bail!("QEMU refused: {error}");
            }
            if message.get("return").is_some() {
                self.answers += 1;
                if self.answers == ANSWERS {
                    self.up = Some(Instant::now());
                }
            }
            self.resumed |= message["event"] == "RESUME";
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        while let Some(frame) = self.mux.transmit() {
            self.port.write_all(&frame)?;
        }
        Ok(())
    }
}

impl Guest for Restored {
    type Conversation = StreamId;

    fn connect(&mut self, port: u32) -> anyhow::Result<StreamId> {
        Ok(self.mux.open(port)?)
    }

    fn exchange(&mut self, with: &mut StreamId, frame: &[u8]) -> anyhow::Result<Vec<u8>> {
        ensure!(
            self.mux.send(*with, frame) == frame.len(),
            "the frame is too long"
        );
        self.flush()?;
        let mut decoder = FrameDecoder::default();
        let end = Instant::now() + PATIENCE;
        loop {
            for event in std::mem::take(&mut self.events) {
                match event {
                    MuxEvent::Data { stream, bytes } if stream == *with => {
                        self.mux.consumed(stream, bytes.len());
                        decoder.push(&bytes);
                    }
                    MuxEvent::Closed { stream } | MuxEvent::Reset { stream } if stream == *with => {
                        bail!("the guest closed the connection");
                    }
                    _ => {}
                }
            }
            if let Some(answer) = decoder.next_frame()? {
                return Ok(answer);
            }
            self.pump(end)?;
        }
    }

    fn close(&mut self, conversation: StreamId) {
        self.mux.reset(conversation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_gets_this_clone_s_descriptors_and_disk() {
        let wiring = Wiring {
            qmp: 21,
            port: 22,
            memory: 23,
        };
        let rewired = |argument| rewired(argument, &wiring, Path::new("/new/scratch"));
        assert_eq!(rewired("socket,id=qmp,fd=8"), "socket,id=qmp,fd=21");
        assert_eq!(rewired("socket,id=port,fd=7"), "socket,id=port,fd=22");
        assert_eq!(
            rewired("memory-backend-file,id=ram,size=512M,mem-path=/proc/self/fd/9,share=off"),
            "memory-backend-file,id=ram,size=512M,mem-path=/proc/self/fd/23,share=off"
        );
        assert_eq!(
            rewired(r#"{"node-name":"scratch","file":{"driver":"file","filename":"/old"}}"#),
            r#"{"node-name":"scratch","file":{"driver":"file","filename":"/new/scratch"}}"#
        );
        let root = r#"{"node-name":"root","file":{"driver":"file","filename":"/old"}}"#;
        for unchanged in [root, "-blockdev", "defer", "512M"] {
            assert_eq!(rewired(unchanged), unchanged);
        }
    }
}
