//! `bench http`: the service itself, with a machine that answers at once (`serve --instant-machine`), under load over TCP.
//!
//! ```text
//! connections ── one request after the other, each ─► serve ─► answers by the clock ─► requests/s, p50, p99
//!                                                       └► /proc: what it holds after 10 s and at the end
//! ```
//!
//! The client is one thread of this process, and as simple as can be: it and the service share the processors.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::installed::{HOST_AGENT, RUNTIME_DIR};
use super::interrupt;
use crate::build;

const STATE_DIR: &str = "RUNNER_CODES_STATE_DIR";
/// How long the service may take to listen, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
/// When the first look is taken at what the service holds.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// What is asked of the service.
const LEAST_RATE: f64 = 5000.0;
const MOST_P99: Duration = Duration::from_millis(25);
const MOST_GROWTH: f64 = 1.05;
/// How many times what is admitted comes in.
const OVERLOAD: f64 = 10.0;
const BODY: &str = r#"{"lang":"bash","code":"echo hi"}"#;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each load lasts, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 64, value_name = "NUMBER")]
    connections: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = program()?;
    let work = tempfile::Builder::new().prefix("rc-bench-").tempdir();
    let work = work.context("cannot make a temporary directory")?;
    println!(
        "{:<22} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>6}",
        "load",
        "answers/s",
        "200/s",
        "refused/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "RSS 10 s",
        "RSS end",
        "ratio"
    );
    let service = Service::start(&program, work.path(), "free", &["--instant-machine", "0ms"])?;
    let free = service.load("admitted", &service.key(&[])?, arguments)?;
    let rate = free.rate() / OVERLOAD * 60.0;
    let limited = service.key(&["--rate", &format!("{rate:.0}")])?;
    let over_rate = service.load("10 x a key's rate", &limited, arguments)?;
    drop(service);
    // Four jobs of 50 ms at a time are 80 a second; refusals take as long as an answer without a machine.
    let full = ["--instant-machine", "50ms", "--jobs", "4", "--queue", "8"];
    let service = Service::start(&program, work.path(), "full", &full)?;
    let over_queue = service.load("a queue that is full", &service.key(&[])?, arguments)?;
    drop(service);
    let mut misses = Vec::new();
    let mut expect = |good: bool, what: &str| {
        if !good {
            misses.push(what.to_owned());
        }
    };
    expect(free.rate() >= LEAST_RATE, "5,000 requests/s");
    expect(free.refused.is_empty(), "every request admitted");
    for (load, of) in [
        (&free, &free.good),
        (&over_rate, &over_rate.refused),
        (&over_queue, &over_queue.refused),
    ] {
        expect(percentile(of, 0.99) < MOST_P99, "p99 below 25 ms");
        expect(load.growth() <= MOST_GROWTH, "RSS within 5 % of that after 10 s");
    }
    ensure!(misses.is_empty(), "missed: {}", misses.join(", "));
    Ok(())
}

/// host-agent with a machine that answers at once.
fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(HOST_AGENT) {
        return Ok(path.into());
    }
    let mut cargo = build::cargo();
    cargo.args([
        "build",
        "--release",
        "--package",
        "host-agent",
        "--features",
        "instant-machine",
    ]);
    build::run(&mut cargo)?;
    // Not to be taken for the one that users run.
    let directory = build::target_dir().join("bench");
    fs::create_dir_all(&directory).context("cannot make a directory for the benchmark")?;
    let copy = directory.join("host-agent-instant");
    fs::copy(build::target_dir().join("release/host-agent"), &copy).context("cannot copy host-agent")?;
    Ok(copy)
}

/// A service that is ended on drop.
struct Service {
    process: Child,
    program: PathBuf,
    state: PathBuf,
    address: SocketAddr,
}

impl Service {
    fn start(program: &Path, work: &Path, name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let (state, runtime) = (work.join(format!("{name}-state")), work.join(name));
        let log = work.join(format!("{name}.log"));
        create_key(program, &state, &[])?;
        let process = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env(STATE_DIR, &state)
            .env(RUNTIME_DIR, &runtime)
            .stdout(Stdio::null())
            .stderr(File::create(&log).context("cannot make a log")?)
            .spawn()
            .context("cannot start the service")?;
        let mut service = Self {
            process,
            program: program.to_owned(),
            state,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let address = said
                .split("http://")
                .nth(1)
                .and_then(|rest| rest.split(',').next());
            if let Some(address) = address.and_then(|address| address.parse().ok()) {
                service.address = address;
                return Ok(service);
            }
            ensure!(Instant::now() < deadline, "the service does not listen: {said}");
            thread::sleep(LOOK);
        }
    }

    fn key(&self, arguments: &[&str]) -> anyhow::Result<String> {
        create_key(&self.program, &self.state, arguments)
    }

    /// Loads it and prints a line of the table.
    fn load(&self, name: &str, key: &str, arguments: &Arguments) -> anyhow::Result<Load> {
        interrupt::check()?;
        let request = format!(
            "POST /v1/execute HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        let lasts = Duration::from_secs(arguments.seconds);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let load = runtime.block_on(self.drive(request.into_bytes(), lasts, arguments.connections))?;
        println!("{name:<22} {load}");
        Ok(load)
    }

    async fn drive(&self, request: Vec<u8>, lasts: Duration, connections: usize) -> anyhow::Result<Load> {
        let (began, until) = (Instant::now(), Instant::now() + lasts);
        let clients: Vec<_> = (0..connections)
            .map(|_| tokio::spawn(client(self.address, request.clone(), until)))
            .collect();
        tokio::time::sleep_until((began + FIRST_LOOK.min(lasts / 2)).into()).await;
        let early = self.resident()?;
        tokio::time::sleep_until(until.into()).await;
        let late = self.resident()?;
        let mut load = Load {
            took: began.elapsed(),
            good: Vec::new(),
            refused: Vec::new(),
            early,
            late,
        };
        for client in clients {
            for (status, took) in client.await.context("a client died")?? {
                match status {
                    200 => load.good.push(took),
                    429 | 503 => load.refused.push(took),
                    _ => bail!("an answer has the status {status}"),
                }
            }
        }
        load.good.sort_unstable();
        load.refused.sort_unstable();
        Ok(load)
    }

    /// VmRSS (proc_pid_status(5)), in KiB.
    fn resident(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.context("the service is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        kibibytes.context("the kernel does not say what it holds")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

fn create_key(program: &Path, state: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let made = Command::new(program)
        .args(["api-key", "create", "bench", "--json"])
        .args(arguments)
        .env(STATE_DIR, state)
        .output()
        .context("cannot start host-agent")?;
    let answer: Value = serde_json::from_slice(&made.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&made.stderr);
        format!("no key was made: {said}")
    })?;
    answer["key"]
        .as_str()
        .map(str::to_owned)
        .context("the answer has no key")
}

/// What came of a load. Latencies are sorted.
struct Load {
    took: Duration,
    good: Vec<Duration>,
    refused: Vec<Duration>,
    early: u64,
    late: u64,
}

impl Load {
    fn per_second(&self, number: usize) -> f64 {
        number as f64 / self.took.as_secs_f64()
    }

    fn rate(&self) -> f64 {
        self.per_second(self.good.len())
    }

    fn growth(&self) -> f64 {
        self.late as f64 / self.early as f64
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Of what there is most of: where there are refusals, of them.
        let of = if self.refused.is_empty() {
            &self.good
        } else {
            &self.refused
        };
        let ms = |fraction| percentile(of, fraction).as_secs_f64() * 1e3;
        let mib = |kibibytes: u64| kibibytes as f64 / 1024.0;
        write!(
            f,
            "{:>9.0} {:>9.0} {:>9.0} {:>8.2} {:>8.2} {:>8.2} {:>5.1} MiB {:>5.1} MiB {:>6.3}",
            self.per_second(self.good.len() + self.refused.len()),
            self.rate(),
            self.per_second(self.refused.len()),
            ms(0.5),
            ms(0.99),
            ms(1.0),
            mib(self.early),
            mib(self.late),
            self.growth()
        )
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into what there is"
)]
fn percentile(sorted: &[Duration], fraction: f64) -> Duration {
    let place = (sorted.len() as f64 * fraction).ceil() as usize;
    sorted
        .get(place.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(Duration::MAX)
}

/// One connection: its answers' statuses and how long each took. One that the service closes is made again.
async fn client(
    address: SocketAddr,
    request: Vec<u8>,
    until: Instant,
) -> anyhow::Result<Vec<(u16, Duration)>> {
    let mut answers = Vec::new();
    let mut buffer = Vec::with_capacity(8 << 10);
    while Instant::now() < until {
        let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        while Instant::now() < until {
            let asked = Instant::now();
            stream.write_all(&request).await.context("cannot send")?;
            let answer = timeout(PATIENCE, answer(&mut stream, &mut buffer)).await;
            let (status, closes) = answer.context("no answer")??;
            answers.push((status, asked.elapsed()));
            if closes {
                break;
            }
        }
    }
    Ok(answers)
}

/// Reads an answer: its status, and whether the connection ends with it.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<(u16, bool)> {
    buffer.clear();
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(stream.read_buf(buffer).await? > 0, "the service hung up");
    };
    let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
    let status = head
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .context("no status")?;
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let length: usize = field("content-length:").context("no length")?.parse()?;
    let closes = field("connection:") == Some("close");
    while buffer.len() < end + length {
        ensure!(stream.read_buf(buffer).await? > 0, "the service hung up");
    }
    Ok((status, closes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_there_is() {
        let of: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&of, 0.5), Duration::from_millis(50));
        assert_eq!(percentile(&of, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&of, 1.0), Duration::from_millis(100));
        assert_eq!(percentile(&[], 0.99), Duration::MAX);
    }
}
