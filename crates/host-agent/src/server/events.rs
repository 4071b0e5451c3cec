//! A job's events over HTTP: `text/event-stream` with `stdout`, `stderr` and at the end `result` or `error`, each with one
//! line of JSON (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use protocol::{Event, HostError, JobResponse};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::room::Held;
use crate::service::{Admitted, Service};

/// As requests accept it and answers name it.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream";
/// The names of events.
pub(crate) const STDOUT: &str = "stdout";
pub(crate) const STDERR: &str = "stderr";
pub(crate) const RESULT: &str = "result";
pub(crate) const ERROR: &str = "error";

/// Ends the job when nobody reads its events any more.
struct Job(AbortHandle);

impl Drop for Job {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a job and answers with its events as they come. What a reader has not taken yet is bounded by what a job may print.
pub(super) fn response(service: Arc<Service>, admitted: Admitted, held: Held) -> Response {
    let (events, received) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let passed = events.clone();
        let answered = service
            .execute(admitted, move |event| drop(passed.send(line(&event))))
            .await;
        let _ = events.send(last(answered));
        drop(held);
    });
    let job = Job(task.abort_handle());
    let body = stream::unfold((received, job), |(mut received, job)| async move {
        let piece = received.recv().await?;
        Some((Ok::<_, Infallible>(piece), (received, job)))
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(body)).into_response()
}

fn line(event: &Event) -> Bytes {
    match event {
        Event::Started => encode("started", &serde_json::json!({})),
        Event::Stdout(chunk) => encode(STDOUT, chunk),
        Event::Stderr(chunk) => encode(STDERR, chunk),
    }
}

fn last(answered: Result<JobResponse, HostError>) -> Bytes {
    match answered {
        Ok(response) => encode(RESULT, &response),
        Err(error) => encode(ERROR, &error),
    }
}

/// JSON has no newline outside of strings, and inside them it is escaped.
fn encode(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    format!("event: {name}\ndata: {data}\n\n").into()
}
