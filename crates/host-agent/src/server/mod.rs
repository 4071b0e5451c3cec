//! The HTTP of `serve`: requests become types, types become answers, and nothing else happens here.
//!
//! ```text
//! agent.sock ─► peer is this user or root ─┬─► trace id ─► routes/<endpoint> ─► Service ─► JSON
//! --listen ───► API key, its rate ─────────┘                                       └─ Event… ──► text/event-stream
//! ```
//!
//! A client that goes away takes its job along: the handler is dropped, and with it the sandbox.

mod accept;
mod body;
pub(crate) mod caller;
mod connections;
mod docs;
pub(crate) mod events;
mod idempotency;
mod openapi;
mod problem;
mod room;
mod routes;
mod stream;
mod trace;

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::future::try_join_all;
use protocol::{ErrorCode, HostError};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use self::caller::{Caller, Door, Peer, check_key, check_peer};
use self::idempotency::Replays;
use self::room::{Held, Room};
use crate::keys::Keyring;
use crate::service::Service;

/// Where the OpenAPI document is.
const DOCUMENT: &str = "/v1/openapi.json";
/// What the requests of all clients with a key may hold together, in bytes, until each is answered.
const HELD_REMOTE: usize = 256 << 20;
/// The same of those on this machine, whom the others cannot shut out. They are one tenant, which may hold half of it.
const HELD_LOCAL: usize = 512 << 20;
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
    let carry = from_fn_with_state(service.metrics(), trace::carry);
    let router = router(service);
    let local = router.clone().layer(from_fn(check_peer)).layer(carry.clone());
    let local = connections::serve(
        socket,
        most,
        local,
        |stream| Peer(stream.peer_cred().ok()),
        stopped(),
    );
    let door = Arc::new(Door::new(keyring));
    let remote = router.layer(from_fn_with_state(door, check_key)).layer(carry);
    let remote = ports
        .into_iter()
        .map(|port| connections::serve(port, most, remote.clone(), |_| (), stopped()));
    tokio::try_join!(local, try_join_all(remote)).map(drop)
}

/// What the routes have in common.
struct Api {
    service: Arc<Service>,
    remote: Room,
    local: Room,
    replays: Replays,
}

impl Api {
    /// What the caller's request may hold, nothing yet.
    fn held(&self, caller: &Caller) -> Held {
        let room = if caller.is_local {
            &self.local
        } else {
            &self.remote
        };
        room.of(&caller.tenant)
    }
}

fn router(service: Arc<Service>) -> Router {
    let api = Arc::new(Api {
        service,
        remote: Room::new(HELD_REMOTE),
        local: Room::new(HELD_LOCAL),
        replays: Replays::new(),
    });
    let document = openapi::document();
    let page = docs::page(&document);
    let document = Bytes::from(document.to_string());
    let (router, _) = routes::router().split_for_parts();
    router
        .route(
            DOCUMENT,
            get(async || ([(header::CONTENT_TYPE, accept::JSON)], document)),
        )
        .route("/docs", get(async || docs::response(page)))
        .fallback(routes::no_such_resource)
        .method_not_allowed_fallback(routes::no_such_method)
        .with_state(api)
}

fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, accept::JSON)], Body::from(body)).into_response(),
        Err(error) => problem::of(HostError::new(
            ErrorCode::Internal,
            format!("cannot write JSON: {error}"),
        )),
    }
}
