//! HTTP connections to this process, bounded in number and in time.

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

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, header::CONNECTION},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Longest time for the head of a connection's first request. A client without a request need not be connected.
const FIRST_HEAD: Duration = Duration::from_secs(10);

/// Longest time until the complete head of another request: longer than the minute after which common load balancers
/// close idle connections. The side that closes first must not be the side about to receive a request.
const NEXT_HEAD: Duration = Duration::from_secs(75);

/// Longest time that a response may stay unread, beyond the buffers of the connection.
const UNREAD: Duration = Duration::from_secs(30);

/// Maximum size of a request's head, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Time after the stop in which open connections still take requests. Each answer ends its connection by `connection:
/// close`: the end of a connection without an answer would cross the next request of its client. A client that sends
/// less often meets the end of an idle connection, as ever.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Interval of looks whether a connection is still open after the stop.
const LOOK: Duration = Duration::from_millis(20);

/// Wait after a failed accept. Most such failures, such as a lack of file descriptors, last for a while.
const PAUSE: Duration = Duration::from_millis(500);

/// Address of the client; among a request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Room for connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room {
    free: Arc<Semaphore>,
    limit: usize,
}

impl Room {
    /// Room for up to `limit` connections.
    pub fn new(limit: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(limit)), limit }
    }

    /// Number of open connections. A connection that is awaited counts, too.
    pub fn used(&self) -> usize {
        self.limit - self.free.available_permits()
    }

    /// Maximum of connections.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// Serves while there is room. Further connections wait in the kernel until others end. After `stop`, accepts no more
/// connections, a second later no more requests, and returns when all accepted requests are answered.
pub async fn serve(listener: TcpListener, router: Router, room: Room, stop: CancellationToken) {
    // Done once, or each connection would copy the whole router.
    let router = router.with_state(());
    let graceful = GracefulShutdown::new();
    let accepted = async || {
        // The semaphore is never closed.
        let permit = Arc::clone(&room.free).acquire_owned().await.ok();
        (listener.accept().await, permit)
    };
    let begin = |stream, peer, permit| {
        let serving = Serving { router: router.clone(), stop: stop.clone() };
        tokio::spawn(connection(stream, peer, serving, graceful.watcher(), permit));
    };
    let mut was_full = false;
    while let Some((accepted, permit)) = stop.run_until_cancelled(accepted()).await {
        let is_full = room.free.available_permits() == 0;
        if is_full && !was_full {
            tracing::warn!(connections = room.limit, "the limit of connections is reached; further connections wait");
        }
        was_full = is_full;
        match accepted {
            Ok((stream, peer)) => begin(stream, peer, permit),
            // A client that disconnected before the accept.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; trying again");
                sleep(PAUSE).await;
            }
        }
    }
    // Clients whose connection the kernel has accepted may have sent a request. Without room, they meet a reset.
    if let Ok(listener) = listener.into_std() {
        while let Ok(permit) = Arc::clone(&room.free).try_acquire_owned() {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    if let Ok(stream) = stream {
                        begin(stream, peer, Some(permit));
                    }
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(_) => break,
            }
        }
    }
    let end = Instant::now() + LAST_REQUESTS;
    while room.used() > 0 && Instant::now() < end {
        sleep(LOOK).await;
    }
    graceful.shutdown().await;
}

/// Answers the requests of a connection.
#[derive(Clone)]
struct Serving {
    router: Router,
    stop: CancellationToken,
}

impl Serving {
    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let mut answer = self.router.call(request.map(Body::new)).await?;
        if self.stop.is_cancelled() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    serving: Serving,
    watcher: Watcher,
    _permit: Option<OwnedSemaphorePermit>,
) {
    // A failure here means that the client has disconnected.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD));
    let has_asked = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&has_asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Peer(peer));
        serving.clone().answer(request)
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
        // An error concerns this connection only, and the client notices as much.
        let _ = served.await;
    }
}
