//! A `host-agent serve` under test, and as much HTTP as it takes to talk to it.
//!
//! HTTP/1.0 (RFC 1945): an answer ends where the connection does, so that a stream of events needs no decoding.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::finished::{Answer, Finished, Refusal};
use crate::running::{Running, patience};

/// How long an answer, or whatever else is waited for, may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// What it says when it answers.
const LISTENING: &str = "Listening at ";
/// How often the service is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A service. Killed when dropped; a test that [stops](Self::stop) it sees to it that nothing is left.
#[derive(Debug)]
pub struct Service {
    running: Running,
    socket: PathBuf,
}

impl Service {
    /// Waits until it answers. Its socket is there a little before that, and also when it then finds that it cannot serve.
    pub(crate) fn of(running: Running, socket: PathBuf) -> Self {
        let mut service = Self { running, socket };
        let deadline = Instant::now() + DEADLINE.mul_f64(patience());
        // The last that it says of where it listens, to the end of the line.
        let listening = format!("{LISTENING}{}\n", service.socket.display());
        while !service.running.stderr_text().contains(&listening) {
            let ended = service.running.has_ended();
            let said = service.running.stderr_text();
            assert!(!ended && Instant::now() < deadline, "no service: {said}");
            thread::sleep(LOOK);
        }
        service
    }

    /// The process.
    pub fn process(&self) -> &Running {
        &self.running
    }

    /// `GET PATH`
    pub fn get(&self, path: &str) -> Reply {
        Reply::read(self.send("GET", path, b"", ""))
    }

    /// `POST PATH`
    pub fn post(&self, path: &str, body: &[u8]) -> Reply {
        Reply::read(self.send("POST", path, body, ""))
    }

    /// A job, to be answered with its events; but not this one.
    pub fn events_refused(&self, job: &Value) -> Reply {
        let accept = "Accept: text/event-stream\r\n";
        Reply::read(self.send("POST", "/v1/execute", job.to_string().as_bytes(), accept))
    }

    /// Where it listens for clients with a key.
    ///
    /// # Panics
    /// It does not.
    pub fn address(&self) -> SocketAddr {
        let said = self.running.stderr_text();
        let address = said
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split(',').next());
        let address = address.and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address in {said}"))
    }

    /// A request over TCP, with these header lines.
    pub fn over_tcp(&self, method: &str, path: &str, body: &[u8], headers: &str) -> Reply {
        let connection = TcpStream::connect(self.address()).expect("the service listens");
        let deadline = Some(DEADLINE.mul_f64(patience()));
        connection
            .set_read_timeout(deadline)
            .expect("a socket takes a timeout");
        Reply::read(send(connection, method, path, body, headers))
    }

    /// Runs a job.
    ///
    /// # Panics
    /// It was not answered.
    pub fn execute(&self, job: &Value) -> Answer {
        let reply = self.post("/v1/execute", job.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        Answer { json: reply.json() }
    }

    /// Runs a job and returns its events as they come, the last being `result` or `error`.
    pub fn events(&self, job: &Value) -> impl Iterator<Item = Moment> + use<> {
        let connection = self.send(
            "POST",
            "/v1/execute",
            job.to_string().as_bytes(),
            "Accept: text/event-stream\r\n",
        );
        let mut name = String::new();
        connection.lines().map_while(Result::ok).filter_map(move |line| {
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            }
            let data = line.strip_prefix("data: ")?;
            Some(Moment {
                at: SystemTime::now(),
                event: name.clone(),
                data: serde_json::from_str(data).expect("data is JSON"),
            })
        })
    }

    /// What `/v1/pool` says of that template.
    ///
    /// # Panics
    /// It says nothing of it.
    pub fn pool(&self, template: &str) -> Value {
        let status = self.get("/v1/pool").json();
        let keys = status["keys"].as_array().cloned().unwrap_or_default();
        let found = keys.into_iter().find(|key| key["key"] == template);
        found.unwrap_or_else(|| panic!("no {template} in {status}"))
    }

    /// Waits until it has a snapshot of everything, and as many machines of `base` ready as it wants.
    pub fn wait_until_ready(&self) {
        self.wait_until("it is ready", || {
            let slow = self.get("/readyz").json()["slow"].clone();
            let keys = self.get("/v1/pool").json()["keys"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let full =
                |key: &&Value| key["key"] == "base" && key["idle"] == key["target"] && key["restoring"] == 0;
            slow == serde_json::json!({}) && keys.iter().any(|key| full(&key))
        });
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// It did not become so in time.
    pub fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE.mul_f64(patience());
        while !is_so() {
            let said = self.running.stderr_text();
            assert!(Instant::now() < deadline, "never came true: {what}\n{said}");
            thread::sleep(LOOK);
        }
    }

    /// Ends it as an operator does, with SIGTERM.
    ///
    /// # Panics
    /// It did not end well.
    pub fn stop(self) {
        self.running.signal(Signal::TERM);
        self.ended();
    }

    /// Waits for its end, which was asked for.
    ///
    /// # Panics
    /// It did not end well.
    pub fn ended(self) {
        let _ = self.running.finish().succeeded();
        assert!(!self.socket.exists(), "the socket is left");
    }

    /// Ends it with SIGKILL.
    pub fn kill(self) -> Finished {
        self.running.signal(Signal::KILL);
        self.running.finish()
    }

    fn send(&self, method: &str, path: &str, body: &[u8], headers: &str) -> BufReader<UnixStream> {
        let connection = UnixStream::connect(&self.socket).expect("the service listens");
        let deadline = Some(DEADLINE.mul_f64(patience()));
        connection
            .set_read_timeout(deadline)
            .expect("a socket takes a timeout");
        send(connection, method, path, body, headers)
    }
}

fn send<S: Read + Write>(mut to: S, method: &str, path: &str, body: &[u8], headers: &str) -> BufReader<S> {
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A service that refuses a request need not read all of it.
    let _ = to.write_all(head.as_bytes()).and_then(|()| to.write_all(body));
    BufReader::new(to)
}

/// An event of a job.
#[derive(Debug)]
pub struct Moment {
    /// When it came.
    pub at: SystemTime,
    /// Its name.
    pub event: String,
    /// What it says.
    pub data: Value,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The content type; empty without one.
    pub content_type: String,
    /// All headers, with their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The rest.
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads it to the end of the connection.
    ///
    /// # Panics
    /// There is none.
    pub fn read(mut connection: impl BufRead) -> Self {
        let mut line = || {
            let mut line = String::new();
            connection.read_line(&mut line).expect("an answer");
            line.trim_end().to_owned()
        };
        let status = line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = BTreeMap::new();
        while let Some((name, value)) = line().split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut body = Vec::new();
        // What was not read of a request that was refused shows as an error after the answer.
        let _ = connection.read_to_end(&mut body);
        Self {
            status: status.expect("a status line"),
            content_type: headers.get("content-type").cloned().unwrap_or_default(),
            headers,
            body,
        }
    }

    /// A header that is a number.
    ///
    /// # Panics
    /// There is none.
    pub fn number(&self, header: &str) -> u64 {
        let number = self.headers.get(header).and_then(|value| value.parse().ok());
        number.unwrap_or_else(|| panic!("no number {header} in {:?}", self.headers))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// It must be a problem with this status (RFC 9457), whole and with our own fields.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn refusal(&self, status: u16) -> Refusal {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.content_type, "application/problem+json", "{}", self.text());
        let json = self.json();
        assert_eq!(json["status"], status, "{json}");
        let text = |field: &str| match json[field].as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => panic!("{field} is missing in {json}"),
        };
        Refusal {
            code: text("code"),
            cause: text("cause"),
            remedy: text("remedy"),
        }
    }
}
