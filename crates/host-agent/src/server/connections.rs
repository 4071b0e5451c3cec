//! Connections of clients: so many at a time, each with a deadline for its headers and for taking what it is sent, all told when
//! the service ends.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::Semaphore;
use tower_service::Service as _;

use super::stream::Stream;

/// How long a client may take to send the head of a request, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Answers the requests of at most `most` clients at a time until `stop` resolves, and then those under way. `mark` says of a
/// connection what handlers find in the extensions of its requests.
pub(super) async fn serve<L, M>(
    mut listener: L,
    most: usize,
    router: Router,
    mark: impl Fn(&L::Io) -> M,
    stop: impl Future<Output = ()>,
) -> io::Result<()>
where
    L: Listener,
    M: Clone + Send + Sync + 'static,
{
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        // Who comes when all places are taken waits in the listener's backlog.
        let connected = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await.0)
        };
        let (place, stream) = tokio::select! {
            biased;
            () = &mut stop => break,
            connected = connected => connected,
        };
        let (router, mark) = (router.clone(), mark(&stream));
        let answer = service_fn(move |request| answer(router.clone(), mark.clone(), request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Stream::new(stream)), answer);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "A connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

async fn answer<M>(
    mut router: Router,
    mark: M,
    request: hyper::Request<Incoming>,
) -> Result<Response, Infallible>
where
    M: Clone + Send + Sync + 'static,
{
    let mut request: Request = request.map(Body::new);
    request.extensions_mut().insert(mark);
    router.call(request).await
}
