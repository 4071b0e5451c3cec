//! The FIFOs that Firecracker writes its log and its metrics to. Both are read to their end, however much comes, so that
//! they take no room on the host; of the metrics the last line is kept, parsed.

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::error::VmmError;

/// The longest line of metrics that is parsed; v1.16 writes some 10 KiB.
const MAX_LINE: usize = 256 << 10;

/// Makes a FIFO and opens it for reading. Read it only once Firecracker has it open: before that it seems to be at its end.
pub(super) fn create(path: &Path) -> Result<pipe::Receiver, VmmError> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|errno| VmmError::state("create", path, errno))?;
    pipe::OpenOptions::new()
        .open_receiver(path)
        .map_err(|error| VmmError::state("open", path, error))
}

/// The last line of metrics.
#[derive(Debug, Clone)]
pub(super) struct Metrics(watch::Receiver<Option<Value>>);

impl Metrics {
    /// Reads lines on a task of the current runtime, until Firecracker is gone.
    pub(super) fn read(from: pipe::Receiver) -> Self {
        let (last, metrics) = watch::channel(None);
        tokio::spawn(read_lines(BufReader::new(from), last));
        Self(metrics)
    }

    pub(super) fn last(&self) -> Option<Value> {
        self.0.borrow().clone()
    }

    /// Forgets the present line, and waits for the next with the returned future. `None` when Firecracker is gone.
    pub(super) fn next(&self) -> impl Future<Output = Option<Value>> + use<> {
        let mut metrics = self.0.clone();
        metrics.mark_unchanged();
        async move {
            metrics.changed().await.ok()?;
            metrics.borrow().clone()
        }
    }
}

pub(super) async fn read_lines(mut from: impl AsyncBufRead + Unpin, last: watch::Sender<Option<Value>>) {
    let mut line = Vec::new();
    while let Ok(piece @ [_, ..]) = from.fill_buf().await {
        let end = piece.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(piece.len(), |end| end + 1);
        // One byte more than the limit marks a line as too long.
        let room = (MAX_LINE + 1).saturating_sub(line.len());
        line.extend_from_slice(&piece[..taken.min(room)]);
        from.consume(taken);
        if end.is_some() {
            match serde_json::from_slice(&line) {
                Ok(metrics) if line.len() <= MAX_LINE => {
                    last.send_replace(Some(metrics));
                }
                _ => tracing::debug!(bytes = line.len(), "Firecracker wrote a line that is no metrics"),
            }
            line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_good_line_is_kept() {
        let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(MAX_LINE));
        let input = format!("{{\"vmm\":1}}\nnonsense\n{long}{{\"vmm\":2}}\n{{\"vmm\":");
        let (last, metrics) = watch::channel(None);
        read_lines(input.as_bytes(), last).await;
        assert_eq!(Metrics(metrics).last(), Some(serde_json::json!({"vmm": 2})));
    }

    #[tokio::test]
    async fn an_overlong_line_is_not_metrics() {
        let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(MAX_LINE));
        let (last, metrics) = watch::channel(None);
        read_lines(long.as_bytes(), last).await;
        assert_eq!(Metrics(metrics).last(), None);
    }
}
