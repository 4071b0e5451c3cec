//! QMP, as much of it as is needed: QEMU greets, takes commands, answers them in their order, and reports events.
//!
//! ```text
//! execute(commands) ──► QEMU ── answers, events ─► Seen ◄─ answered(), resumed(), migrated(), out_of_disk()
//! ```
//!
//! The protocol is one JSON object a line (docs/interop/qmp-spec.txt). Commands may be sent before the greeting has come,
//! several at once: QEMU reads them one after the other when it has come so far. It reads them byte by byte, so they are short.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;

use crate::error::VmmError;

/// The longest line that QEMU may send; events are far shorter.
const MAX_LINE: u64 = 64 << 10;

/// A command: its name, which errors show, and the line that is sent.
#[derive(Debug, Clone)]
pub(super) struct Command {
    name: &'static str,
    line: String,
}

impl Command {
    /// Leaves the negotiation that every conversation begins with.
    pub(super) fn begin() -> Self {
        Self::new("qmp_capabilities", None)
    }

    /// Has a migration leave memory alone that is a shared file (on both sides), and tell how it goes.
    pub(super) fn set_migration_capabilities() -> Self {
        let on = |capability| json!({ "capability": capability, "state": true });
        let capabilities = [on("x-ignore-shared"), on("events")];
        Self::new(
            "migrate-set-capabilities",
            Some(json!({ "capabilities": capabilities })),
        )
    }

    /// Gives a name to the descriptor that is sent with the command.
    pub(super) fn name_descriptor(name: &str) -> Self {
        Self::new("getfd", Some(json!({ "fdname": name })))
    }

    /// Writes the machine's state, stopping the machine for good.
    pub(super) fn migrate(uri: &str) -> Self {
        Self::new("migrate", Some(json!({ "uri": uri })))
    }

    /// Reads a machine's state and lets the machine go on.
    pub(super) fn migrate_incoming(uri: &str) -> Self {
        Self::new("migrate-incoming", Some(json!({ "uri": uri })))
    }

    fn new(name: &'static str, arguments: Option<Value>) -> Self {
        let command = match arguments {
            None => json!({ "execute": name }),
            Some(arguments) => json!({ "execute": name, "arguments": arguments }),
        };
        Self {
            name,
            line: format!("{command}\n"),
        }
    }
}

/// What QEMU sends, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<serde::de::IgnoredAny>,
    #[serde(rename = "return")]
    returned: Option<serde::de::IgnoredAny>,
    error: Option<Fault>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Debug, Deserialize)]
struct Fault {
    desc: String,
}

/// All that has come of QEMU. Nothing in it grows with what comes.
#[derive(Debug, Default)]
pub(super) struct Seen {
    greeted: bool,
    /// Commands that were answered.
    pub(super) answers: usize,
    /// The first answer that was a refusal, by its index, and QEMU's words.
    pub(super) fault: Option<(usize, String)>,
    disk_full: bool,
    /// The guest was let go on.
    resumed: bool,
    migration: Migration,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Migration {
    #[default]
    UnderWay,
    Completed,
    Failed,
}

impl Seen {
    /// # Errors
    /// The first message is no greeting.
    fn take(&mut self, message: Message) -> io::Result<()> {
        if !self.greeted {
            self.greeted = message.greeting.is_some();
            return if self.greeted {
                Ok(())
            } else {
                Err(io::ErrorKind::InvalidData.into())
            };
        }
        if message.returned.is_some() || message.error.is_some() {
            let index = self.answers;
            self.answers += 1;
            let fault = message.error.map(|fault| (index, fault.desc));
            self.fault = self.fault.take().or(fault);
        }
        let data = &message.data;
        match message.event.as_deref() {
            Some("BLOCK_IO_ERROR") if data["nospace"] == true => self.disk_full = true,
            Some("RESUME") => self.resumed = true,
            Some("MIGRATION") => match data["status"].as_str() {
                Some("completed") => self.migration = Migration::Completed,
                Some("failed" | "cancelled") => self.migration = Migration::Failed,
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }
}

/// The monitor of a QEMU. What comes from it is read on a task that ends with QEMU.
#[derive(Debug)]
pub(super) struct Monitor {
    write: OwnedWriteHalf,
    seen: watch::Receiver<Seen>,
    /// The commands that were sent, by name.
    sent: Vec<&'static str>,
}

impl Monitor {
    /// Starts to listen; QEMU need not be there yet.
    pub(super) fn open(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let (seen, receiver) = watch::channel(Seen::default());
        tokio::spawn(async move {
            // Its end closes `seen`, by which those who wait for more know.
            let ended = watch_all(&mut BufReader::new(read), &seen).await;
            tracing::trace!(?ended, "A monitor is closed");
        });
        Self {
            write,
            seen: receiver,
            sent: Vec::new(),
        }
    }

    /// Sends commands, in one piece, without waiting for an answer.
    ///
    /// # Errors
    /// [`VmmError::Interface`] when QEMU is gone.
    pub(super) async fn send(&mut self, commands: &[Command]) -> Result<(), VmmError> {
        let text: String = commands.iter().map(|command| command.line.as_str()).collect();
        self.note(commands);
        let written = self.write.write_all(text.as_bytes()).await;
        written.map_err(|source| self.broken(source))
    }

    /// The same, and a descriptor with them, which is that of the first [`Command::name_descriptor`].
    ///
    /// # Errors
    /// [`VmmError::Interface`] when QEMU is gone.
    pub(super) async fn send_with(
        &mut self,
        commands: &[Command],
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), VmmError> {
        let text: String = commands.iter().map(|command| command.line.as_str()).collect();
        self.note(commands);
        let stream = self.write.as_ref();
        let send = || send_descriptor(stream, text.as_bytes(), descriptor);
        let sent = stream.async_io(Interest::WRITABLE, send).await;
        let sent = sent.map_err(|source| self.broken(source))?;
        let written = self.write.write_all(&text.as_bytes()[sent..]).await;
        written.map_err(|source| self.broken(source))
    }

    fn note(&mut self, commands: &[Command]) {
        self.sent.extend(commands.iter().map(|command| command.name));
    }

    /// Waits until the first `count` commands have been answered.
    ///
    /// # Errors
    /// [`VmmError::Refused`] with the first refusal; [`VmmError::Interface`] when QEMU goes away or talks nonsense.
    pub(super) async fn answered(&self, count: usize) -> Result<(), VmmError> {
        // What came of a later one is for whoever waits for that.
        self.until(count, |seen| seen.answers >= count).await
    }

    /// Waits until the guest has been let go on.
    ///
    /// # Errors
    /// As [`Self::answered`].
    pub(super) async fn resumed(&self) -> Result<(), VmmError> {
        self.until(usize::MAX, |seen| seen.resumed).await
    }

    /// Waits until the machine's state has been written.
    ///
    /// # Errors
    /// As [`Self::answered`]; [`VmmError::Refused`] also when it could not be.
    pub(super) async fn migrated(&self) -> Result<(), VmmError> {
        self.until(usize::MAX, |seen| seen.migration != Migration::UnderWay)
            .await?;
        if self.seen.borrow().migration == Migration::Completed {
            return Ok(());
        }
        Err(VmmError::Refused {
            request: "migrate".to_owned(),
            fault: "the migration failed".to_owned(),
        })
    }

    /// Resolves when the guest has written more than the host's disk can take.
    pub(super) async fn out_of_disk(&self) {
        let mut seen = self.seen.clone();
        if seen.wait_for(|seen| seen.disk_full).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for `condition`, or for a refusal of one of the first `commands`.
    async fn until(&self, commands: usize, condition: impl Fn(&Seen) -> bool) -> Result<(), VmmError> {
        let mut seen = self.seen.clone();
        let refused = |seen: &Seen| seen.fault.as_ref().is_some_and(|(index, _)| *index < commands);
        let Ok(seen) = seen.wait_for(|seen| refused(seen) || condition(seen)).await else {
            return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
        };
        let Some((index, fault)) = seen.fault.as_ref().filter(|_| refused(&seen)) else {
            return Ok(());
        };
        Err(VmmError::Refused {
            request: self.sent.get(*index).copied().unwrap_or("QMP").to_owned(),
            fault: fault.clone(),
        })
    }

    fn broken(&self, source: io::Error) -> VmmError {
        let what = self.sent.last().copied().unwrap_or("QMP");
        VmmError::Interface { what, source }
    }
}

/// Sends as many of the bytes as there is room for, and the descriptor with them. Gives how many.
fn send_descriptor(stream: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// Reads until QEMU closes its end or talks nonsense; gives which.
pub(super) async fn watch_all(
    lines: &mut (impl AsyncBufRead + Unpin),
    seen: &watch::Sender<Seen>,
) -> io::Error {
    loop {
        let message = match next(lines).await {
            Ok(message) => message,
            Err(error) => return error,
        };
        let mut taken = Ok(());
        seen.send_modify(|seen| taken = seen.take(message));
        if let Err(error) = taken {
            return error;
        }
    }
}

async fn next(lines: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Message> {
    let mut line = Vec::new();
    lines.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream as StdUnixStream;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}"#;
    const DONE: &str = r#"{"return": {}}"#;

    /// A monitor that was sent these commands, of a QEMU that says these lines and hangs up.
    async fn monitor(commands: &[Command], says: &[&str]) -> (Monitor, StdUnixStream) {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut monitor = Monitor::open(UnixStream::from_std(ours).unwrap());
        monitor.send(commands).await.unwrap();
        for line in says {
            io::Write::write_all(&mut theirs, format!("{line}\r\n").as_bytes()).unwrap();
        }
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        (monitor, theirs)
    }

    async fn answer(says: &[&str]) -> Result<(), VmmError> {
        monitor(&[Command::begin()], says).await.0.answered(1).await
    }

    #[tokio::test]
    async fn commands_are_sent_at_once_and_answered_past_events() {
        let commands = [Command::begin(), Command::set_migration_capabilities()];
        let event = r#"{"event": "RESUME", "timestamp": {}}"#;
        let (monitor, mut theirs) = monitor(&commands, &[GREETING, event, DONE, DONE]).await;
        monitor.answered(2).await.unwrap();
        drop(monitor);
        let mut sent = String::new();
        theirs.read_to_string(&mut sent).unwrap();
        assert_eq!(
            sent,
            concat!(
                r#"{"execute":"qmp_capabilities"}"#,
                "\n",
                r#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","#,
                r#""state":true},{"capability":"events","state":true}]}}"#,
                "\n",
            )
        );
    }

    #[tokio::test]
    async fn a_refusal_carries_qemu_s_words() {
        let fault = r#"{"error": {"class": "GenericError", "desc": "not today"}}"#;
        let commands = [
            Command::begin(),
            Command::migrate_incoming("fd:9"),
            Command::begin(),
        ];
        let (monitor, _) = monitor(&commands, &[GREETING, DONE, fault, DONE]).await;
        assert_eq!(
            monitor.resumed().await.unwrap_err().to_string(),
            "The VMM refused migrate-incoming: not today"
        );
        monitor.answered(1).await.unwrap();
        monitor.answered(2).await.unwrap_err();
    }

    #[tokio::test]
    async fn silence_and_nonsense_are_errors() {
        let endless = "x".repeat(MAX_LINE as usize + 1);
        for says in [&[][..], &["{}"], &["hello"], &[DONE], &[GREETING], &[&endless]] {
            let error = answer(says).await.unwrap_err();
            assert!(matches!(error, VmmError::Interface { .. }), "{says:?}: {error}");
        }
        answer(&[GREETING, DONE]).await.unwrap();
    }

    #[tokio::test]
    async fn a_migration_is_over_when_it_is_completed_or_failed() {
        let event = |status| format!(r#"{{"event": "MIGRATION", "data": {{"status": "{status}"}}}}"#);
        let (setup, active) = (event("setup"), event("active"));
        for (end, good) in [("completed", true), ("failed", false), ("cancelled", false)] {
            let says = [GREETING, &setup, &active, &event(end)];
            let (monitor, _) = monitor(&[], &says).await;
            assert_eq!(monitor.migrated().await.is_ok(), good, "{end}");
        }
        let (monitor, _) = monitor(&[], &[GREETING, &setup, &active]).await;
        assert!(matches!(
            monitor.migrated().await,
            Err(VmmError::Interface { .. })
        ));
    }

    #[test]
    fn a_full_disk_is_noticed() {
        let event = |nospace: bool| {
            let text = json!({"event": "BLOCK_IO_ERROR", "data": {
                "device": "", "operation": "write", "action": "report", "nospace": nospace, "reason": "x" }});
            serde_json::from_value::<Message>(text).unwrap()
        };
        let mut seen = Seen {
            greeted: true,
            ..Seen::default()
        };
        seen.take(event(false)).unwrap();
        assert!(!seen.disk_full);
        seen.take(event(true)).unwrap();
        assert!(seen.disk_full);
    }

    #[tokio::test]
    async fn a_descriptor_goes_with_the_first_byte() {
        let (mut monitor, theirs) = monitor(&[], &[GREETING]).await;
        let (reader, writer) = io::pipe().unwrap();
        let commands = [Command::name_descriptor("state"), Command::migrate("fd:state")];
        monitor.send_with(&commands, writer.as_fd()).await.unwrap();
        drop(writer);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut first = [0; 1];
        let mut buffers = [io::IoSliceMut::new(&mut first)];
        recvmsg(&theirs, &mut buffers, &mut control, RecvFlags::empty()).unwrap();
        let descriptors: Vec<OwnedFd> = control
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
                _ => Vec::new(),
            })
            .collect();
        let [descriptor] = descriptors.try_into().unwrap();
        io::Write::write_all(&mut std::fs::File::from(descriptor), b"state").unwrap();
        let mut state = String::new();
        { reader }.read_to_string(&mut state).unwrap();
        assert_eq!(state, "state");
        drop(monitor);
        let mut rest = String::new();
        { theirs }.read_to_string(&mut rest).unwrap();
        assert!(
            rest.ends_with("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"fd:state\"}}\n"),
            "{rest}"
        );
    }
}
