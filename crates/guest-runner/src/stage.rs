//! The processes between the runner and a job's code. Each is the runner's own binary, single-threaded, and knows only
//! what came over its control socket.
//!
//! ```text
//! runner ──spawn──► outer            leaves the guest's namespaces, waits for inner, ends
//!                     └─fork─► inner  PID 1 of the job: builds its view, starts and reaps, kills what is left
//!                                └─fork─► code   in the job's cgroup, becomes the job's user, execs
//!
//! control socket   runner → inner   Setup, the job's request as it came; closed: end the job now
//!                  inner → runner   Report…
//! ```
//!
//! When inner ends the kernel kills every process of its namespace, and inner dies with outer: nothing of a job outlives
//! it, however it forked.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::frame::{decode_message, encode_message, read_frame};
use protocol::{ErrorCode, FileSpec, HostError, JobRequest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, chdir, set_parent_process_death_signal, setpriority_process,
    setsid, umask, wait,
};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::confine::identity::User;
use crate::confine::namespaces::{self, JOB_DIRECTORY, View};
use crate::confine::rlimits::Rlimits;
use crate::failure::{Doing as _, Failure};
use crate::files;
use crate::language::{PATH, Program, RUBY_PRELUDE};
use crate::outcome::Exit;
use crate::sys::{self, Fork};

/// How often processes are counted where no cgroup does it.
const COUNTING: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The argument that makes the runner's binary a stage.
pub(crate) const ARGUMENT: &str = "--stage";

/// What a stage is to make. The job's request follows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) view: View,
    pub(crate) user: User,
    pub(crate) program: Program,
    /// The job's cgroup, where there is one.
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) rlimits: Rlimits,
}

/// What a stage tells the runner. Times are of [`clock::now`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The code did not run, and will not.
    Refused(HostError),
    /// The code, or its compiler, is running.
    Started { at: Duration },
    /// The compiler is done and the code is running.
    Compiled { at: Duration },
    /// The files that were to be collected.
    Files(Vec<FileSpec>),
    /// The last report: no process of the job is left.
    Ended(End),
}

/// How a job ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) at: Duration,
    pub(crate) status: i32,
    /// `status` is a signal's number and not an exit code.
    pub(crate) signalled: bool,
    /// Processor time of what was waited for.
    pub(crate) cpu: Duration,
    /// The most memory that one process had, in bytes.
    pub(crate) peak_bytes: u64,
    /// It had all the processes that it may have, where no cgroup watches that.
    pub(crate) out_of_processes: bool,
}

impl End {
    pub(crate) const fn exit(&self) -> Exit {
        if self.signalled {
            Exit::Signal(self.status)
        } else {
            Exit::Code(self.status)
        }
    }
}

/// The outer stage: everything that it needs comes over standard input, which is the control socket.
pub(crate) fn main() -> ! {
    let mut control = None;
    let outcome = sys::take_standard_streams()
        .doing(|| "take the standard streams".to_owned())
        .map_err(HostError::from)
        .and_then(|[socket, stdout, stderr]| outer(control.insert(UnixStream::from(socket)), stdout, stderr));
    if let (Err(error), Some(control)) = (outcome, &mut control) {
        report(control, &Report::Refused(error));
    }
    sys::exit(0)
}

fn outer(control: &mut UnixStream, stdout: OwnedFd, stderr: OwnedFd) -> Result<(), HostError> {
    let setup: Setup = receive(control)?;
    let job: JobRequest = receive(control)?;
    set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "tie the stage to the runner".to_owned())?;
    let cgroup = setup.cgroup.as_ref().map(|path| {
        let opened = openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        opened.doing(|| format!("open {}", path.display()))
    });
    let cgroup = cgroup.transpose()?;
    namespaces::leave()?;
    match sys::fork().doing(|| "fork".to_owned())? {
        Fork::Child => {
            let inner = Inner {
                control,
                setup: &setup,
                job: &job,
                cgroup,
                stdout,
                stderr,
                out_of_processes: false,
            };
            inner.main()
        }
        Fork::Parent(_) => {
            drop((stdout, stderr));
            while wait(WaitOptions::empty()).is_err_and(|error| error == Errno::INTR) {}
            Ok(())
        }
    }
}

fn receive<T: serde::de::DeserializeOwned>(control: &mut UnixStream) -> Result<T, HostError> {
    let internal =
        |error: &dyn std::fmt::Display| HostError::new(ErrorCode::Internal, format!("stage: {error}"));
    let payload = read_frame(control).map_err(|error| internal(&error))?;
    let payload = payload.ok_or_else(|| internal(&"the runner sent nothing"))?;
    decode_message(&payload).map_err(|error| internal(&error))
}

fn report(control: &mut UnixStream, report: &Report) {
    // A runner that is gone needs no report: then the control socket has ended, and with it the job.
    if let Ok(frame) = encode_message(report) {
        let _ = control.write_all(&frame);
    }
}

/// PID 1 of a job's namespaces.
struct Inner<'a> {
    control: &'a mut UnixStream,
    setup: &'a Setup,
    job: &'a JobRequest,
    cgroup: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    out_of_processes: bool,
}

impl Inner<'_> {
    fn main(mut self) -> ! {
        let last = match self.run() {
            Ok(end) => Report::Ended(end),
            Err(error) => Report::Refused(error),
        };
        report(self.control, &last);
        self.clean();
        sys::exit(0)
    }

    fn run(&mut self) -> Result<End, HostError> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .doing(|| "tie the job to its stage".to_owned())?;
        umask(Mode::from_raw_mode(0o022));
        let children = sys::signals_as_file(&[libc::SIGCHLD]).doing(|| "watch for children".to_owned())?;
        self.setup.view.enter()?;
        self.own_files()?;
        let stdin = self.stdin()?;
        let mut status = Exit::Code(0);
        if let Some(compile) = &self.setup.program.compile {
            let main = self.start(compile, &[], Path::new(JOB_DIRECTORY), true, &stdin)?;
            report(self.control, &Report::Started { at: clock::now() });
            status = self.wait_for(main, &children)?;
        }
        if status == Exit::Code(0) {
            let first = self.setup.program.compile.is_none();
            let main = self.start(
                &self.setup.program.run,
                &self.job.args,
                &self.directory(),
                first,
                &stdin,
            )?;
            let at = clock::now();
            report(
                self.control,
                &if first {
                    Report::Started { at }
                } else {
                    Report::Compiled { at }
                },
            );
            status = self.wait_for(main, &children)?;
        }
        let end = self.end(status);
        self.collect();
        Ok(end)
    }

    /// The job's working directory.
    fn directory(&self) -> PathBuf {
        Path::new(JOB_DIRECTORY).join(self.job.cwd.as_deref().unwrap_or_default())
    }

    /// What the runner itself puts into the job's root.
    fn own_files(&self) -> Result<(), HostError> {
        let prelude = Path::new(RUBY_PRELUDE.0);
        if self.job.lang == protocol::Language::Ruby && !prelude.exists() {
            let written = files::write(prelude, RUBY_PRELUDE.1.as_bytes(), 0o644);
            written.doing(|| format!("write {}", prelude.display()))?;
        }
        Ok(())
    }

    /// Standard input: a file that cannot be changed, so that nothing has to feed it.
    fn stdin(&self) -> Result<OwnedFd, HostError> {
        let encoded = self
            .job
            .stdin_base64
            .as_ref()
            .and_then(|encoded| STANDARD.decode(encoded).ok());
        let bytes = encoded.as_deref().unwrap_or(self.job.stdin.as_bytes());
        let file = memfd_create("stdin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .doing(|| "make standard input".to_owned())?;
        let mut file = File::from(file);
        let written = file.write_all(bytes).and_then(|()| io::Seek::rewind(&mut file));
        written.doing(|| "fill standard input".to_owned())?;
        fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
        )
        .doing(|| "seal standard input".to_owned())?;
        Ok(file.into())
    }

    /// Starts one program as the job's user and waits until it is running.
    fn start(
        &self,
        program: &[String],
        arguments: &[String],
        directory: &Path,
        first: bool,
        stdin: &OwnedFd,
    ) -> Result<Pid, HostError> {
        let (mut failure, reporting) = pipe_with(PipeFlags::CLOEXEC)
            .map(|(read, write)| (File::from(read), File::from(write)))
            .doing(|| "make a pipe".to_owned())?;
        let fork = match &self.cgroup {
            Some(cgroup) => {
                sys::fork_into(cgroup.as_fd()).doing(|| "fork into the job's cgroup".to_owned())?
            }
            None => sys::fork().doing(|| "fork".to_owned())?,
        };
        match fork {
            Fork::Parent(pid) => {
                drop(reporting);
                // Closed by exec, unless something went wrong before it.
                let mut error = Vec::new();
                failure
                    .read_to_end(&mut error)
                    .doing(|| "wait for the code to start".to_owned())?;
                if error.is_empty() {
                    Ok(pid)
                } else {
                    Err(decode_failure(&error))
                }
            }
            Fork::Child => {
                let code = Code {
                    inner: self,
                    program,
                    arguments,
                    directory,
                    first,
                };
                let error = code.become_it(stdin);
                let mut reporting = reporting;
                let _ = reporting.write_all(&serde_json::to_vec(&error).unwrap_or_default());
                sys::exit(125)
            }
        }
    }

    /// Waits for `main`, reaping everything else, and ends whatever it left behind.
    fn wait_for(&mut self, main: Pid, children: &File) -> Result<Exit, HostError> {
        let mut status = None;
        while status.is_none() {
            let mut watched = [
                PollFd::new(children, PollFlags::IN),
                PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN),
            ];
            let pause = self.setup.rlimits.processes().map(|_| COUNTING);
            match poll(&mut watched, pause.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).doing(|| "wait for the code".to_owned())?,
            }
            let [has_children, has_orders] = watched.map(|fd| !fd.revents().is_empty());
            self.out_of_processes |= self.has_all_processes();
            if has_orders || self.out_of_processes {
                sys::kill_all();
                return Ok(reap_rest(main).unwrap_or(Exit::Signal(libc::SIGKILL)));
            }
            if has_children {
                let _ = (&*children).read(&mut [0; 128]);
            }
            status = reap(main, WaitOptions::NOHANG);
        }
        sys::kill_all();
        reap_rest(main);
        Ok(status.unwrap_or(Exit::Signal(libc::SIGKILL)))
    }

    /// Whether as many processes are there as may be, this one not counted.
    fn has_all_processes(&self) -> bool {
        let Some(most) = self.setup.rlimits.processes() else {
            return false;
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        });
        u64::try_from(numbers.count()).is_ok_and(|count| count > most)
    }

    fn end(&self, exit: Exit) -> End {
        let (status, signalled) = match exit {
            Exit::Code(code) => (code, false),
            Exit::Signal(signal) => (signal, true),
        };
        let (cpu, peak_bytes) = sys::usage_of_children();
        End {
            at: clock::now(),
            status,
            signalled,
            cpu,
            peak_bytes,
            out_of_processes: self.out_of_processes,
        }
    }

    /// Reads back what is to be collected, in a process that is the job's user.
    fn collect(&mut self) {
        if !self.job.files.iter().any(|file| file.collect) {
            return;
        }
        if let Ok(Fork::Child) = sys::fork() {
            if self.setup.user.assume().is_ok() {
                let files = files::collect(&self.job.files, &self.directory());
                report(self.control, &Report::Files(files));
            }
            sys::exit(0);
        }
        while wait(WaitOptions::empty()).is_ok_and(|ended| ended.is_some()) {}
    }

    /// Removes what is left in the job's own directories. The runner has its answer by now, and what cannot be removed
    /// goes when the machine does.
    fn clean(&self) {
        for directory in [JOB_DIRECTORY, "/tmp"] {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let _ = if is_directory {
                    fs::remove_dir_all(entry.path())
                } else {
                    fs::remove_file(entry.path())
                };
            }
        }
    }
}

fn decode_failure(bytes: &[u8]) -> HostError {
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        HostError::new(
            ErrorCode::Internal,
            "the code could not be started, nor why be said",
        )
    })
}

/// Reaps what has ended; the answer is `main`'s exit if that was among it.
fn reap(main: Pid, options: WaitOptions) -> Option<Exit> {
    let mut exit = None;
    loop {
        match wait(options) {
            Ok(Some((pid, status))) if pid == main => exit = Some(exit_of(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return exit,
        }
    }
}

fn reap_rest(main: Pid) -> Option<Exit> {
    reap(main, WaitOptions::empty())
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Signal(libc::SIGKILL),
    }
}

/// The process that becomes the job's code, or its compiler.
struct Code<'a> {
    inner: &'a Inner<'a>,
    program: &'a [String],
    arguments: &'a [String],
    directory: &'a Path,
    /// Nothing of this job ran before: the files are to be written.
    first: bool,
}

impl Code<'_> {
    /// Comes back only with the reason why it could not.
    fn become_it(&self, stdin: &OwnedFd) -> HostError {
        match self.prepare(stdin) {
            Ok((program, arguments, environment)) => {
                let error = sys::execute(&program, &arguments, &environment);
                HostError::new(
                    ErrorCode::LanguageMissing,
                    format!("cannot execute {}: {error}", self.program[0]),
                )
            }
            Err(error) => error,
        }
    }

    fn prepare(&self, stdin: &OwnedFd) -> Result<(CString, Vec<CString>, Vec<CString>), HostError> {
        let (setup, job) = (self.inner.setup, self.inner.job);
        if self.inner.cgroup.is_some() {
            namespaces::leave_cgroup()?;
        }
        setsid().doing(|| "start a session".to_owned())?;
        fs::write("/proc/self/oom_score_adj", "500")
            .doing(|| "be the one to kill when memory is short".to_owned())?;
        setpriority_process(None, 0).doing(|| "give up priority".to_owned())?;
        self.give_streams(stdin)?;
        setup.user.assume()?;
        if self.first {
            self.write_files()?;
        }
        chdir(self.directory).map_err(|error| self.no_directory(error.into()))?;
        setup.rlimits.apply()?;
        let arguments = self.program.iter().chain(self.arguments).cloned();
        let environment = environment(&setup.user, self.directory, job);
        sys::default_signals();
        Ok((
            c_string(self.program[0].clone())?,
            c_strings(arguments)?,
            c_strings(environment)?,
        ))
    }

    /// Pipes belong to whoever made them; the code may want to open its own by name.
    fn give_streams(&self, stdin: &OwnedFd) -> Result<(), HostError> {
        let (uid, gid) = (self.inner.setup.user.uid, self.inner.setup.user.gid);
        let streams = [stdin, &self.inner.stdout, &self.inner.stderr];
        for stream in streams {
            std::os::unix::fs::fchown(stream, Some(uid), Some(gid))
                .doing(|| "give the streams away".to_owned())?;
        }
        Ok(sys::inherit_only(&streams.map(|stream| stream.as_fd()))
            .doing(|| "pass the streams on".to_owned())?)
    }

    fn write_files(&self) -> Result<(), HostError> {
        let (setup, job) = (self.inner.setup, self.inner.job);
        let directory = self.inner.directory();
        fs::create_dir_all(&directory).map_err(|error| self.no_directory(error))?;
        files::write_all(&job.files, &directory)?;
        let source = Path::new(&setup.program.source);
        let written = files::write(source, job.code.as_bytes(), 0o644);
        Ok(written.doing(|| format!("write {}", source.display()))?)
    }

    fn no_directory(&self, error: io::Error) -> HostError {
        HostError::new(
            ErrorCode::InvalidRequest,
            format!("cwd: cannot use {}: {error}", self.inner.directory().display()),
        )
    }
}

/// A small default set, and over it what the job asked for.
fn environment(user: &User, directory: &Path, job: &JobRequest) -> Vec<String> {
    let directory = directory.to_string_lossy();
    let defaults = [
        ("PATH", PATH),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("LANG", "C.UTF-8"),
        ("PWD", &directory),
        // What a killed job printed would be lost otherwise.
        ("PYTHONUNBUFFERED", "1"),
    ];
    let unset = defaults.iter().filter(|(name, _)| !job.env.contains_key(*name));
    let defaults = unset.map(|(name, value)| format!("{name}={value}"));
    defaults
        .chain(job.env.iter().map(|(name, value)| format!("{name}={value}")))
        .collect()
}

fn c_strings(texts: impl IntoIterator<Item = String>) -> Result<Vec<CString>, HostError> {
    texts.into_iter().map(c_string).collect()
}

fn c_string(text: String) -> Result<CString, HostError> {
    CString::new(text).map_err(|error| Failure::new("pass arguments on", error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            name: "runner".to_owned(),
            uid: 1000,
            gid: 1000,
            home: "/home/runner".to_owned(),
        }
    }

    #[test]
    fn a_jobs_environment_goes_over_the_defaults() {
        let mut job = JobRequest::new("t", protocol::Language::Bash, ":");
        job.env.insert("LANG".to_owned(), "de_DE".to_owned());
        job.env.insert("X".to_owned(), "1=2".to_owned());
        let environment = environment(&user(), Path::new("/job"), &job);
        assert!(environment.contains(&"HOME=/home/runner".to_owned()));
        assert!(environment.contains(&"X=1=2".to_owned()));
        assert_eq!(
            environment
                .iter()
                .filter(|entry| entry.starts_with("LANG="))
                .collect::<Vec<_>>(),
            ["LANG=de_DE"]
        );
    }

    #[test]
    fn failures_cross_the_pipe() {
        let error = HostError::new(ErrorCode::InvalidRequest, "cwd");
        assert_eq!(decode_failure(&serde_json::to_vec(&error).unwrap()), error);
        assert_eq!(decode_failure(b"{").code, ErrorCode::Internal);
    }
}
