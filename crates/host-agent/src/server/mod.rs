//! The HTTP of `serve`: requests become types, types become answers, and nothing else happens here.
//!
//! ```text
//! agent.sock ─► peer is this user or root ─┬─► POST /v1/execute ─► Service::execute ─► JSON
//! --listen ───► API key, its rate ─────────┤                            └─ Event… ──► text/event-stream
//!                                          └─► GET /healthz /readyz /v1/pool
//! ```
//!
//! A client that goes away takes its job along: the handler is dropped, and with it the sandbox.

pub(crate) mod caller;
mod connections;
pub(crate) mod events;
mod problem;

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::future::try_join_all;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use protocol::limits::MAX_FRAME;
use protocol::{ErrorCode, HostError};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

use self::caller::{Caller, Door, Peer, check_key, check_peer};
use self::problem::problem;
use crate::keys::Keyring;
use crate::service::{ExecuteRequest, Refusal, Service};

/// How long the body of a request may take to come.
const BODY: Duration = Duration::from_secs(60);
/// What the requests of all clients with a key may hold together, in KiB, until each is answered.
static HELD_REMOTE: Semaphore = Semaphore::const_new(256 << 10);
/// The same of those on this machine, whom the others cannot shut out.
static HELD_LOCAL: Semaphore = Semaphore::const_new(256 << 10);
/// Who may connect: the owner and their group (where they can reach the directory).
const SOCKET_MODE: u32 = 0o660;

/// Binds the socket in the runtime directory. One that a killed service left is replaced.
///
/// # Errors
/// Another service listens there, or the socket cannot be made.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Binds a TCP port. Only this machine can reach it.
///
/// # Errors
/// The address is reachable from elsewhere, or cannot be used.
pub(crate) async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, HostError> {
    if !address.ip().is_loopback() {
        let cause = format!(
            "--listen {address} can be reached from other machines, and keys would cross the network in the clear"
        );
        return Err(HostError::new(ErrorCode::InvalidRequest, cause)
            .remedy("listen at 127.0.0.1, and put a proxy with TLS before it"));
    }
    TcpListener::bind(address).await.map_err(|error| {
        HostError::new(
            ErrorCode::StateUnusable,
            format!("cannot listen at {address}: {error}"),
        )
        .remedy("name another port, or end what listens there")
    })
}

/// Answers requests until `stop` is set, and then until those under way have been answered. Over TCP they need a key.
///
/// # Errors
/// A listener failed.
pub(crate) async fn serve(
    socket: UnixListener,
    ports: Vec<TcpListener>,
    keyring: Keyring,
    service: Arc<Service>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let stopped = || {
        let mut stop = stop.clone();
        async move {
            let _ = stop.wait_for(|stop| *stop).await;
        }
    };
    let most = service.most_connections();
    let local = routes(Arc::clone(&service)).layer(from_fn(check_peer));
    let local = connections::serve(
        socket,
        most,
        local,
        |stream| Peer(stream.peer_cred().ok()),
        stopped(),
    );
    let door = Arc::new(Door::new(keyring));
    let remote = routes(service).layer(from_fn_with_state(door, check_key));
    let remote = ports
        .into_iter()
        .map(|port| connections::serve(port, most, remote.clone(), |_| (), stopped()));
    tokio::try_join!(local, try_join_all(remote)).map(drop)
}

fn routes(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/execute", post(execute))
        .route("/v1/pool", get(pool))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(no_such_resource)
        .method_not_allowed_fallback(no_such_method)
        .with_state(service)
}

async fn no_such_resource() -> Response {
    let error = HostError::new(ErrorCode::InvalidRequest, "there is nothing at this path")
        .remedy("use POST /v1/execute, GET /v1/pool, GET /readyz or GET /healthz");
    problem(StatusCode::NOT_FOUND, &error)
}

async fn no_such_method() -> Response {
    let error = HostError::new(ErrorCode::InvalidRequest, "this path has another method")
        .remedy("use POST for /v1/execute and GET for all else");
    problem(StatusCode::METHOD_NOT_ALLOWED, &error)
}

/// The body of a request: so long, and within so much time. With it comes the right to hold that much.
async fn read(request: Request, caller: &Caller) -> Result<(Bytes, SemaphorePermit<'static>), Response> {
    let too_long = || {
        let cause = format!("the request is over {MAX_FRAME} bytes");
        let error = HostError::new(ErrorCode::InvalidRequest, cause).remedy("send less, or less at a time");
        problem(StatusCode::PAYLOAD_TOO_LARGE, &error)
    };
    // One that says so beforehand is not waited for.
    if request.body().size_hint().lower() > MAX_FRAME as u64 {
        return Err(too_long());
    }
    let room = if caller.is_local {
        &HELD_LOCAL
    } else {
        &HELD_REMOTE
    };
    match timeout(BODY, collect(request.into_body(), room)).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(Unread::TooLong)) => Err(too_long()),
        Ok(Err(Unread::NoRoom)) => {
            let cause = "the requests that wait hold as much data as the service takes";
            let error = HostError::new(ErrorCode::QueueFull, cause).remedy("try again in 1 s");
            Err(problem::of_refusal(&Refusal {
                error,
                retry_after: Some(Duration::from_secs(1)),
            }))
        }
        Ok(Err(Unread::Broken(error))) => {
            let cause = format!("the request did not come whole: {error}");
            Err(problem::of(&HostError::new(ErrorCode::InvalidRequest, cause)))
        }
        Err(_) => {
            let cause = format!("the request did not come whole within {} s", BODY.as_secs());
            let error = HostError::new(ErrorCode::InvalidRequest, cause);
            Err(problem(StatusCode::REQUEST_TIMEOUT, &error))
        }
    }
}

/// Why a body was not read.
enum Unread {
    TooLong,
    NoRoom,
    Broken(axum::Error),
}

/// Takes a body in piece by piece, and room for each before the next.
async fn collect(
    mut body: Body,
    room: &'static Semaphore,
) -> Result<(Bytes, SemaphorePermit<'static>), Unread> {
    let (mut collected, mut held) = (Vec::new(), 0);
    let mut permit = room.try_acquire_many(0).map_err(|_| Unread::NoRoom)?;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else {
            continue;
        };
        if collected.len() + data.len() > MAX_FRAME {
            return Err(Unread::TooLong);
        }
        collected.extend_from_slice(&data);
        let needed = u32::try_from(collected.len().div_ceil(1024)).unwrap_or(u32::MAX);
        let more = room.try_acquire_many(needed - held);
        permit.merge(more.map_err(|_| Unread::NoRoom)?);
        held = needed;
    }
    Ok((collected.into(), permit))
}

async fn execute(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let events = wants_events(request.headers());
    let (body, held) = match read(request, &caller).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let mut request: ExecuteRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return problem::of(&ExecuteRequest::refusal(&body, &error)),
    };
    // It may be padded, and the job may wait for long.
    drop(body);
    request.job.stream |= events;
    let admitted = match service.admit(&caller, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return problem::of_refusal(&refusal),
    };
    if events {
        return events::response(service, admitted, held);
    }
    match service.execute(admitted, |_| {}).await {
        Ok(response) => json(&response),
        Err(error) => problem::of(&error),
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains(events::CONTENT_TYPE))
}

async fn pool(State(service): State<Arc<Service>>) -> Response {
    json(&service.pool().await)
}

/// 200 as long as jobs are taken; what is slow meanwhile, and why, is in the body.
async fn ready(State(service): State<Arc<Service>>) -> Response {
    json(&service.readiness())
}

fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response(),
        Err(error) => problem::of(&HostError::new(
            ErrorCode::Internal,
            format!("cannot write JSON: {error}"),
        )),
    }
}
