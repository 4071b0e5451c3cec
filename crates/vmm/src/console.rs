//! What a guest or a VMM writes on its console: the last of it is kept, all of it is read, so that a writer never
//! blocks and never fills the host's memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// Bytes kept in memory.
pub const KEPT: usize = 64 << 10;
/// Bytes copied at most to a file that a console is kept in.
pub const MAX_KEPT: u64 = 16 << 20;
/// Characters of one line in [`Console::tail_lines`]; the rest of a longer line is cut.
pub(crate) const MAX_LINE: usize = 400;

/// A handle to the last [`KEPT`] bytes; clones show the same console.
#[derive(Debug, Clone)]
pub struct Console {
    ring: Arc<Mutex<Ring>>,
    /// Its sender lives as long as the task that reads.
    reading: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Ring(VecDeque<u8>);

impl Ring {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(KEPT);
        self.0.drain(..excess);
        self.0.extend(bytes);
    }
}

impl Console {
    /// Reads `from` to its end on a task of the current runtime, copying all of it to `keep` up to [`MAX_KEPT`] bytes.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn capture(from: impl AsyncRead + Send + Unpin + 'static, keep: Option<&Path>) -> io::Result<Self> {
        let copy = keep
            .map(File::create)
            .transpose()?
            .map(|file| Copy { file, room: MAX_KEPT });
        let ring = Arc::new(Mutex::new(Ring::default()));
        let (seen, reading) = watch::channel(0);
        tokio::spawn(read_all(from, Arc::clone(&ring), copy, seen));
        Ok(Self { ring, reading })
    }

    /// The last `n` lines, without control characters (a guest must not be able to drive the operator's terminal), empty
    /// lines left out.
    #[must_use]
    pub fn tail_lines(&self, n: usize) -> Vec<String> {
        let bytes = self.bytes();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text
            .lines()
            .rev()
            .map(printable)
            .filter(|line| !line.is_empty())
            .take(n)
            .collect();
        lines.reverse();
        lines
    }

    /// All that is kept, as it came.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().0.iter().copied().collect()
    }

    /// Waits until the writer has closed its end and all it wrote has been read.
    pub async fn ended(&self) {
        let mut reading = self.reading.clone();
        while reading.changed().await.is_ok() {}
    }

    /// Waits until `text` is among what is kept. Never resolves when the console ends without it.
    pub async fn shows(&self, text: &str) {
        let mut reading = self.reading.clone();
        loop {
            reading.borrow_and_update();
            if String::from_utf8_lossy(&self.bytes()).contains(text) {
                return;
            }
            if reading.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file with room for so many bytes.
struct Copy {
    file: File,
    room: u64,
}

impl Copy {
    /// A console that cannot be kept must not disturb the machine: the first failure ends the copy.
    fn write(&mut self, bytes: &[u8]) {
        let take = usize::try_from(self.room).unwrap_or(usize::MAX).min(bytes.len());
        self.room = match self.file.write_all(&bytes[..take]) {
            Ok(()) => self.room - take as u64,
            Err(error) => {
                tracing::warn!(%error, "The console is no longer copied to its file");
                0
            }
        };
    }
}

async fn read_all(
    mut from: impl AsyncRead + Unpin,
    ring: Arc<Mutex<Ring>>,
    mut copy: Option<Copy>,
    seen: watch::Sender<u64>,
) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        ring.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(&buffer[..read]);
        if let Some(copy) = &mut copy {
            copy.write(&buffer[..read]);
        }
        seen.send_modify(|total| *total += read as u64);
    }
}

/// A line without control characters and ANSI sequences, cut at [`MAX_LINE`] characters.
pub(crate) fn printable(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\x1b' && rest.next_if_eq(&'[').is_some() {
            while rest.next().is_some_and(|c| !('\x40'..='\x7e').contains(&c)) {}
        } else if !c.is_control() {
            text.push(c);
        }
    }
    let text = text.trim_end();
    text.char_indices()
        .nth(MAX_LINE)
        .map_or(text, |(cut, _)| &text[..cut])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_last_bytes_and_copies_them_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let input: Vec<u8> = (0..100_000u32)
            .flat_map(|i| format!("{i}\n").into_bytes())
            .collect();
        let console = Console::capture(std::io::Cursor::new(input.clone()), Some(&path)).unwrap();
        console.ended().await;
        assert_eq!(console.bytes().len(), KEPT);
        assert_eq!(console.tail_lines(2), ["99998", "99999"]);
        assert_eq!(std::fs::read(path).unwrap(), input);
    }

    #[tokio::test]
    async fn shows_resolves_when_the_text_comes() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let console = Console::capture(reader, None).unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"Linux ")
            .await
            .unwrap();
        let late = console.clone();
        let waiting = tokio::spawn(async move { late.shows("Linux version").await });
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"version 6.1")
            .await
            .unwrap();
        waiting.await.unwrap();
    }

    #[test]
    fn lines_cannot_drive_a_terminal() {
        assert_eq!(printable("\x1b[31mred\x1b[0m\x07 \u{9b}x\r"), "red x");
        assert_eq!(printable("\x1b["), "");
        assert_eq!(printable(&"é".repeat(1000)).chars().count(), MAX_LINE);
    }
}
