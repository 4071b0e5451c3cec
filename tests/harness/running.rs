//! A command: put together, started, watched, and killed when its time is up.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::env_vars;
use crate::finished::{Answer, Finished, Refusal};
use crate::process;

/// How long a command may take when the test does not say.
const DEADLINE: Duration = Duration::from_secs(90);
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long its output may stay open after its end.
const DRAIN: Duration = Duration::from_secs(5);

/// A command that has not started.
#[derive(Debug, Clone)]
#[must_use]
pub struct Run {
    program: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    deadline: Duration,
}

impl Run {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self {
            program: vec![program.into()],
            env: Vec::new(),
            stdin: Vec::new(),
            deadline: DEADLINE,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.program.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        self.program.extend(arguments);
        self
    }

    /// Adds `--cold`, which may be there already.
    pub fn cold(self) -> Self {
        if self.program.iter().any(|argument| argument == "--cold") {
            self
        } else {
            self.arg("--cold")
        }
    }

    /// Runs this copy of the program instead.
    pub fn program(mut self, path: &Path) -> Self {
        self.program[0] = path.into();
        self
    }

    /// Runs it through another program, which gets it as its last arguments.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.program.splice(0..0, wrapper.iter().map(OsString::from));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// What it reads on standard input; nothing otherwise.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Adds a `--timeout` for code that is to end by something else before: so many seconds, or as many times more as this
    /// machine is slower.
    pub fn time_enough(self, seconds: u32) -> Self {
        let seconds = f64::from(seconds) * patience();
        self.arg("--timeout").arg(seconds.to_string())
    }

    /// How long it may take.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(self) -> Running {
        let mut child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .envs(self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", self.program[0]));
        let started = Instant::now();
        let mut stdin = child.stdin.take().expect("it was asked for");
        let input = self.stdin;
        // It may end without reading everything.
        thread::spawn(move || stdin.write_all(&input));
        Running {
            stdout: Capture::of(child.stdout.take().expect("it was asked for")),
            stderr: Capture::of(child.stderr.take().expect("it was asked for")),
            child,
            peak_memory: 0,
            started,
            deadline: started + self.deadline.mul_f64(patience()),
        }
    }

    /// Runs it to its end.
    pub fn finish(self) -> Finished {
        self.start().finish()
    }

    /// Runs it with `--json` to its end; it must print an answer.
    pub fn answer(self) -> Answer {
        self.arg("--json").finish().answer()
    }

    /// Runs it with `--json` to its end; it must print an error.
    pub fn refusal(self) -> Refusal {
        self.arg("--json").finish().refusal()
    }
}

/// The factor of `RUNNER_CODES_TEST_PATIENCE`.
pub(crate) fn patience() -> f64 {
    let factor = env::var(env_vars::PATIENCE)
        .ok()
        .and_then(|text| text.parse().ok());
    factor.unwrap_or(1.0)
}

/// A command that has started. Killed, with its process group, when dropped.
#[derive(Debug)]
pub struct Running {
    /// The most memory that it was seen with, in bytes.
    peak_memory: u64,
    child: Child,
    stdout: Capture,
    stderr: Capture,
    started: Instant,
    deadline: Instant,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for text on standard output, and returns how long after the start it came.
    ///
    /// # Panics
    /// It did not come in time.
    pub fn wait_for_stdout(&self, text: &str) -> Duration {
        if !self.stdout.wait_for(text, self.deadline) {
            panic!("{text:?} never came\n{}", self.shown());
        }
        self.started.elapsed()
    }

    /// Waits for the VMM that it starts, and returns its process id.
    ///
    /// # Panics
    /// There was none in time.
    pub fn vmm(&self) -> u32 {
        self.wait_for("it has started a VMM", || self.vmms().first().copied())
    }

    /// Waits until something is there to be had.
    ///
    /// # Panics
    /// It did not come in time.
    pub fn wait_for<T>(&self, what: &str, find: impl Fn() -> Option<T>) -> T {
        loop {
            if let Some(found) = find() {
                return found;
            }
            assert!(
                Instant::now() < self.deadline,
                "never came true: {what}\n{}",
                self.shown()
            );
            thread::sleep(LOOK);
        }
    }

    /// The VMMs that it has started and that live.
    pub fn vmms(&self) -> Vec<u32> {
        let mut children = process::children(self.pid());
        children.retain(|child| {
            let line = process::command_line(*child);
            let program = line.split(' ').next().unwrap_or_default();
            program.contains("qemu-system") || program.contains("firecracker")
        });
        children
    }

    /// What it has complained about so far.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// It cannot be told.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("it lives");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It did not end in time, and was killed; or somebody else still holds its output open.
    pub fn finish(mut self) -> Finished {
        let status = self.wait();
        let drained = Instant::now() + DRAIN;
        let open = !self.stdout.wait_for_end(drained) || !self.stderr.wait_for_end(drained);
        assert!(
            !open,
            "a process that it started holds its output open\n{}",
            self.shown()
        );
        Finished {
            status,
            peak_memory: self.peak_memory,
            stdout: self.stdout.bytes(),
            stderr: self.stderr.bytes(),
            elapsed: self.started.elapsed(),
        }
    }

    fn wait(&mut self) -> ExitStatus {
        loop {
            self.peak_memory = self.peak_memory.max(process::peak_memory(self.pid()));
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            if Instant::now() > self.deadline {
                let after = self.started.elapsed().as_secs();
                panic!("killed after {after} s\n{}", self.shown());
            }
            thread::sleep(LOOK);
        }
    }

    fn shown(&self) -> String {
        format!(
            "stdout: {}\nstderr: {}",
            String::from_utf8_lossy(&self.stdout.bytes()),
            String::from_utf8_lossy(&self.stderr.bytes())
        )
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process_group(self.id(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Output, read as it comes.
#[derive(Debug, Clone)]
struct Capture(Arc<(Mutex<Captured>, Condvar)>);

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    fn of(mut from: impl Read + Send + 'static) -> Self {
        let capture = Self(Arc::default());
        let ours = capture.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let read = from.read(&mut buffer).unwrap_or(0);
                let (captured, changed) = &*ours.0;
                let mut captured = captured.lock().unwrap_or_else(PoisonError::into_inner);
                captured.bytes.extend_from_slice(&buffer[..read]);
                captured.ended = read == 0;
                changed.notify_all();
                if captured.ended {
                    return;
                }
            }
        });
        capture
    }

    fn wait_until(&self, deadline: Instant, done: impl Fn(&Captured) -> bool) -> bool {
        let (captured, changed) = &*self.0;
        let captured = captured.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited =
            changed.wait_timeout_while(captured, left, |captured| !done(captured) && !captured.ended);
        let (captured, _) = waited.unwrap_or_else(PoisonError::into_inner);
        done(&captured)
    }

    fn wait_for(&self, text: &str, deadline: Instant) -> bool {
        self.wait_until(deadline, |captured| {
            String::from_utf8_lossy(&captured.bytes).contains(text)
        })
    }

    fn wait_for_end(&self, deadline: Instant) -> bool {
        self.wait_until(deadline, |captured| captured.ended)
    }

    fn bytes(&self) -> Vec<u8> {
        let captured = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        captured.bytes.clone()
    }
}
