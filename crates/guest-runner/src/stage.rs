//! The processes between the runner and a job's code. Each is the runner's own binary, single-threaded, and knows only
//! what came over its control socket.
//!
//! ```text
//! runner ──spawn──► outer            leaves the guest's namespaces, waits for inner, ends
//!                     └─fork─► inner  PID 1 of the job: builds its view, starts and reaps, kills what is left
//!                                └─fork─► code   in the job's cgroup, becomes the job's user, is filtered, execs
//!
//! control socket   runner → inner   Setup, the job's request as it came; closed: end the job now
//!                  inner → runner   Report…
//! ```
//!
//! An interpreter that is to wait is started the same way, without a job. Its job comes later, with a [`Lease`]; inner then
//! gives it to the interpreter's loader (see [`crate::loaders`]) over a socket that only the two of them have:
//!
//! ```text
//! loader socket    loader → inner   `P` it waits
//!                  inner → loader   the job's seed, and what differs from what it was started with; closed
//!                  loader → inner   `R` it is different from any other clone, and the code is next
//! ```
//!
//! When inner ends the kernel kills every process of its namespace, and inner dies with outer: nothing of a job outlives
//! it, however it forked.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::frame::{decode_message, encode_message, read_frame};
use protocol::{ErrorCode, FileSpec, HostError, JobRequest, Language};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, openat};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, chdir, set_parent_process_death_signal, setpriority_process,
    setsid, umask, wait,
};
use rustix::system::sethostname;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::confine::identity::User;
use crate::confine::namespaces::{self, JOB_DIRECTORY, View};
use crate::confine::rlimits::Rlimits;
use crate::confine::seccomp;
use crate::failure::{Doing as _, Failure};
use crate::files;
use crate::language::{PATH, Program};
use crate::listener::Listener;
use crate::loaders::{self, Release, Waiting};
use crate::outcome::Exit;
use crate::sys::{self, Fork};

/// How often processes are counted where no cgroup does it.
const COUNTING: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// How long an interpreter may take to start and import.
const LOADING: Duration = Duration::from_secs(50);
/// How long a released one may take until the code is next.
const RELEASING: Duration = Duration::from_secs(20);
/// Kill a job's processes before the guest's others when memory is short, and before that the interpreters that wait.
const OOM_SCORE: &str = "500";
const OOM_SCORE_WAITING: &str = "1000";

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
    /// Whose filter of system calls the code gets, where the kernel has filters.
    pub(crate) filter: Option<Language>,
    /// Start the interpreter like this, and wait for the job.
    pub(crate) waiting: Option<Waiting>,
}

/// What a job brings to an interpreter that waits. The job's request follows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) rlimits: Rlimits,
    /// The size of `/dev/shm`, in bytes.
    pub(crate) shm_bytes: u64,
    pub(crate) hostname: String,
}

/// What a stage tells the runner. Times are of [`clock::now`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The interpreter waits for its job.
    Parked,
    /// The code did not run, and will not.
    Refused(HostError),
    /// The code, or its compiler, is running.
    Started { at: Duration },
    /// The compiler is done and the code is running.
    Compiled { at: Duration },
    /// The files that were to be collected.
    Files(Vec<FileSpec>),
    /// The last report: no process of the job runs any more.
    Ended(End),
}

/// How a job ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) at: Duration,
    pub(crate) exit: Exit,
    /// Processor time of what was waited for.
    pub(crate) cpu: Duration,
    /// The most memory that one process had, in bytes.
    pub(crate) peak_bytes: u64,
    /// It had all the processes that it may have, where no cgroup watches that.
    pub(crate) out_of_processes: bool,
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
    let job: Option<JobRequest> = match setup.waiting {
        Some(_) => None,
        None => Some(receive(control)?),
    };
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
                cgroup,
                stdout,
                stderr,
                out_of_processes: false,
            };
            inner.main(job)
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
    cgroup: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    out_of_processes: bool,
}

impl Inner<'_> {
    /// `job` is absent when it comes later.
    fn main(mut self, job: Option<JobRequest>) -> ! {
        let ended = match (job, &self.setup.waiting) {
            (Some(job), _) => self.run(job),
            (None, Some(waiting)) => self.run_later(waiting),
            (None, None) => Ok(None),
        };
        let last = match ended {
            Ok(Some((job, end))) => {
                self.collect(&job);
                Report::Ended(end)
            }
            // The runner has gone, or has no job for it.
            Ok(None) => sys::exit(0),
            Err(error) => Report::Refused(error),
        };
        report(self.control, &last);
        self.clean();
        sys::exit(0)
    }

    /// Builds the view. The file becomes readable when children end.
    fn enter(&self) -> Result<File, HostError> {
        set_parent_process_death_signal(Some(Signal::KILL))
            .doing(|| "tie the job to its stage".to_owned())?;
        umask(Mode::from_raw_mode(0o022));
        let children = sys::signals_as_file(&[libc::SIGCHLD]).doing(|| "watch for children".to_owned())?;
        self.setup.view.enter()?;
        Ok(children)
    }

    fn run(&mut self, job: JobRequest) -> Result<Option<(JobRequest, End)>, HostError> {
        let children = self.enter()?;
        let stdin = Stdin::new()?;
        stdin.fill(&job)?;
        let directory = directory(&job);
        let environment = environment(&self.setup.user, &directory, &job);
        let mut status = Exit::Code(0);
        if let Some(compile) = &self.setup.program.compile {
            let compiler = Code {
                program: compile,
                arguments: &[],
                directory: Path::new(JOB_DIRECTORY),
                environment: environment.clone(),
                files: Some(&job),
                loader: None,
                watched: false,
            };
            let compiler = self.start(&compiler, &stdin)?;
            report(self.control, &Report::Started { at: clock::now() });
            status = self.wait_for(compiler, &children)?;
        }
        if status == Exit::Code(0) {
            let first = self.setup.program.compile.is_none();
            let code = Code {
                program: &self.setup.program.run,
                arguments: &job.args,
                directory: &directory,
                environment,
                files: first.then_some(&job),
                loader: None,
                watched: self.cgroup.is_some(),
            };
            let code = self.start(&code, &stdin)?;
            let at = clock::now();
            report(
                self.control,
                &if first {
                    Report::Started { at }
                } else {
                    Report::Compiled { at }
                },
            );
            status = self.wait_for(code, &children)?;
        }
        let end = self.end(status);
        Ok(Some((job, end)))
    }

    /// Starts the interpreter, has it wait, and runs the job that comes; `None` when none does.
    fn run_later(&mut self, waiting: &Waiting) -> Result<Option<(JobRequest, End)>, HostError> {
        let children = self.enter()?;
        let stdin = Stdin::new()?;
        let (loader, theirs) = UnixStream::pair().doing(|| "make a socket pair".to_owned())?;
        let loader = Loader(loader);
        let theirs = OwnedFd::from(theirs);
        let interpreter = Code {
            program: &self.setup.program.run,
            arguments: &[],
            directory: &waiting.directory,
            environment: waiting_environment(&self.setup.user, waiting),
            files: None,
            loader: Some(&theirs),
            watched: self.cgroup.is_some(),
        };
        // Ruby opens its main script before it loads anything, and would find one without a line at its end for good.
        self.write_placeholder("\n")?;
        let interpreter = self.start(&interpreter, &stdin)?;
        drop(theirs);
        loader.expect(loaders::PARKED, LOADING, &interpreter)?;
        report(self.control, &Report::Parked);
        let Some(lease) = self.wait_for_lease(&interpreter, &children)? else {
            return Ok(None);
        };
        let job: JobRequest = receive(self.control)?;
        if lease.shm_bytes != self.setup.view.shm_bytes {
            namespaces::resize_shm(lease.shm_bytes)?;
        }
        sethostname(lease.hostname.as_bytes()).doing(|| "set the host name".to_owned())?;
        self.place(&job)?;
        stdin.fill(&job)?;
        if lease.rlimits != self.setup.rlimits {
            lease.rlimits.apply_to(Some(interpreter.main))?;
        }
        let score = format!("/proc/{}/oom_score_adj", interpreter.main.as_raw_nonzero());
        fs::write(&score, OOM_SCORE).doing(|| format!("write {score}"))?;
        loader.release(&job, &lease.hostname, &interpreter)?;
        report(self.control, &Report::Started { at: clock::now() });
        let status = self.wait_for(interpreter, &children)?;
        let end = self.end(status);
        Ok(Some((job, end)))
    }

    /// Waits for a job; `None` when the runner has none any more. An interpreter that ends before is an error.
    fn wait_for_lease(&mut self, running: &Running, children: &File) -> Result<Option<Lease>, HostError> {
        loop {
            let mut watched = vec![
                PollFd::new(children, PollFlags::IN),
                PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN),
            ];
            watched.extend(running.to_poll());
            match poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).doing(|| "wait for a job".to_owned())?,
            }
            let has = |place: usize| watched.get(place).is_some_and(|fd| !fd.revents().is_empty());
            let (has_children, has_orders, is_told) = (has(0), has(1), is_told(watched.get(2)));
            let mut exit = is_told.then(|| running.exit()).flatten();
            if has_children {
                let _ = (&*children).read(&mut [0; 128]);
                exit = exit.or_else(|| reap(running.main, WaitOptions::NOHANG));
            }
            if let Some(exit) = exit {
                return Err(ended(exit).into());
            }
            if has_orders {
                // What is no lease is the end of the runner's interest.
                return Ok(receive(self.control).ok());
            }
        }
    }

    /// Writes the code and the files of a job whose interpreter is already there. Whoever writes to a path that the job
    /// named is the job's user, in a process of its own.
    fn place(&self, job: &JobRequest) -> Result<(), HostError> {
        if job.files.is_empty() && job.cwd.is_none() {
            // Nothing of the job's has run, so its directory is as the runner made it.
            return self.write_source(&job.code);
        }
        self.in_child(false, |_| {
            self.setup.user.assume()?;
            write_files(job, &self.setup.program.source)?;
            sys::exit(0)
        })?;
        while wait(WaitOptions::empty()).is_err_and(|error| error == Errno::INTR) {}
        Ok(())
    }

    fn write_placeholder(&self, code: &str) -> Result<(), HostError> {
        let source = Path::new(&self.setup.program.source);
        let user = &self.setup.user;
        let written = files::write(source, code.as_bytes(), 0o644)
            .and_then(|()| std::os::unix::fs::chown(source, Some(user.uid), Some(user.gid)));
        Ok(written.doing(|| format!("write {}", source.display()))?)
    }

    /// Over the placeholder, which no code is shorter than; to truncate a file costs a disk.
    fn write_source(&self, code: &str) -> Result<(), HostError> {
        let source = Path::new(&self.setup.program.source);
        let written = File::options()
            .write(true)
            .open(source)
            .and_then(|mut file| file.write_all(code.as_bytes()));
        Ok(written.doing(|| format!("write {}", source.display()))?)
    }

    /// Starts one program as the job's user and waits until it is running.
    fn start(&self, code: &Code<'_>, stdin: &Stdin) -> Result<Running, HostError> {
        self.in_child(true, |channel| Err(code.become_it(self, stdin, channel)))
    }

    /// Does `work` in a child, in the job's cgroup if `confined`, and waits until that executes another program, or exits,
    /// or fails; a failure is the answer then.
    fn in_child(
        &self,
        confined: bool,
        work: impl FnOnce(&UnixStream) -> Result<std::convert::Infallible, HostError>,
    ) -> Result<Running, HostError> {
        let (ours, mut theirs) = UnixStream::pair().doing(|| "make a socket pair".to_owned())?;
        let fork = match self.cgroup.as_ref().filter(|_| confined) {
            Some(cgroup) => {
                sys::fork_into(cgroup.as_fd()).doing(|| "fork into the job's cgroup".to_owned())?
            }
            None => sys::fork().doing(|| "fork".to_owned())?,
        };
        match fork {
            Fork::Parent(main) => {
                drop(theirs);
                // Closed by exec or exit, unless something went wrong before it.
                let (listener, error) =
                    Listener::receive(&ours).doing(|| "wait for the code to start".to_owned())?;
                if error.trim_ascii().is_empty() {
                    Ok(Running { main, listener })
                } else {
                    Err(decode_failure(&error))
                }
            }
            Fork::Child => {
                let Err(error) = work(&theirs);
                let _ = theirs.write_all(&serde_json::to_vec(&error).unwrap_or_default());
                // Its exit may have to wait for who waits for this.
                drop(theirs);
                sys::exit(125)
            }
        }
    }

    /// Waits for the main process, reaping everything else, and ends whatever is left.
    fn wait_for(&mut self, running: Running, children: &File) -> Result<Exit, HostError> {
        let Running { main, .. } = running;
        let mut status = None;
        while status.is_none() {
            let mut watched = vec![
                PollFd::new(children, PollFlags::IN),
                PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN),
            ];
            watched.extend(running.to_poll());
            let pause = self.setup.rlimits.processes().map(|_| COUNTING);
            match poll(&mut watched, pause.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).doing(|| "wait for the code".to_owned())?,
            }
            let has = |place: usize| watched.get(place).is_some_and(|fd| !fd.revents().is_empty());
            let (has_children, has_orders, is_told) = (has(0), has(1), is_told(watched.get(2)));
            self.out_of_processes |= self.has_all_processes();
            if has_orders || self.out_of_processes {
                sys::kill_all();
                return Ok(reap_rest(main).unwrap_or(Exit::Signal(libc::SIGKILL)));
            }
            if let Some(exit) = is_told.then(|| running.exit()).flatten() {
                // What is killed runs no more; that the kernel also takes its memory back nobody has to wait for.
                sys::kill_all();
                return Ok(exit);
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
        let (cpu, peak_bytes) = sys::usage_of_children();
        End {
            at: clock::now(),
            exit,
            cpu,
            peak_bytes,
            out_of_processes: self.out_of_processes,
        }
    }

    /// Reads back what is to be collected, in a process that is the job's user.
    fn collect(&mut self, job: &JobRequest) {
        if !job.files.iter().any(|file| file.collect) {
            return;
        }
        // Until nobody can write to them any more.
        while wait(WaitOptions::empty()).is_ok_and(|ended| ended.is_some()) {}
        if let Ok(Fork::Child) = sys::fork() {
            if self.setup.user.assume().is_ok() {
                let files = files::collect(&job.files, &directory(job));
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

/// A program that was started.
struct Running {
    main: Pid,
    /// Tells of its exit, where that is watched, and of calls that end the job.
    listener: Option<Listener>,
}

impl Running {
    fn to_poll(&self) -> Option<PollFd<'_>> {
        let listener = self.listener.as_ref()?;
        Some(PollFd::new(listener, PollFlags::IN))
    }

    /// Its end, if that is what was told. Call it only when there is something to hear.
    fn exit(&self) -> Option<Exit> {
        self.listener.as_ref()?.hear(self.main)
    }
}

/// Whether a listener has something to hear, and is not only at its end.
fn is_told(listener: Option<&PollFd<'_>>) -> bool {
    listener.is_some_and(|listener| listener.revents().contains(PollFlags::IN))
}

fn ended(exit: Exit) -> Failure {
    let how = match exit {
        Exit::Code(code) => format!("exited with {code}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
        Exit::Forbidden(call) => format!("called {call}, for which its filter kills"),
    };
    Failure::new("wait for a job", format!("the interpreter {how}"))
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

/// The process that becomes the job's code, its compiler, or an interpreter that waits.
struct Code<'a> {
    program: &'a [String],
    arguments: &'a [String],
    directory: &'a Path,
    environment: Vec<String>,
    /// The job, where nothing of it ran before: its files are to be written.
    files: Option<&'a JobRequest>,
    /// The socket that an interpreter waits at.
    loader: Option<&'a OwnedFd>,
    /// Its exit is to be told of beforehand.
    watched: bool,
}

impl Code<'_> {
    /// Comes back only with the reason why it could not.
    fn become_it(&self, inner: &Inner<'_>, stdin: &Stdin, channel: &UnixStream) -> HostError {
        let prepared = self.prepare(inner, stdin).and_then(|prepared| {
            self.filter(inner, channel)?;
            Ok(prepared)
        });
        match prepared {
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

    /// The last layer: what is left to do is allowed by every filter.
    fn filter(&self, inner: &Inner<'_>, channel: &UnixStream) -> Result<(), HostError> {
        let Some(language) = inner.setup.filter else {
            return Ok(());
        };
        let listener = seccomp::install(language, self.watched)
            .doing(|| format!("filter the system calls of {language}"))?;
        if let Some(listener) = listener {
            Listener::hand_over(&listener, channel).doing(|| "have its calls told of".to_owned())?;
        }
        Ok(())
    }

    fn prepare(
        &self,
        inner: &Inner<'_>,
        stdin: &Stdin,
    ) -> Result<(CString, Vec<CString>, Vec<CString>), HostError> {
        let setup = inner.setup;
        if inner.cgroup.is_some() {
            namespaces::leave_cgroup()?;
        }
        setsid().doing(|| "start a session".to_owned())?;
        let score = if self.loader.is_some() {
            OOM_SCORE_WAITING
        } else {
            OOM_SCORE
        };
        fs::write("/proc/self/oom_score_adj", score)
            .doing(|| "be the one to kill when memory is short".to_owned())?;
        setpriority_process(None, 0).doing(|| "give up priority".to_owned())?;
        self.give_streams(inner, stdin)?;
        setup.user.assume()?;
        if let Some(job) = self.files {
            write_files(job, &setup.program.source)?;
        }
        chdir(self.directory).map_err(|error| no_directory(self.directory, error.into()))?;
        setup.rlimits.apply()?;
        let arguments = self.program.iter().chain(self.arguments).cloned();
        sys::default_signals();
        Ok((
            c_string(self.program[0].clone())?,
            c_strings(arguments)?,
            c_strings(self.environment.iter().cloned())?,
        ))
    }

    /// Pipes belong to whoever made them; the code may want to open its own by name.
    fn give_streams(&self, inner: &Inner<'_>, stdin: &Stdin) -> Result<(), HostError> {
        let (uid, gid) = (inner.setup.user.uid, inner.setup.user.gid);
        let streams = [stdin.0.as_fd(), inner.stdout.as_fd(), inner.stderr.as_fd()];
        for stream in streams {
            std::os::unix::fs::fchown(stream, Some(uid), Some(gid))
                .doing(|| "give the streams away".to_owned())?;
        }
        let loader = self.loader.map(|socket| (loaders::SOCKET, socket.as_fd()));
        let inherited: Vec<_> = (0..).zip(streams).chain(loader).collect();
        Ok(sys::inherit_only(&inherited).doing(|| "pass the streams on".to_owned())?)
    }
}

/// The job's working directory, without a slash at its end: Bash takes its `PWD` from here, but only when it is a new one.
fn directory(job: &JobRequest) -> PathBuf {
    let directory = Path::new(JOB_DIRECTORY).join(job.cwd.as_deref().unwrap_or_default());
    directory.components().collect()
}

/// Writes the files that a job brings, and its code to `source`. The caller is the job's user.
fn write_files(job: &JobRequest, source: &str) -> Result<(), HostError> {
    let directory = directory(job);
    fs::create_dir_all(&directory).map_err(|error| no_directory(&directory, error))?;
    files::write_all(&job.files, &directory)?;
    let written = files::write(Path::new(source), job.code.as_bytes(), 0o644);
    Ok(written.doing(|| format!("write {source}"))?)
}

fn no_directory(directory: &Path, error: io::Error) -> HostError {
    HostError::new(
        ErrorCode::InvalidRequest,
        format!("cwd: cannot use {}: {error}", directory.display()),
    )
}

/// Standard input: a file that cannot be changed once it is full, so that nothing has to feed it. Until then it is empty;
/// who has inherited it reads from its start.
struct Stdin(File);

impl Stdin {
    fn new() -> Result<Self, HostError> {
        let file = memfd_create("stdin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .doing(|| "make standard input".to_owned())?;
        Ok(Self(file.into()))
    }

    fn fill(&self, job: &JobRequest) -> Result<(), HostError> {
        let encoded = job
            .stdin_base64
            .as_ref()
            .and_then(|encoded| STANDARD.decode(encoded).ok());
        let bytes = encoded.as_deref().unwrap_or(job.stdin.as_bytes());
        let mut file = &self.0;
        let written = file.write_all(bytes).and_then(|()| io::Seek::rewind(&mut file));
        written.doing(|| "fill standard input".to_owned())?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        Ok(fcntl_add_seals(file, seals).doing(|| "seal standard input".to_owned())?)
    }
}

/// Our end of the socket that an interpreter waits at.
struct Loader(UnixStream);

impl Loader {
    /// Waits for one byte from a loader that lives.
    fn expect(&self, byte: u8, limit: Duration, running: &Running) -> Result<(), HostError> {
        let end = clock::now() + limit;
        loop {
            let mut watched = vec![PollFd::new(&self.0, PollFlags::IN)];
            watched.extend(running.to_poll());
            let left = Timespec::try_from(end.saturating_sub(clock::now())).unwrap_or_default();
            match poll(&mut watched, Some(&left)) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).doing(|| "wait for the interpreter".to_owned())?,
            }
            if !watched[0].revents().is_empty() {
                return self.hear(byte);
            }
            if let Some(exit) = is_told(watched.get(1)).then(|| running.exit()).flatten() {
                return Err(ended(exit).into());
            }
        }
        Err(Failure::new("prepare the interpreter", "its loader said nothing").into())
    }

    fn hear(&self, byte: u8) -> Result<(), HostError> {
        let mut answer = [0];
        let read = (&self.0).read_exact(&mut answer);
        read.doing(|| "hear from the interpreter's loader".to_owned())?;
        if answer == [byte] {
            Ok(())
        } else {
            let said = char::from(answer[0]).escape_default();
            Err(Failure::new("prepare the interpreter", format!("its loader said `{said}`")).into())
        }
    }

    /// Hands the job over, and waits until the interpreter is different from that of every other clone.
    fn release(&self, job: &JobRequest, hostname: &str, running: &Running) -> Result<(), HostError> {
        let mut seed = [0; 32];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .doing(|| "get random numbers".to_owned())?;
        let directory = directory(job);
        let stays = directory == Path::new(JOB_DIRECTORY);
        let directory = if stays { "" } else { &*directory.to_string_lossy() };
        let (unset, set) = difference(directory, job);
        let message = Release {
            seed,
            hostname,
            directory,
            arguments: &job.args,
            unset: &unset,
            set: &set,
        };
        let written = self
            .0
            .set_write_timeout(Some(RELEASING))
            .and_then(|()| (&self.0).write_all(&message.message()))
            .and_then(|()| self.0.shutdown(Shutdown::Write));
        written.doing(|| "give the job to the interpreter's loader".to_owned())?;
        self.expect(loaders::READY, RELEASING, running)
    }
}

/// What to unset and what to set, one after the other, to make of an interpreter's default environment the job's, in the order
/// in which a new one would find it. `directory` is empty where it does not change.
fn difference(directory: &str, job: &JobRequest) -> (Vec<String>, Vec<String>) {
    let names = COMMON.iter().map(|(name, _)| *name).chain(OF_USER);
    let unset = names.filter(|name| job.env.contains_key(*name));
    let moved = !directory.is_empty() && !job.env.contains_key(WORKING_DIRECTORY);
    let moved = moved.then(|| format!("{WORKING_DIRECTORY}={directory}"));
    let set = job.env.iter().map(|(name, value)| format!("{name}={value}"));
    (
        unset.map(str::to_owned).collect(),
        moved.into_iter().chain(set).collect(),
    )
}

/// What an interpreter that waits is started with. Its loader replaces all of it by the job's.
fn waiting_environment(user: &User, waiting: &Waiting) -> Vec<String> {
    let injected = waiting.environment.iter();
    let injected = injected.map(|(name, value)| format!("{name}={value}"));
    default_environment(user, JOB_DIRECTORY)
        .map(|(name, value)| format!("{name}={value}"))
        .into_iter()
        .chain(injected)
        .collect()
}

/// A small default set, and over it what the job asked for.
fn environment(user: &User, directory: &Path, job: &JobRequest) -> Vec<String> {
    let directory = directory.to_string_lossy();
    let defaults = default_environment(user, &directory);
    let unset = defaults.iter().filter(|(name, _)| !job.env.contains_key(*name));
    let defaults = unset.map(|(name, value)| format!("{name}={value}"));
    defaults
        .chain(job.env.iter().map(|(name, value)| format!("{name}={value}")))
        .collect()
}

/// The value that a variable has where a job does not set it and it is the same for all jobs.
pub(crate) fn default_value(name: &str) -> Option<&'static str> {
    COMMON
        .iter()
        .find(|(common, _)| *common == name)
        .map(|(_, value)| *value)
}

const COMMON: [(&str, &str); 3] = [
    ("PATH", PATH),
    ("LANG", "C.UTF-8"),
    // What a killed job printed would be lost otherwise.
    ("PYTHONUNBUFFERED", "1"),
];

const WORKING_DIRECTORY: &str = "PWD";
const OF_USER: [&str; 4] = ["HOME", "USER", "LOGNAME", WORKING_DIRECTORY];

fn default_environment<'a>(user: &'a User, directory: &'a str) -> [(&'static str, &'a str); 7] {
    let [path, lang, unbuffered] = COMMON;
    let [home, name, login, working_directory] = OF_USER;
    [
        path,
        (home, &user.home),
        (name, &user.name),
        (login, &user.name),
        lang,
        (working_directory, directory),
        unbuffered,
    ]
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
    fn only_what_differs_is_said() {
        let mut job = JobRequest::new("t", protocol::Language::Python, "1");
        assert_eq!(difference("", &job), (vec![], vec![]));
        job.env.insert("X".to_owned(), "1=2".to_owned());
        job.env.insert("USER".to_owned(), "me".to_owned());
        let (unset, set) = difference("/job/d", &job);
        // What the job sets comes after the default in a new process, also where it is of the default.
        assert_eq!(unset, ["USER"]);
        assert_eq!(set, ["PWD=/job/d", "USER=me", "X=1=2"]);
        job.env.insert("PWD".to_owned(), "/elsewhere".to_owned());
        let (unset, set) = difference("/job/d", &job);
        assert_eq!(unset, ["USER", "PWD"]);
        assert_eq!(set, ["PWD=/elsewhere", "USER=me", "X=1=2"]);
    }

    #[test]
    fn a_working_directory_ends_in_no_slash() {
        let mut job = JobRequest::new("t", protocol::Language::Bash, ":");
        assert_eq!(directory(&job).as_os_str(), "/job");
        job.cwd = Some("sub/directory/".to_owned());
        assert_eq!(directory(&job).as_os_str(), "/job/sub/directory");
        job.cwd = Some("/tmp/".to_owned());
        assert_eq!(directory(&job).as_os_str(), "/tmp");
    }

    #[test]
    fn failures_cross_the_pipe() {
        let error = HostError::new(ErrorCode::InvalidRequest, "cwd");
        assert_eq!(decode_failure(&serde_json::to_vec(&error).unwrap()), error);
        assert_eq!(decode_failure(b"{").code, ErrorCode::Internal);
    }
}
