//! HTTP connections to this process, bounded in number and in what they may take their time with.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How long a client may take for the head of its first request. One that has nothing to say need not be connected.
const FIRST_HEAD: Duration = Duration::from_secs(10);

/// How long a connection is kept without the (whole) head of another request: longer than the minute after which common
/// load balancers give up theirs, as the side that closes first must not be the one that is about to be asked.
const NEXT_HEAD: Duration = Duration::from_secs(75);

/// How long a client may leave an answer unread, as far as it does not fit into the buffers of the connection.
const UNREAD: Duration = Duration::from_secs(30);

/// Bytes of the head of a request.
const MAX_HEAD: usize = 64 * 1024;

/// How long to wait after a failed accept: most such failures, as of file descriptors, last a while.
const PAUSE: Duration = Duration::from_millis(500);

/// Who is at the other end of a connection; among a request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves so many connections at once; further ones wait in the kernel until others end. From `stop` on no request is
/// taken up, and it returns when those that were are answered.
pub async fn serve(listener: TcpListener, router: Router, connections: usize, stop: CancellationToken) {
    // Done once: a bare router is otherwise copied for each connection, as a whole.
    let router = router.with_state(());
    let room = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    let accepted = async || {
        // Never closed.
        let permit = Arc::clone(&room).acquire_owned().await.ok();
        (listener.accept().await, permit)
    };
    let mut was_full = false;
    while let Some((accepted, permit)) = stop.run_until_cancelled(accepted()).await {
        let is_full = room.available_permits() == 0;
        if is_full && !was_full {
            tracing::warn!(connections, "there are as many connections as may be; further ones wait");
        }
        was_full = is_full;
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, peer, router.clone(), graceful.watcher(), permit));
            }
            // Of one client that has gone again.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; trying again");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
    _permit: Option<OwnedSemaphorePermit>,
) {
    // What fails here fails because the client has gone.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD));
    let has_asked = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&has_asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Peer(peer));
        let mut router = router.clone();
        async move { Ok::<_, Infallible>(router.call(request.map(Body::new)).await.unwrap_or_else(|never| match never {})) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(watcher.watch(served));
    tokio::select! {
        _ = &mut served => return,
        () = sleep(FIRST_HEAD) => {}
    }
    if has_asked.load(Ordering::Relaxed) {
        // An error is of the connection, and its client sees as much of it as we do.
        let _ = served.await;
    }
}
