//! The HTTP of `serve`: requests become types, types become answers, and nothing else happens here.
//!
//! ```text
//! agent.sock ─► peer is this user or root ─► POST /v1/execute ─► Service::execute ─► JSON
//!                                        │                            └─ Event… ──► text/event-stream
//!                                        └─► GET /healthz /readyz /v1/pool
//! ```
//!
//! A client that goes away takes its job along: the handler is dropped, and with it the sandbox.

pub(crate) mod events;
mod problem;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use protocol::limits::MAX_FRAME;
use protocol::{ErrorCode, HostError};
use rustix::process::{getegid, geteuid};
use tokio::net::UnixListener;
use tokio::net::unix::UCred;

use self::problem::problem;
use crate::service::{ExecuteRequest, Service};

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

/// Answers requests until `stop` resolves, and then until those under way have been answered.
///
/// # Errors
/// The listener failed.
pub(crate) async fn serve(
    listener: UnixListener,
    service: Arc<Service>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/execute", post(execute))
        .route("/v1/pool", get(pool))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(no_such_resource)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_FRAME))
        .layer(from_fn(check_peer))
        .with_state(service);
    axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop)
        .await
}

/// Who is at the other end (SO_PEERCRED, unix(7)).
#[derive(Debug, Clone)]
struct Peer(Option<UCred>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok())
    }
}

impl Peer {
    /// Root, this user, or a member of this group by their first group.
    fn is_allowed(&self) -> bool {
        self.0.is_some_and(|peer| {
            peer.uid() == 0 || peer.uid() == geteuid().as_raw() || peer.gid() == getegid().as_raw()
        })
    }
}

async fn check_peer(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    if peer.is_allowed() {
        next.run(request).await
    } else {
        let cause = "this socket is for the user who runs the service";
        problem(
            StatusCode::FORBIDDEN,
            &HostError::new(ErrorCode::InvalidRequest, cause),
        )
    }
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

fn unread(rejection: &BytesRejection) -> Response {
    let error = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let cause = format!("the request is over {MAX_FRAME} bytes");
        HostError::new(ErrorCode::InvalidRequest, cause).remedy("send less, or less at a time")
    } else {
        let cause = format!("the request did not come whole: {rejection}");
        HostError::new(ErrorCode::InvalidRequest, cause)
    };
    problem(rejection.status(), &error)
}

async fn execute(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return unread(&rejection),
    };
    let request: ExecuteRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return problem::of(&ExecuteRequest::refusal(&body, &error)),
    };
    if wants_events(&headers) {
        return events::response(service, request);
    }
    match service.execute(request, |_| {}).await {
        Ok(response) => json(&response),
        Err(refusal) => problem::of_refusal(&refusal),
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
