//! Runs the programs of [`crate::tools`]: their messages go to the caller line by line, the last ones into the error, and none
//! outlives its caller.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{ImageError, tools};

const KEPT_LINES: usize = 5;
const MAX_LINE: u64 = 4096;
/// How long a program may clean up after the signal to end.
const GRACE: Duration = Duration::from_secs(10);

/// A command for an installed program: no standard input, messages in English.
pub(crate) fn command(program: &'static str) -> Result<Command, ImageError> {
    let path = tools::find(program).ok_or_else(|| ImageError::ToolMissing {
        tools: vec![tools::named(program)],
    })?;
    let mut command = Command::new(path);
    // The programs that it calls in turn may be those of the system that a user's PATH lacks.
    let path = env::join_paths(tools::search_path()).unwrap_or_default();
    command
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    Ok(command)
}

/// Runs to the end; each line on standard error goes to `on_line`. A failure that was a full disk is told as one, of `directory`.
pub(crate) fn run(
    command: &mut Command,
    directory: &Path,
    on_line: impl FnMut(&str),
) -> Result<(), ImageError> {
    Running::spawn(command)?.finish(directory, on_line)
}

/// Runs to the end and returns how it ended and its standard output, for programs whose failures mean something. Of the output, as text,
/// 1 MiB is kept.
pub(crate) fn ended(command: &mut Command) -> Result<(ExitStatus, String), ImageError> {
    const LIMIT: u64 = 1024 * 1024;
    let mut running = Running::spawn(command.stdout(Stdio::piped()))?;
    let stdout = running.child.stdout.take().expect("standard output is piped");
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What cannot be read is missing in the output, which is for people.
        let _ = stdout.take(LIMIT).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let (status, _) = running.wait(|_| {})?;
    let output = reader
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok((status, output))
}

/// A program under way; ended and reaped when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    program: String,
    stderr: Option<ChildStderr>,
    ending: Signal,
    ended: bool,
}

impl Running {
    /// Starts it with standard error piped; standard output and input are as `command` says. When it is to end early, it gets SIGTERM.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, ImageError> {
        Self::spawn_ended_by(Signal::TERM, command)
    }

    /// The same with another signal, for programs that ignore SIGTERM.
    pub(crate) fn spawn_ended_by(ending: Signal, command: &mut Command) -> Result<Self, ImageError> {
        let path = Path::new(command.get_program()).to_owned();
        let program = path
            .file_name()
            .unwrap_or(OsStr::new("?"))
            .to_string_lossy()
            .into_owned();
        tracing::debug!(?command, "run");
        // mmdebstrap signals its whole process group when it gives up.
        command.process_group(0);
        end_with_this_thread(ending, command);
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(ImageError::io("run", &path))?;
        let stderr = child.stderr.take();
        Ok(Self {
            child,
            program,
            stderr,
            ending,
            ended: false,
        })
    }

    /// The name that errors give it, where it was started by another program.
    pub(crate) fn called(self, name: &str) -> Self {
        let mut named = self;
        named.program = name.to_owned();
        named
    }

    /// Waits for its end while its messages go to `on_line`; it must succeed.
    pub(crate) fn finish(mut self, directory: &Path, on_line: impl FnMut(&str)) -> Result<(), ImageError> {
        let (status, complaint) = self.wait(on_line)?;
        if status.success() {
            return Ok(());
        }
        Err(self.failure(status, complaint, directory))
    }

    fn wait(&mut self, mut on_line: impl FnMut(&str)) -> Result<(ExitStatus, Complaint), ImageError> {
        let mut complaint = Complaint::default();
        if let Some(stderr) = self.stderr.take() {
            for_each_line(stderr, |line| {
                on_line(line);
                complaint.add(line);
            });
        }
        let status = self
            .child
            .wait()
            .map_err(ImageError::io("wait for", &self.program))?;
        self.ended = true;
        Ok((status, complaint))
    }

    fn failure(&self, status: ExitStatus, complaint: Complaint, directory: &Path) -> ImageError {
        if complaint.disk_full {
            return ImageError::DiskFull {
                path: directory.to_owned(),
            };
        }
        ImageError::ToolFailed {
            program: self.program.clone(),
            status: status.to_string(),
            output: Vec::from(complaint.lines).join(" / "),
        }
    }

    fn terminate(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, self.ending);
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.terminate();
        }
    }
}

/// Lets the program have the signal when the thread that starts it ends, by whatever means: it is outside the terminal's process
/// group.
#[expect(
    unsafe_code,
    reason = "there is no safe way to set a parent-death signal on a child"
)]
fn end_with_this_thread(ending: Signal, command: &mut Command) {
    let before_exec = move || Ok(rustix::process::set_parent_process_death_signal(Some(ending))?);
    // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(before_exec) };
}

/// Reads to the end of the stream. Lines over 4 KiB come in pieces; what is not text is replaced.
pub(crate) fn for_each_line(stream: impl Read, mut on_line: impl FnMut(&str)) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => on_line(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

/// What of a program's messages goes into an error: the last lines, without those that only inform.
#[derive(Default)]
struct Complaint {
    lines: VecDeque<String>,
    disk_full: bool,
}

impl Complaint {
    fn add(&mut self, line: &str) {
        self.disk_full |= line.contains("No space left on device");
        if line.is_empty() || line.starts_with("I: ") {
            return;
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = command("sh").expect("sh is installed");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_carries_the_last_lines() {
        let script = "for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 3";
        let error = run(&mut shell(script), Path::new("/x"), |_| {}).expect_err("it fails");
        let text = error.to_string();
        assert!(
            text.starts_with("sh failed (exit status: 3): line 3 / "),
            "{text}"
        );
    }

    #[test]
    fn a_full_disk_is_recognised() {
        let script = "echo 'write: No space left on device' >&2; exit 1";
        let error = run(&mut shell(script), Path::new("/x"), |_| {}).expect_err("it fails");
        assert!(matches!(error, ImageError::DiskFull { .. }), "{error}");
    }

    #[test]
    fn an_end_comes_with_the_output() {
        let (status, output) = ended(&mut shell("echo out; exit 4")).expect("it runs");
        assert_eq!((status.code(), output.as_str()), (Some(4), "out\n"));
    }

    #[test]
    fn a_dropped_program_ends() {
        let started = Instant::now();
        drop(Running::spawn(&mut shell("exec sleep 60")).expect("it starts"));
        assert!(started.elapsed() < GRACE);
    }
}
