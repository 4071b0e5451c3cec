//! QMP, as much of it as is needed: QEMU greets, takes `qmp_capabilities`, and from then on reports events.
//!
//! The protocol is one JSON object a line (docs/interop/qmp-spec.txt).

use std::io;

use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::error::VmmError;

/// The longest line that QEMU may send; events are far shorter.
const MAX_LINE: u64 = 64 << 10;

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
    data: EventData,
}

#[derive(Debug, Deserialize)]
struct Fault {
    desc: String,
}

#[derive(Debug, Default, Deserialize)]
struct EventData {
    #[serde(default)]
    nospace: bool,
}

/// The monitor of a QEMU that is up. Its events are read on a task that ends with QEMU.
#[derive(Debug)]
pub(super) struct Monitor {
    disk_full: watch::Receiver<bool>,
}

impl Monitor {
    /// Shakes hands. QEMU answers when it has made the machine and started it.
    ///
    /// # Errors
    /// [`VmmError::Interface`] when QEMU goes away or talks nonsense, [`VmmError::Refused`].
    pub(super) async fn connect(stream: UnixStream) -> Result<Self, VmmError> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read);
        handshake(&mut lines, &mut write).await?;
        let (found_full, disk_full) = watch::channel(false);
        tokio::spawn(async move {
            // The write half stays open: QEMU would close a monitor that hung up.
            let _write = write;
            watch_disk(&mut lines, &found_full).await;
        });
        Ok(Self { disk_full })
    }

    /// Resolves when the guest has written more than the host's disk can take.
    pub(super) async fn out_of_disk(&self) {
        let mut disk_full = self.disk_full.clone();
        if disk_full.wait_for(|full| *full).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn handshake(
    lines: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWriteExt + Unpin),
) -> Result<(), VmmError> {
    let interface = |what| move |source| VmmError::Interface { what, source };
    let greeting = next(lines).await.map_err(interface("QMP greeting"))?;
    if greeting.greeting.is_none() {
        return Err(interface("QMP greeting")(io::ErrorKind::InvalidData.into()));
    }
    const COMMAND: &str = "qmp_capabilities";
    let line = format!("{{\"execute\":\"{COMMAND}\"}}\n");
    write
        .write_all(line.as_bytes())
        .await
        .map_err(interface(COMMAND))?;
    loop {
        let message = next(lines).await.map_err(interface(COMMAND))?;
        if let Some(fault) = message.error {
            return Err(VmmError::Refused {
                request: COMMAND.to_owned(),
                fault: fault.desc,
            });
        }
        if message.returned.is_some() {
            return Ok(());
        }
    }
}

async fn watch_disk(lines: &mut (impl AsyncBufRead + Unpin), found_full: &watch::Sender<bool>) {
    while let Ok(message) = next(lines).await {
        if message.event.as_deref() == Some("BLOCK_IO_ERROR") && message.data.nospace {
            found_full.send_replace(true);
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
    use super::*;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}"#;

    async fn shake(answers: &str) -> (Result<(), VmmError>, Vec<u8>) {
        let mut sent = Vec::new();
        let result = handshake(&mut answers.as_bytes(), &mut sent).await;
        (result, sent)
    }

    #[tokio::test]
    async fn hands_are_shaken_past_events() {
        let (result, sent) = shake(&format!(
            "{GREETING}\r\n{{\"event\": \"RESUME\", \"timestamp\": {{}}}}\r\n{{\"return\": {{}}}}\r\n"
        ))
        .await;
        result.unwrap();
        assert_eq!(sent, b"{\"execute\":\"qmp_capabilities\"}\n");
    }

    #[tokio::test]
    async fn a_refusal_carries_qemu_s_words() {
        let fault = r#"{"error": {"class": "GenericError", "desc": "not today"}}"#;
        let (result, _) = shake(&format!("{GREETING}\n{fault}\n")).await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "The VMM refused qmp_capabilities: not today"
        );
    }

    #[tokio::test]
    async fn silence_and_nonsense_are_errors() {
        for answers in ["", "{}\n", "hello\n", GREETING] {
            assert!(
                matches!(shake(answers).await.0, Err(VmmError::Interface { .. })),
                "{answers}"
            );
        }
        let endless = "x".repeat(MAX_LINE as usize + 1);
        assert!(shake(&endless).await.0.is_err());
    }

    #[tokio::test]
    async fn a_full_disk_is_noticed() {
        let (found_full, disk_full) = watch::channel(false);
        let events = concat!(
            r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "", "operation": "write", "action": "report", "nospace": false, "reason": "x"}}"#,
            "\n",
        );
        watch_disk(&mut events.as_bytes(), &found_full).await;
        assert!(!*disk_full.borrow());
        let events = events.replace("\"nospace\": false", "\"nospace\": true");
        watch_disk(&mut events.as_bytes(), &found_full).await;
        assert!(*disk_full.borrow());
    }
}
