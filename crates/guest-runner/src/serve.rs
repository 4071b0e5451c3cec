//! Connections: what comes in on the job port and on the control port, and what is answered. Every request gets an
//! answer that says what was wrong with it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use protocol::control::ControlResponse;
use protocol::frame::{FrameError, decode_message};
use protocol::limits::{CONTROL_PORT, JOB_PORT};
use protocol::{ControlRequest, ErrorCode, HostError, JobRequest, JobResponse, Language};
use serde_json::Value;

use crate::connection::Connection;
use crate::guest::{Extent, Guest};
use crate::{clock, clone};
use crate::{park, power, run};

/// Connections at a time; more are closed at once.
const MOST_CONNECTIONS: usize = 32;

/// Takes connections and serves each in a thread of its own.
#[derive(Clone)]
pub(crate) struct Server {
    guest: Arc<Guest>,
    connections: Arc<AtomicUsize>,
    workers: Arc<Workers>,
}

impl Server {
    pub(crate) fn new(guest: Guest) -> Self {
        Self {
            guest: Arc::new(guest),
            connections: Arc::default(),
            workers: Arc::default(),
        }
    }

    /// Serves a connection to `port`; one to another port, or one too many, is closed.
    pub(crate) fn accept(&self, port: u32, socket: OwnedFd) {
        let place = Place::take(&self.connections);
        let (Some(place), Ok(connection)) = (place, Connection::new(socket)) else {
            return;
        };
        let guest = Arc::clone(&self.guest);
        let serve = move || {
            let _place = place;
            match port {
                JOB_PORT => serve_jobs(&guest, connection),
                CONTROL_PORT => serve_control(&guest, connection),
                _ => {}
            }
        };
        if let Err(error) = self.workers.give(Box::new(serve)) {
            eprintln!("guest-runner: cannot serve a connection: {error}");
        }
    }
}

/// Threads that stay when their connection has ended: in a clone the next one need not wait for a thread. There are at most as
/// many as there were connections at a time.
#[derive(Default)]
struct Workers {
    state: Mutex<Work>,
    given: Condvar,
}

#[derive(Default)]
struct Work {
    waiting: VecDeque<Task>,
    /// Threads that have none.
    idle: usize,
}

type Task = Box<dyn FnOnce() + Send>;

impl Workers {
    fn give(self: &Arc<Self>, task: Task) -> io::Result<()> {
        let mut work = self.lock();
        work.waiting.push_back(task);
        if work.waiting.len() <= work.idle {
            self.given.notify_one();
            return Ok(());
        }
        let workers = Arc::clone(self);
        let thread = std::thread::Builder::new().stack_size(crate::THREAD_STACK);
        let started = thread.spawn(move || workers.work());
        if started.is_err() {
            work.waiting.pop_back();
        }
        started.map(drop)
    }

    fn work(&self) {
        let mut work = self.lock();
        loop {
            if let Some(task) = work.waiting.pop_front() {
                drop(work);
                task();
                work = self.lock();
            } else {
                work.idle += 1;
                work = self.given.wait(work).unwrap_or_else(PoisonError::into_inner);
                work.idle -= 1;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the connections that there may be.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(connections));
        (connections.fetch_add(1, Ordering::Relaxed) < MOST_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve_jobs(guest: &Guest, mut client: Connection) {
    loop {
        match client.request() {
            Ok(Some(payload)) => {
                if serve_job(guest, &mut client, &payload).is_err() {
                    return;
                }
            }
            Ok(None) | Err(FrameError::Io(_)) => return,
            Err(error) => {
                let _ = client.send(&JobResponse::refused("", unreadable(&error)));
                return;
            }
        }
    }
}

/// An error ends the connection.
fn serve_job(guest: &Guest, client: &mut Connection, payload: &[u8]) -> Result<(), FrameError> {
    let received = clock::now();
    let job = match parse(payload) {
        Ok(job) => job,
        Err(error) => {
            client.send(&JobResponse::refused(error.trace_id.clone(), error))?;
            return Err(FrameError::Truncated);
        }
    };
    match job
        .validate()
        .and_then(|()| run::run(guest, client, &job, payload, received))
    {
        Ok(finished) => finished.settle(|response| respond(client, response)),
        Err(error) => client.send(&JobResponse::refused(
            &job.trace_id,
            error.trace_id(&job.trace_id),
        )),
    }
}

/// Files that make a response too large for a frame are left out: their absence says so.
fn respond(client: &mut Connection, response: &mut JobResponse) -> Result<(), FrameError> {
    match client.send(response) {
        Err(FrameError::TooLarge(_)) => {
            for file in &mut response.files {
                file.content = None;
                file.content_base64 = None;
            }
            client.send(response)
        }
        sent => sent,
    }
}

/// The job in a payload, or what is wrong with it, as precisely as can be said.
fn parse(payload: &[u8]) -> Result<JobRequest, HostError> {
    let refused = |cause: String| HostError::new(ErrorCode::InvalidRequest, cause);
    decode_message(payload).map_err(|_| {
        let value: Value = match serde_json::from_slice(payload) {
            Ok(value) => value,
            Err(error) => return refused(format!("the request is not JSON: {error}")),
        };
        let trace_id = value.get("trace_id").and_then(Value::as_str).unwrap_or_default();
        let language = value
            .get("lang")
            .and_then(Value::as_str)
            .map(str::parse::<Language>);
        match (language, serde_json::from_slice::<JobRequest>(payload)) {
            (Some(Err(unknown)), _) => unknown,
            (_, Err(error)) => refused(format!("the request is not a job: {error}")),
            (_, Ok(_)) => refused("the request is not a job".to_owned()),
        }
        .trace_id(
            trace_id
                .chars()
                .take(protocol::limits::MAX_TRACE_ID)
                .collect::<String>(),
        )
    })
}

fn serve_control(guest: &Arc<Guest>, mut client: Connection) {
    loop {
        let answer = match client.request() {
            Ok(Some(payload)) => answer(guest, &payload),
            Ok(None) | Err(FrameError::Io(_)) => return,
            Err(error) => ControlResponse::Error(unreadable(&error)),
        };
        if client.send(&answer).is_err() || matches!(answer, ControlResponse::Error(_)) {
            return;
        }
        if answer == ControlResponse::Shutdown {
            match guest.extent {
                Extent::Machine => power::off(),
                Extent::Process => std::process::exit(0),
            }
        }
    }
}

fn answer(guest: &Arc<Guest>, payload: &[u8]) -> ControlResponse {
    match decode_message(payload) {
        Ok(ControlRequest::Hello) => ControlResponse::Hello(guest.hello()),
        Ok(ControlRequest::Park(wanted)) => match park::park(guest, wanted) {
            Ok(parked) => ControlResponse::Parked(parked),
            Err(error) => ControlResponse::Error(error),
        },
        Ok(ControlRequest::Identity(identity)) => match clone::become_own(guest, &identity) {
            Ok(confirmed) => ControlResponse::Identity(confirmed),
            Err(error) => ControlResponse::Error(error),
        },
        Ok(ControlRequest::Shutdown) => ControlResponse::Shutdown,
        Err(_) => ControlResponse::Error(HostError::new(
            ErrorCode::UnknownRequest,
            "the request is not one that this guest-runner knows",
        )),
    }
}

fn unreadable(error: &FrameError) -> HostError {
    HostError::new(ErrorCode::InvalidRequest, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(payload: &[u8]) -> HostError {
        parse(payload).unwrap_err()
    }

    #[test]
    fn a_job_of_the_first_version() {
        let job = parse(br#"{"trace_id":"t","lang":"python","code":"print(1)","timeout":30}"#).unwrap();
        assert_eq!(job, JobRequest::new("t", Language::Python, "print(1)"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(refusal(b"{").code, ErrorCode::InvalidRequest);
        assert_eq!(refusal(b"\xff").code, ErrorCode::InvalidRequest);
        let unknown = refusal(br#"{"trace_id":"t","lang":"cobol","code":"x"}"#);
        assert_eq!(
            (unknown.code, unknown.trace_id.as_str()),
            (ErrorCode::UnknownLanguage, "t")
        );
        let missing = refusal(br#"{"trace_id":"t","lang":"bash"}"#);
        assert_eq!(missing.code, ErrorCode::InvalidRequest);
        assert!(missing.cause.contains("code"), "{}", missing.cause);
    }

    #[test]
    fn places_are_given_back() {
        let connections = Arc::default();
        let places: Vec<_> = (0..MOST_CONNECTIONS)
            .map(|_| Place::take(&connections).unwrap())
            .collect();
        assert!(Place::take(&connections).is_none());
        drop(places);
        assert!(Place::take(&connections).is_some());
    }
}
