//! A guest that lies: PID 1 of a machine in the tests. It says a proper `hello` (unless it lies there already), and answers the
//! first job as the file `/behaviour` of its initramfs says.
//!
//! ```text
//! host ──► serial port with the multiplexer, or vsock ──► frame ──► Behaviour ──► bytes, whatever they are
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use protocol::control::{Confirmed, ControlRequest, ControlResponse, Hello, Identity, Parked, VERSION};
use protocol::frame::{FrameDecoder, encode, encode_message};
use protocol::limits::{CONTROL_PORT, JOB_PORT, MAX_FILE_BYTES, MAX_FRAME};
use protocol::mux::{Mux, MuxEvent, Side};
use protocol::{ErrorCode, FileSpec, HostError, JobRequest, JobResponse, Language, Termination};
use rustix::mount::{MountFlags, mount};

fn main() {
    for (filesystem, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = fs::create_dir_all(at);
        let _ = mount(filesystem, at, filesystem, MountFlags::empty(), None);
    }
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let behaviour = fs::read_to_string("/behaviour").expect("the test wrote it");
    println!("The hostile guest will: {behaviour}");
    if command_line.contains("runner.transport=vsock") {
        load_modules(&["core", "vsock"]);
        on_vsock(&behaviour);
    } else {
        load_modules(&["core", "serial"]);
        on_serial_port(&behaviour);
    }
    silent();
}

fn load_modules(sets: &[&str]) {
    let order = fs::read_to_string("/modules/order").unwrap_or_default();
    for (set, file) in order.lines().filter_map(|line| line.split_once(' ')) {
        if sets.contains(&set) {
            let module = File::open(format!("/modules/{}", file.trim())).expect("it is in the archive");
            // One that is there already, or not needed, is no matter.
            let _ = rustix::system::finit_module(module, c"", 0);
        }
    }
}

fn silent() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Between two bytes that drip.
const DRIP: Duration = Duration::from_millis(100);

/// What goes back on a stream: these bytes, again and again if so said, and then perhaps the end of the stream.
struct Answer {
    bytes: Vec<u8>,
    /// One byte after the other, with pauses.
    drip: bool,
    /// On the serial port itself instead of in a stream.
    bypass: bool,
    forever: bool,
    close: bool,
}

impl Answer {
    fn bytes(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            drip: false,
            bypass: false,
            forever: false,
            close: false,
        }
    }
}

fn answer(behaviour: &str, port: u32, request: &[u8]) -> Answer {
    if port == CONTROL_PORT {
        return match (
            serde_json::from_slice(request).expect("the host sends what it should"),
            behaviour,
        ) {
            (ControlRequest::Park(_), _) => {
                Answer::bytes(message(&ControlResponse::Parked(Parked::default())))
            }
            (ControlRequest::Identity(identity), _) => Answer::bytes(message(&confirm(identity, behaviour))),
            (_, "hang up on every connection") => Answer {
                close: true,
                ..Answer::bytes(Vec::new())
            },
            (_, "lie in hello") => Answer::bytes(frame(br#"{"type":"hello","version":"one"}"#)),
            (_, "another version") => Answer::bytes(hello(VERSION + 1)),
            _ => Answer::bytes(hello(VERSION)),
        };
    }
    let job: JobRequest = serde_json::from_slice(request).expect("the host sends what it should");
    let proper = JobResponse {
        trace_id: job.trace_id,
        stdout: "hello from a liar\n".to_owned(),
        termination: Some(Termination::Exit),
        ..JobResponse::default()
    };
    match behaviour {
        // A guest that is to be frozen runs a job before.
        "answer properly" | "refuse an identity" | "take on another identity" | "confirm no identity" => {
            Answer::bytes(message(&proper))
        }
        "oversized frame" => Answer::bytes(u32::MAX.to_be_bytes().to_vec()),
        "truncated frame" => Answer {
            close: true,
            ..Answer::bytes([&1000_u32.to_be_bytes()[..], b"{\"trace_id\""].concat())
        },
        "a frame that never comes" => Answer::bytes((MAX_FRAME as u32).to_be_bytes().to_vec()),
        "drip" => Answer {
            drip: true,
            ..Answer::bytes(frame(&json_of(&JobResponse {
                stdout: "x".repeat(100_000),
                ..proper
            })))
        },
        "hang up" => Answer {
            close: true,
            ..Answer::bytes(Vec::new())
        },
        "a flood of events" => Answer {
            forever: true,
            ..Answer::bytes(
                frame(format!(r#"{{"event":"stdout","data":"{}"}}"#, "x".repeat(100)).as_bytes()).repeat(100),
            )
        },
        "a flood of empty events" => Answer {
            forever: true,
            ..Answer::bytes(frame(br#"{"event":"stdout","data":""}"#))
        },
        "started again and again" => Answer {
            forever: true,
            ..Answer::bytes(frame(br#"{"event":"started"}"#))
        },
        "tiny parts" => Answer::bytes(frame(
            format!(r#"{{"trace_id":"t","files":[{}{{}}]}}"#, "{},".repeat(2 << 20)).as_bytes(),
        )),
        "deep JSON" => Answer::bytes(frame("[".repeat(1 << 20).as_bytes())),
        "an endless name" => Answer::bytes(frame(
            format!(
                r#"{{"trace_id":"t","timings":{{"interpreter":"{}"}}}}"#,
                "x".repeat(1 << 20)
            )
            .as_bytes(),
        )),
        "bytes that are no text" => Answer::bytes(frame(b"{\"trace_id\":\"\xff\xfe\"}")),
        "a crash" => Answer::bytes(message(&JobResponse {
            termination: Some(Termination::VmCrash {
                console: vec!["all is well".to_owned(); 100],
            }),
            ..proper
        })),
        "a drain" => Answer::bytes(message(&JobResponse {
            termination: Some(Termination::HostDrain),
            ..proper
        })),
        "an end that there is not" => Answer::bytes(frame(
            &String::from_utf8(json_of(&proper))
                .expect("JSON is text")
                .replace(r#""kind":"exit""#, r#""kind":"escaped""#)
                .into_bytes(),
        )),
        "an exit code out of range" => Answer::bytes(message(&JobResponse {
            exit_code: 9999,
            ..proper
        })),
        "a climbing file" => returned(proper, &["../../../../etc/cron.d/x"], "x"),
        "a file twice" => returned(proper, &["out", "out"], "x"),
        "a file too large" => returned(proper, &["out"], &"x".repeat(MAX_FILE_BYTES + 1)),
        "more output than asked for" => Answer::bytes(message(&JobResponse {
            stdout: "x".repeat(3 << 20),
            ..proper
        })),
        "flood the console" => {
            thread::spawn(|| {
                let mut console = OpenOptions::new()
                    .write(true)
                    .open("/dev/console")
                    .expect("there is one");
                loop {
                    let _ = console.write_all(&[b'x'; 4096]);
                }
            });
            Answer::bytes(message(&proper))
        }
        "not JSON" => Answer::bytes(frame(b"\x7fELF, not JSON")),
        "another job's answer" => Answer::bytes(message(&JobResponse {
            trace_id: "somebody-else".to_owned(),
            ..proper
        })),
        "a file nobody asked for" => returned(proper, &["/etc/passwd"], "root::0:0::/:/bin/sh\n"),
        "output without end" => Answer {
            forever: true,
            ..Answer::bytes(frame(
                format!(r#"{{"event":"stdout","data":"{}"}}"#, "x".repeat(60_000)).as_bytes(),
            ))
        },
        "garbage on the port" => Answer {
            bypass: true,
            ..Answer::bytes(vec![0, 0xff, 3, 7, 0, 9, 9, 9, 0])
        },
        // "answer no job"
        _ => Answer::bytes(Vec::new()),
    }
}

/// These files, which nobody asked for in that way.
fn returned(proper: JobResponse, paths: &[&str], content: &str) -> Answer {
    let file = |path: &&str| FileSpec {
        path: (*path).to_owned(),
        content: Some(content.to_owned()),
        ..FileSpec::default()
    };
    Answer::bytes(message(&JobResponse {
        files: paths.iter().map(file).collect(),
        ..proper
    }))
}

fn json_of(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("it is a message")
}

/// After it was restored.
fn confirm(identity: Identity, behaviour: &str) -> ControlResponse {
    match behaviour {
        "refuse an identity" => {
            ControlResponse::Error(HostError::new(ErrorCode::Internal, "I stay who I am"))
        }
        "take on another identity" => ControlResponse::Identity(Confirmed {
            machine_id: "0".repeat(32),
            realtime_ns: identity.realtime_ns,
        }),
        "confirm no identity" => ControlResponse::Shutdown,
        _ => ControlResponse::Identity(Confirmed {
            machine_id: identity.machine_id,
            realtime_ns: identity.realtime_ns,
        }),
    }
}

fn hello(version: u32) -> Vec<u8> {
    message(&ControlResponse::Hello(Hello {
        version,
        runner_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: "hostile".to_owned(),
        features: ["stream", "files", "limits", "base64"]
            .map(str::to_owned)
            .to_vec(),
        languages: Language::ALL
            .into_iter()
            .map(|language| (language, "/bin/true".to_owned()))
            .collect(),
        ..Hello::default()
    }))
}

fn frame(payload: &[u8]) -> Vec<u8> {
    encode(payload).expect("it is short")
}

fn message(message: &impl serde::Serialize) -> Vec<u8> {
    encode_message(message).expect("it is short")
}

fn on_vsock(behaviour: &str) {
    let listeners = [JOB_PORT, CONTROL_PORT].map(|port| {
        let listener = vsock::VsockListener::bind_with_cid_port(vsock::VMADDR_CID_ANY, port);
        (port, listener.expect("vsock is there"))
    });
    if behaviour == "never answer" {
        silent();
    }
    for (port, listener) in listeners {
        let behaviour = behaviour.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(&behaviour, port, stream);
            }
        });
    }
}

fn serve(behaviour: &str, port: u32, mut stream: impl Read + Write) -> std::io::Result<()> {
    let mut decoder = FrameDecoder::default();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        decoder.push(&buffer[..read]);
        while let Some(request) = decoder.next_frame().expect("the host is honest") {
            let answer = answer(behaviour, port, &request);
            loop {
                if answer.drip {
                    for byte in &answer.bytes {
                        stream.write_all(&[*byte])?;
                        thread::sleep(DRIP);
                    }
                } else {
                    stream.write_all(&answer.bytes)?;
                }
                if !answer.forever {
                    break;
                }
            }
            if answer.close {
                return Ok(());
            }
        }
    }
}

fn on_serial_port(behaviour: &str) {
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(find_port())
        .expect("the port opens");
    if behaviour == "never answer" {
        silent();
    }
    let mux = Mux::new(Side::Guest);
    Serial { port, mux, behaviour }.serve();
}

fn find_port() -> PathBuf {
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports")
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == "runner" {
                return PathBuf::from("/dev").join(entry.file_name());
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

struct Serial<'a> {
    port: File,
    mux: Mux,
    behaviour: &'a str,
}

impl Serial<'_> {
    fn serve(mut self) {
        let mut streams: Vec<Option<(u32, FrameDecoder)>> = (0..=u8::MAX).map(|_| None).collect();
        loop {
            self.receive();
            while let Some(event) = self.mux.next_event() {
                match event {
                    MuxEvent::Opened { stream, port } => {
                        streams[usize::from(stream)] = Some((port, FrameDecoder::default()));
                    }
                    MuxEvent::Data { stream, bytes } => {
                        self.mux.consumed(stream, bytes.len());
                        let Some((port, decoder)) = &mut streams[usize::from(stream)] else {
                            continue;
                        };
                        decoder.push(&bytes);
                        while let Some(request) = decoder.next_frame().expect("the host is honest") {
                            self.send(stream, &answer(self.behaviour, *port, &request));
                        }
                    }
                    MuxEvent::Closed { stream } => self.mux.close(stream),
                    MuxEvent::Restarted | MuxEvent::Reset { .. } => {}
                }
            }
            self.flush();
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        let read = self.port.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            thread::sleep(Duration::from_millis(5)); // The host is not connected.
        }
        let _ = self.mux.receive(&buffer[..read]);
    }

    fn send(&mut self, stream: u8, answer: &Answer) {
        if answer.bypass {
            let _ = self.port.write_all(&answer.bytes);
            return;
        }
        loop {
            let mut rest = &answer.bytes[..];
            while !rest.is_empty() {
                let piece = if answer.drip { &rest[..1] } else { rest };
                let taken = self.mux.send(stream, piece);
                rest = &rest[taken..];
                self.flush();
                if answer.drip {
                    thread::sleep(DRIP);
                }
                if taken == 0 {
                    self.receive(); // for credit
                }
            }
            if !answer.forever {
                break;
            }
        }
        if answer.close {
            self.mux.close(stream);
        }
    }

    fn flush(&mut self) {
        while let Some(frame) = self.mux.transmit() {
            let _ = self.port.write_all(&frame);
        }
    }
}
