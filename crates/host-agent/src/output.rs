//! Standard output and standard error. Whoever reads them may be slow, or gone: neither may keep a machine alive.
//!
//! ```text
//! Event ─► Output ─► a thread that writes ─► whoever reads
//!               └─► Written: all of it, or why not
//! ```

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::Event;
use protocol::job::Chunk;
use tokio::sync::oneshot;

/// Where a piece of output goes.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Out,
    Error,
}

/// Takes what a job prints. What waits to be written is bounded by what a job may print.
#[derive(Debug)]
pub(crate) struct Output(mpsc::Sender<(Stream, Vec<u8>)>);

/// What becomes of it.
#[derive(Debug)]
pub(crate) struct Written(oneshot::Receiver<io::Result<()>>);

/// Starts the thread that writes, in the order in which it came. The process's exit ends it, also in mid-write.
pub(crate) fn start() -> io::Result<(Output, Written)> {
    let (pieces, queue) = mpsc::channel::<(Stream, Vec<u8>)>();
    let (tell, written) = oneshot::channel();
    thread::Builder::new().name("output".to_owned()).spawn(move || {
        let written = queue.iter().try_for_each(|(stream, bytes)| write(stream, &bytes));
        // Nobody listens any more when the run was interrupted.
        let _ = tell.send(written);
    })?;
    Ok((Output(pieces), Written(written)))
}

impl Output {
    /// Passes on what the job printed, exact to the byte.
    pub(crate) fn pass(&self, event: &Event) {
        match event {
            Event::Started => {}
            Event::Stdout(chunk) => self.send(Stream::Out, exact(chunk)),
            Event::Stderr(chunk) => self.send(Stream::Error, exact(chunk)),
        }
    }

    /// Prints a text.
    pub(crate) fn print(&self, text: String) {
        self.send(Stream::Out, text.into_bytes());
    }

    /// Prints a text on standard error.
    pub(crate) fn complain(&self, text: String) {
        self.send(Stream::Error, text.into_bytes());
    }

    fn send(&self, stream: Stream, bytes: Vec<u8>) {
        // A thread that is gone has told why.
        let _ = self.0.send((stream, bytes));
    }
}

impl Written {
    /// Waits until all is written and no [`Output`] is left, or until something cannot be written.
    pub(crate) async fn ended(&mut self) -> io::Result<()> {
        (&mut self.0)
            .await
            .unwrap_or(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

fn write(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    fn to(mut stream: impl Write, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(bytes)?;
        stream.flush()
    }
    match stream {
        Stream::Out => to(io::stdout().lock(), bytes),
        Stream::Error => to(io::stderr().lock(), bytes),
    }
}

fn exact(chunk: &Chunk) -> Vec<u8> {
    let exact = chunk.data_base64.as_ref();
    exact
        .and_then(|exact| STANDARD.decode(exact).ok())
        .unwrap_or_else(|| chunk.data.clone().into_bytes())
}

/// Prints a line; nobody is left to be told when that fails.
pub(crate) fn print(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Prints a line on standard error, likewise.
pub(crate) fn complain(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_exact() {
        let mut chunk = Chunk {
            data: "a\u{fffd}".to_owned(),
            data_base64: None,
        };
        assert_eq!(exact(&chunk), "a\u{fffd}".as_bytes());
        chunk.data_base64 = Some(STANDARD.encode(b"a\xff"));
        assert_eq!(exact(&chunk), b"a\xff");
    }
}
