//! One job, from a request that was checked to its response.
//!
//! ```text
//! request ─► limits, directories ─► stage, new or waiting ──► watch: output, time, disk, processes, client ─► verdict
//!                                          ▲                       │ the first limit that is hit
//!                                          └──────── kill ◄────────┘
//! ```
//!
//! The thread that serves the client's connection does all of it in one poll loop. A client that reads slowly slows the
//! job's output down and never the watch over its limits.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use protocol::frame::{FrameDecoder, decode_message};
use protocol::job::{Clock, Interpreter, Timings, Truncated, Usage};
use protocol::limits::MAX_TIMEOUT;
use protocol::{ErrorCode, Event, FileSpec, HostError, JobRequest, JobResponse, Termination};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::{self, milliseconds};
use crate::confine::cgroup::{self, Cgroup};
use crate::confine::namespaces::View;
use crate::confine::rlimits::Rlimits;
use crate::confine::{self, Limits};
use crate::connection::Connection;
use crate::failure::Doing as _;
use crate::guest::Guest;
use crate::language;
use crate::launch::Stage;
use crate::outcome::{Exit, Kill, Seen, verdict};
use crate::output::{Capture, Splitter};
use crate::park::Parked;
use crate::root::{JobDirectories, Prepared};
use crate::stage::{End, Lease, Report, Setup};

/// How long everything before the code's start may take.
const PREPARATION: Duration = Duration::from_secs(60);
/// How long a killed job may take to be gone before its stage is killed too.
const GRACE: Duration = Duration::from_secs(5);
/// How often disk, memory and processor time are looked at.
const TICK: Duration = Duration::from_millis(40);
/// For how many of these a job may run into its memory limit, which its own memory fills. The kernel would first take its program's
/// pages away, which it reads again at once, and could go on with that for minutes.
const PRESSED: u32 = 12;
/// How long the stage may clean up after its last report.
const CLEANING: Duration = Duration::from_secs(30);
/// Events that a client has not read beyond this stop the reading of output.
const MOST_UNREAD: usize = 256 << 10;

const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// Runs `job`, whose request came as `payload` at the time `received`.
///
/// # Errors
/// Why the code did not run.
pub(crate) fn run(
    guest: &Guest,
    client: &mut Connection,
    job: &JobRequest,
    payload: &[u8],
    received: Duration,
) -> Result<Finished, HostError> {
    if guest.root.lacks_identity() {
        return Err(HostError::new(
            ErrorCode::ConfineFailed,
            "the guest was prepared to be cloned, and has not been given an identity",
        ));
    }
    let limits = Limits::decide(&job.limits, guest.cgroups.is_ok(), guest.memory)?;
    let root = guest.root.prepare()?;
    let begun = match guest.parking.take(job, &limits) {
        Some(parked) => release(parked, &limits, payload)?,
        None => start(guest, job, &root, &limits, payload)?,
    };
    let mut watch = Watch::new(guest, job, limits, &begun, received);
    if let Err(refused) = watch.until_ended(client) {
        begun.stage.process.ended_within(CLEANING);
        return Err(refused);
    }
    let mut response = watch.response()?;
    response.layers = confine::layers(begun.cgroup.is_some(), root.mount.is_some(), guest.seccomp);
    if let Some(timings) = &mut response.timings {
        timings.interpreter = Some(begun.interpreter);
    }
    Ok(Finished {
        cleaning_matters: response.termination == Some(Termination::DiskFull),
        response,
        stage: begun.stage,
        _directories: begun.directories,
        _cgroup: begun.cgroup,
    })
}

/// A job whose processes are there.
struct Begun {
    stage: Stage,
    directories: JobDirectories,
    cgroup: Option<Cgroup>,
    interpreter: Interpreter,
    /// Its code has to be compiled first.
    compiles: bool,
}

/// Starts a new process.
fn start(
    guest: &Guest,
    job: &JobRequest,
    root: &Prepared,
    limits: &Limits,
    payload: &[u8],
) -> Result<Begun, HostError> {
    let program = language::program(guest.root.programs(), job.lang)?;
    let compiles = program.compile.is_some();
    let directories = root.directories(guest.next_job())?;
    let cgroups = guest.cgroups.as_ref().ok();
    let cgroup = cgroups.map(|groups| groups.create(limits)).transpose()?;
    let setup = Setup {
        view: View {
            root: root.mount.clone(),
            own: directories.own(),
            shm_bytes: limits.memory_bytes,
        },
        user: root.user.clone(),
        program,
        cgroup: cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
        rlimits: Rlimits::new(limits, cgroup.is_some()),
        filter: guest.seccomp.then_some(job.lang),
        waiting: None,
    };
    Ok(Begun {
        stage: Stage::spawn(guest, &setup, Some(payload))?,
        directories,
        cgroup,
        interpreter: Interpreter::Fresh,
        compiles,
    })
}

/// Gives the job to an interpreter that waits.
fn release(parked: Parked, limits: &Limits, payload: &[u8]) -> Result<Begun, HostError> {
    if *limits != parked.limits {
        parked.cgroup.limit(limits)?;
    }
    let lease = Lease {
        rlimits: Rlimits::new(limits, true),
        shm_bytes: limits.memory_bytes,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    parked.stage.release(&lease, payload)?;
    Ok(Begun {
        stage: parked.stage,
        directories: parked.directories,
        cgroup: Some(parked.cgroup),
        interpreter: Interpreter::Parked,
        compiles: false,
    })
}

/// A job that is over, but for the removal of its files, which the client need not wait for.
pub(crate) struct Finished {
    response: JobResponse,
    /// The next job would not find room before this one's files are gone.
    cleaning_matters: bool,
    // In this order: the stage ends, then what it used is removed.
    stage: Stage,
    _directories: JobDirectories,
    _cgroup: Option<Cgroup>,
}

impl Finished {
    /// Gives the response to `respond` and waits until nothing of the job is left.
    pub(crate) fn settle<T>(mut self, respond: impl FnOnce(&mut JobResponse) -> T) -> T {
        if self.cleaning_matters {
            self.stage.process.ended_within(CLEANING);
        }
        let answer = respond(&mut self.response);
        self.stage.process.ended_within(CLEANING);
        answer
    }
}

/// What is known of a job while it runs.
struct Watch<'a> {
    guest: &'a Guest,
    job: &'a JobRequest,
    compiles: bool,
    limits: Limits,
    stage: &'a Stage,
    cgroup: Option<&'a Cgroup>,
    refusals: Option<File>,
    directories: &'a JobDirectories,
    reports: FrameDecoder,
    captures: [Capture; 2],
    splitters: [Splitter; 2],
    open: [bool; 2],
    files: Vec<FileSpec>,
    received: Duration,
    started: Option<Duration>,
    compiled: Option<Duration>,
    /// How often it had run into its memory limit, and at how many looks in a row more often than before.
    limit_hits: u64,
    pressed: u32,
    kill: Option<(Kill, Duration)>,
    end: Option<End>,
    refused: Option<HostError>,
    stage_gone: bool,
    /// Of the whole guest, for want of memory, before this job.
    kills_before: u64,
}

impl<'a> Watch<'a> {
    fn new(
        guest: &'a Guest,
        job: &'a JobRequest,
        limits: Limits,
        begun: &'a Begun,
        received: Duration,
    ) -> Self {
        let Begun {
            stage,
            directories,
            compiles,
            ..
        } = begun;
        let cgroup = begun.cgroup.as_ref();
        Self {
            guest,
            job,
            compiles: *compiles,
            limits,
            stage,
            cgroup,
            refusals: cgroup.and_then(|cgroup| cgroup.process_refusals().ok()),
            directories,
            reports: FrameDecoder::default(),
            captures: [
                Capture::new(limits.output_bytes),
                Capture::new(limits.output_bytes),
            ],
            splitters: Default::default(),
            open: [true; 2],
            files: Vec::new(),
            received,
            started: None,
            compiled: None,
            limit_hits: 0,
            pressed: 0,
            kill: None,
            end: None,
            refused: None,
            stage_gone: false,
            kills_before: if cgroup.is_none() {
                cgroup::kills_of_the_guest()
            } else {
                0
            },
        }
    }

    /// Until the last report, or until the stage is gone without one.
    fn until_ended(&mut self, client: &mut Connection) -> Result<(), HostError> {
        let mut next_tick = clock::now() + TICK;
        while self.end.is_none() && self.refused.is_none() && !self.stage_gone {
            self.wait(client, next_tick)?;
            let now = clock::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.look_at_usage();
            }
            self.look_at_clock(now);
        }
        for stream in 0..STREAMS.len() {
            self.read_output(stream, client);
            if let Some(chunk) = self.splitters[stream].finish() {
                self.event(client, stream, chunk);
            }
        }
        match self.refused.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Sleeps until something happens, and takes it in.
    fn wait(&mut self, client: &mut Connection, next_tick: Duration) -> Result<(), HostError> {
        let reading = client.unsent() < MOST_UNREAD;
        let readable = |wanted: bool| if wanted { PollFlags::IN } else { PollFlags::empty() };
        let mut watched = vec![
            PollFd::from_borrowed_fd(self.stage.control.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(client.as_fd(), client.interest()),
        ];
        let streams: Vec<_> = (0..STREAMS.len())
            .filter(|&stream| self.open[stream] && reading)
            .collect();
        watched.extend(
            streams
                .iter()
                .map(|&stream| PollFd::new(&self.stage.output[stream], readable(true))),
        );
        let refusals = self.refusals.as_ref().filter(|_| self.kill.is_none());
        watched.extend(refusals.map(|file| PollFd::new(file, PollFlags::PRI)));

        let left = self.deadline().min(next_tick).saturating_sub(clock::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing(|| "watch the job".to_owned())?,
        }
        let events: Vec<PollFlags> = watched.iter().map(PollFd::revents).collect();
        drop(watched);

        if client.attend(events[1]).is_err() {
            self.end_for(Kill::Cancelled);
        }
        for (&stream, events) in streams.iter().zip(&events[2..]) {
            if !events.is_empty() {
                self.read_output(stream, client);
            }
        }
        if events
            .get(2 + streams.len())
            .is_some_and(|events| events.contains(PollFlags::PRI))
        {
            self.end_for(Kill::Processes);
        }
        if !events[0].is_empty() {
            self.read_reports(client);
        }
        Ok(())
    }

    /// When the next thing is due that is no event.
    fn deadline(&self) -> Duration {
        match (&self.kill, self.started) {
            (Some((_, since)), _) => *since + GRACE,
            (None, Some(started)) => started + self.timeout(),
            (None, None) => self.received + PREPARATION,
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.job.timeout.clamp(0.0, MAX_TIMEOUT))
    }

    fn look_at_clock(&mut self, now: Duration) {
        if now < self.deadline() {
            return;
        }
        match (&self.kill, self.started) {
            (Some(_), _) => {
                // It does not die: what it holds on to dies with the machine.
                self.stage.process.kill();
                self.stage_gone = true;
            }
            (None, Some(_)) => self.end_for(Kill::Timeout(Clock::Wall)),
            (None, None) => {
                self.refused = Some(HostError::new(
                    ErrorCode::ConfineFailed,
                    format!("the job was not started within {} s", PREPARATION.as_secs()),
                ));
            }
        }
    }

    fn look_at_usage(&mut self) {
        if self.started.is_none() || self.kill.is_some() {
            return;
        }
        self.guest.parking.make_room(self.guest.memory);
        if let (Some(limit), Some(cgroup)) = (self.limits.cpu_ms, self.cgroup)
            && cgroup.cpu_time() >= Duration::from_millis(limit)
        {
            self.end_for(Kill::Timeout(Clock::Cpu));
        } else if self.directories.disk_full() {
            self.end_for(Kill::Disk);
        } else if self.is_out_of_memory() {
            self.end_for(Kill::Memory);
        }
    }

    fn is_out_of_memory(&mut self) -> bool {
        let limit = self.limits.memory_bytes;
        let Some(cgroup) = self.cgroup.filter(|cgroup| cgroup.is_filled(limit)) else {
            self.pressed = 0;
            return false;
        };
        let hits = cgroup.limit_hits();
        self.pressed = if hits > self.limit_hits {
            self.pressed + 1
        } else {
            0
        };
        self.limit_hits = hits;
        self.pressed >= PRESSED
    }

    /// Kills the job; the first reason counts.
    fn end_for(&mut self, reason: Kill) {
        if self.kill.is_none() {
            self.kill = Some((reason, clock::now()));
            self.stage.kill(self.cgroup);
        }
    }

    fn read_reports(&mut self, client: &mut Connection) {
        let mut buffer = vec![0; 64 << 10];
        match (&self.stage.control).read(&mut buffer) {
            Ok(0) => self.stage_gone = true,
            Ok(n) => self.reports.push(&buffer[..n]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.stage_gone = true,
        }
        while let Ok(Some(payload)) = self.reports.next_frame() {
            match decode_message(&payload) {
                Ok(report) => self.take(report, client),
                Err(_) => self.stage_gone = true,
            }
        }
    }

    fn take(&mut self, report: Report, client: &mut Connection) {
        match report {
            // Heard when it was parked.
            Report::Parked => {}
            Report::Refused(error) => self.refused = Some(error),
            Report::Started { at } => {
                self.started = Some(at);
                if self.job.stream {
                    client.queue(&Event::Started);
                }
            }
            Report::Compiled { at } => self.compiled = Some(at),
            Report::Files(files) => self.files = files,
            Report::Ended(end) => self.end = Some(end),
        }
    }

    /// Reads all that a stream has now.
    fn read_output(&mut self, stream: usize, client: &mut Connection) {
        let mut buffer = vec![0; 64 << 10];
        while self.open[stream] {
            match (&self.stage.output[stream]).read(&mut buffer) {
                Ok(0) => self.open[stream] = false,
                Ok(n) => {
                    let kept = self.captures[stream].push(&buffer[..n]);
                    if let Some(chunk) = self.splitters[stream].push(kept) {
                        self.event(client, stream, chunk);
                    }
                    if self.captures[stream].truncated() {
                        self.open[stream] = false;
                        self.end_for(Kill::Output(STREAMS[stream]));
                    }
                    if client.unsent() >= MOST_UNREAD && self.end.is_none() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn event(&self, client: &mut Connection, stream: usize, chunk: protocol::job::Chunk) {
        if self.job.stream {
            client.queue(&if stream == 0 {
                Event::Stdout(chunk)
            } else {
                Event::Stderr(chunk)
            });
        }
    }

    fn response(mut self) -> Result<JobResponse, HostError> {
        let Some(started) = self.started else {
            return Err(match self.kill {
                Some((Kill::Cancelled, _)) => HostError::new(ErrorCode::Cancelled, "the client went away"),
                _ => HostError::new(ErrorCode::Internal, "the job's stage ended without a word"),
            });
        };
        let ended = self.end.map_or_else(clock::now, |end| end.at);
        let peak = self.cgroup.and_then(Cgroup::peak_memory);
        let (termination, exit_code) = verdict(&self.seen(peak));
        let truncated = Truncated {
            stdout: self.captures[0].truncated(),
            stderr: self.captures[1].truncated(),
        };
        let span = ended.saturating_sub(started);
        let timings = Timings {
            confine: Some(milliseconds(started.saturating_sub(self.received))),
            compile: self
                .compile_end(ended)
                .map(|end| milliseconds(end.saturating_sub(started))),
            exec: Some(milliseconds(span)),
            ..Timings::default()
        };
        let usage = Usage {
            wall_ms: u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
            cpu_ms: u64::try_from(self.cpu().as_millis()).unwrap_or(u64::MAX),
            peak_memory_bytes: peak.or(self.end.map(|end| end.peak_bytes).filter(|bytes| *bytes > 0)),
        };
        let [stdout, stderr] = std::mem::replace(&mut self.captures, [Capture::new(0), Capture::new(0)]);
        let ((stdout, stdout_base64), (stderr, stderr_base64)) = (stdout.into_text(), stderr.into_text());
        Ok(JobResponse {
            trace_id: self.job.trace_id.clone(),
            stdout,
            stderr,
            exit_code,
            termination: Some(termination),
            usage: Some(usage),
            timings: Some(timings),
            truncated: (truncated.stdout || truncated.stderr).then_some(truncated),
            stdout_base64,
            stderr_base64,
            files: std::mem::take(&mut self.files),
            ..JobResponse::default()
        })
    }

    /// When the compiler was done; a job that got no further ended with it.
    fn compile_end(&self, ended: Duration) -> Option<Duration> {
        self.compiled.or_else(|| self.compiles.then_some(ended))
    }

    fn cpu(&self) -> Duration {
        let counted = self.end.map(|end| end.cpu).unwrap_or_default();
        self.cgroup.map_or(counted, Cgroup::cpu_time)
    }

    /// Why the job was killed; no reason when it was over before its time was up, and only its files were still read.
    fn effective_kill(&self) -> Option<&Kill> {
        let (kill, since) = self.kill.as_ref()?;
        let over = self.end.is_some_and(|end| end.at <= *since);
        (!over || !matches!(kill, Kill::Timeout(_))).then_some(kill)
    }

    /// Where there is no cgroup, a kill that the runner did not ask for while the kernel did kill for memory is the
    /// best that can be said.
    fn ran_out_of_memory(&self) -> bool {
        match self.cgroup {
            Some(cgroup) => cgroup.ran_out_of_memory(),
            None => {
                let killed = self
                    .end
                    .is_some_and(|end| end.exit == Exit::Signal(libc::SIGKILL));
                killed && cgroup::kills_of_the_guest() > self.kills_before
            }
        }
    }

    fn seen(&self, peak: Option<u64>) -> Seen {
        Seen {
            kill: self.effective_kill().cloned(),
            exit: self.end.map(|end| end.exit),
            out_of_memory: self.ran_out_of_memory(),
            out_of_processes: self.cgroup.is_some_and(Cgroup::refused_processes)
                || self.end.is_some_and(|end| end.out_of_processes),
            disk_full: self.directories.disk_full(),
            peak_bytes: peak.unwrap_or(0),
            pids: self.limits.pids,
        }
    }
}
