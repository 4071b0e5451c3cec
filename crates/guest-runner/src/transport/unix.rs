//! A Unix socket with Firecracker's handshake: `CONNECT <port>\n`, answered by `OK <port>\n`.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use crate::serve::Server;

const LONGEST_LINE: usize = 32;
const HANDSHAKE: Duration = Duration::from_secs(5);

pub(crate) struct Listener {
    socket: UnixListener,
}

impl Listener {
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixListener::bind(path)?;
        Ok(Self { socket })
    }

    pub(crate) fn serve(self, server: &Server) -> io::Result<()> {
        loop {
            let (stream, _) = self.socket.accept()?;
            let server = server.clone();
            std::thread::spawn(move || {
                if let Ok(port) = handshake(&stream) {
                    server.accept(port, stream.into());
                }
            });
        }
    }
}

fn handshake(mut stream: &UnixStream) -> io::Result<u32> {
    stream.set_read_timeout(Some(HANDSHAKE))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && line.len() < LONGEST_LINE {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let port = port(&line).ok_or(io::ErrorKind::InvalidData)?;
    stream.write_all(format!("OK {port}\n").as_bytes())?;
    Ok(port)
}

fn port(line: &[u8]) -> Option<u32> {
    std::str::from_utf8(line)
        .ok()?
        .strip_prefix("CONNECT ")?
        .strip_suffix('\n')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_port() {
        assert_eq!(port(b"CONNECT 5000\n"), Some(5000));
        assert_eq!(port(b"CONNECT 5000"), None);
        assert_eq!(port(b"CONNECT -1\n"), None);
        assert_eq!(port(b"GET / HTTP/1.1\n"), None);
    }
}
