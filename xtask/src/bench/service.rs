//! `host-agent serve` in a runtime directory of its own, and a client that adds nothing to what is measured.
//!
//! ```text
//! Service::start ─► settled (pool full and warm) ─► execute: one connection, one POST, its answer by the clock
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::installed::{Installed, Interrupted, RUNTIME_DIR, children};
use super::interrupt;
use super::split::milliseconds;

/// How long a service may take to come up or to fill its pool. It may have a template to build first.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(10);

/// What a service keeps ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) pool: u64,
    pub(super) prespawned: u64,
}

/// A service that is ended on drop.
pub(super) struct Service {
    process: Interrupted,
    /// Its runtime directory.
    pub(super) dir: PathBuf,
    ready: Ready,
    /// Whether machines are warmed before they are handed out: emulated ones are.
    warms: bool,
    log: PathBuf,
}

/// One answer.
pub(super) struct Answer {
    /// Connect to last byte, in milliseconds.
    pub(super) wall: f64,
    pub(super) body: Value,
}

impl Answer {
    /// One of the answer's timings, in milliseconds.
    pub(super) fn timing(&self, name: &str) -> anyhow::Result<f64> {
        self.body["timings"][name]
            .as_f64()
            .with_context(|| format!("the answer has no timings.{name}: {}", self.body))
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) resident_kib: u64,
    pub(super) descriptors: usize,
    pub(super) children: usize,
}

impl Service {
    /// Starts one and waits until it has all that it is to keep ready.
    pub(super) fn start(installed: &Installed, name: &str, ready: Ready) -> anyhow::Result<Self> {
        let dir = installed.work().join(name);
        let log = installed.work().join(format!("{name}.log"));
        let (pool, prespawned) = (ready.pool.to_string(), ready.prespawned.to_string());
        let mut command = installed.command(&["serve", "--pool", &pool, "--prespawned", &prespawned]);
        command
            .env(RUNTIME_DIR, &dir)
            .stdout(Stdio::null())
            .stderr(File::create(&log).context("cannot make a log")?);
        let process = Interrupted(command.spawn().context("cannot start host-agent serve")?);
        let mut service = Self {
            process,
            dir,
            ready,
            warms: installed.emulates()?,
            log,
        };
        service.settled()?;
        Ok(service)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// The state of the pool of `base`; nothing before there is one.
    pub(super) fn pool(&self) -> Option<Value> {
        let answer = self.request("GET", "/v1/pool", "").ok()?;
        let keys = answer.body["keys"].as_array()?;
        keys.iter().find(|key| key["key"] == "base").cloned()
    }

    /// Waits until the pool is full and warm, and nothing is under way or ending.
    pub(super) fn settled(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            interrupt::check()?;
            let pool = self.pool();
            if pool.as_ref().is_some_and(|pool| self.is_settled(pool)) {
                return Ok(());
            }
            if let Some(status) = self.process.0.try_wait()? {
                bail!("host-agent serve ended with {status}: {}", self.words());
            }
            ensure!(
                Instant::now() < end,
                "the pool is not full: {pool:?}: {}",
                self.words()
            );
            thread::sleep(LOOK);
        }
    }

    fn is_settled(&self, pool: &Value) -> bool {
        let count = |name: &str| pool[name].as_u64().unwrap_or_default();
        let warm = !self.warms || count("warm") == self.ready.pool;
        let under_way: u64 = ["restoring", "spawning", "leased", "ending"]
            .map(count)
            .iter()
            .sum();
        count("idle") == self.ready.pool
            && count("prespawned") == self.ready.prespawned
            && warm
            && under_way == 0
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs `code` in Python, and expects that to go well.
    pub(super) fn execute(&self, code: &str) -> anyhow::Result<Answer> {
        let job = json!({ "lang": "python", "code": code, "timeout": 60 });
        let answer = self.request("POST", "/v1/execute", &job.to_string())?;
        ensure!(
            answer.body["exit_code"] == 0,
            "the job went wrong: {}",
            answer.body
        );
        Ok(answer)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let began = Instant::now();
        let mut stream = UnixStream::connect(self.dir.join("agent.sock")).context("nobody listens")?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("no answer")?;
        let wall = milliseconds(began.elapsed());
        Ok(Answer {
            wall,
            body: body_of(&answer)?,
        })
    }

    pub(super) fn holdings(&self) -> anyhow::Result<Holdings> {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let status = fs::read_to_string(proc.join("status")).context("the service is gone")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|size| size.trim().strip_suffix("kB")?.trim().parse().ok());
        Ok(Holdings {
            resident_kib: resident.context("no VmRSS")?,
            descriptors: fs::read_dir(proc.join("fd"))?.count(),
            children: children(self.pid()).len(),
        })
    }
}

/// The JSON of a good HTTP answer.
fn body_of(answer: &[u8]) -> anyhow::Result<Value> {
    let text = std::str::from_utf8(answer).context("the answer is no text")?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .with_context(|| format!("the answer is no HTTP: {text:?}"))?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "the service refused: {head}\n{body}"
    );
    serde_json::from_str(body).context("the answer is no JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_answers_and_others() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"exit_code\":0}";
        assert_eq!(body_of(good).unwrap(), json!({ "exit_code": 0 }));
        let refused = body_of(b"HTTP/1.1 503 Busy\r\n\r\n{\"code\":\"busy\"}").unwrap_err();
        assert!(refused.to_string().contains("busy"), "{refused}");
        assert!(body_of(b"").is_err());
        assert!(body_of(b"HTTP/1.1 200 OK\r\n\r\n{").is_err());
    }
}
