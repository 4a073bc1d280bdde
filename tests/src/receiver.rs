//! A receiver of webhooks that records all requests, independent of Fanfare.

pub mod signature;

use std::{
    collections::HashMap,
    net::SocketAddr,
    process::Command,
    sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};

use crate::patience::until;

/// A received request.
#[derive(Debug, Clone)]
pub struct Received {
    /// Time of arrival.
    pub at: Timestamp,
    /// The path, which identifies the endpoint.
    pub path: String,
    /// The headers, with names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// The answer given.
    pub behaviour: Behaviour,
}

impl Received {
    /// The value of a header; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The event id.
    pub fn event(&self) -> &str {
        self.header("webhook-id")
    }
}

/// The answer of an endpoint.
#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    /// A status, after a delay.
    Answer(u16, Duration),
    /// A status with a `Retry-After` in seconds.
    RetryAfter(u16, u32),
    /// A status with a `webhook-action`.
    Action(u16, &'static str),
    /// No answer.
    Hang,
    /// A closed connection.
    Reset,
    /// 200 with an endless body.
    EndlessBody,
    /// 200 with an endless body, sent at a byte per second.
    Drip,
    /// 200 with the body of the request.
    Echo,
    /// 200 with a small gzip body that unpacks to 256 MiB.
    Bomb,
}

impl Behaviour {
    /// 200 at once.
    pub const OK: Self = Self::Answer(200, Duration::ZERO);
    /// 500 at once.
    pub const FAIL: Self = Self::Answer(500, Duration::ZERO);

    /// True if the status is a 2xx, regardless of the body.
    pub fn succeeds(self) -> bool {
        match self {
            Self::Answer(status, _) | Self::RetryAfter(status, _) | Self::Action(status, _) => status / 100 == 2,
            Self::EndlessBody | Self::Drip | Self::Echo | Self::Bomb => true,
            Self::Hang | Self::Reset => false,
        }
    }
}

/// 256 MiB of zeros, packed by gzip.
fn bomb() -> Bytes {
    static BOMB: LazyLock<Bytes> = LazyLock::new(|| {
        let packed = Command::new("bash").args(["-c", "head -c 256M /dev/zero | gzip"]).output();
        packed.expect("gzip").stdout.into()
    });
    BOMB.clone()
}

#[derive(Default)]
struct Ledger {
    received: Vec<Received>,
    /// Remaining answers of each path, in reverse order. The last answer stays.
    scripts: HashMap<String, Vec<Behaviour>>,
}

/// A server on a free port. Each path is an endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    /// Hosts of the URLs, instead of the address.
    hosts: Arc<OnceLock<[&'static str; 2]>>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Receiver {
    /// Starts a receiver.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a local address");
        let receiver = Self { address, hosts: Arc::default(), ledger: Arc::default() };
        tokio::spawn(receiver.clone().accept(listener));
        receiver
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(self.clone().serve(stream));
        }
    }

    /// Address and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has all further URLs name a host: the second for the path `slow`, and the first otherwise. The second host is
    /// 127.0.0.2. Each answer then ends its connection, so that each request needs a look-up.
    ///
    /// # Panics
    /// If the receiver has hosts, or the port is not free at 127.0.0.2.
    pub async fn use_hosts(&self, hosts: [&'static str; 2]) {
        let second = TcpListener::bind(("127.0.0.2", self.address.port())).await.expect("the same port at 127.0.0.2");
        tokio::spawn(self.clone().accept(second));
        self.hosts.set(hosts).expect("no hosts yet");
    }

    /// The URL of an endpoint at this receiver.
    pub fn url(&self, path: &str) -> String {
        match self.hosts.get() {
            Some(hosts) => format!("http://{}:{}/{path}", hosts[usize::from(path == "slow")], self.address.port()),
            None => format!("http://{}/{path}", self.address),
        }
    }

    /// Sets the answers of an endpoint. The last answer serves all further requests.
    pub fn script(&self, path: &str, behaviours: &[Behaviour]) {
        let mut script = behaviours.to_vec();
        script.reverse();
        self.ledger().scripts.insert(format!("/{path}"), script);
    }

    /// All requests to an endpoint.
    pub fn received(&self, path: &str) -> Vec<Received> {
        let path = format!("/{path}");
        self.ledger().received.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// All requests.
    pub fn all(&self) -> Vec<Received> {
        self.ledger().received.clone()
    }

    /// Waits until an endpoint has at least `count` requests. Returns all requests.
    pub async fn wait_for(&self, path: &str, count: usize) -> Vec<Received> {
        until(&format!("{count} requests to /{path}"), async || {
            let received = self.received(path);
            (received.len() >= count).then_some(received)
        })
        .await
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| self.clone().answer(request));
        // A behaviour that closes the connection yields an error here.
        let keeps_alive = self.hosts.get().is_none();
        let _ = http1::Builder::new().keep_alive(keeps_alive).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> std::io::Result<Response<UnsyncBoxBody<Bytes, std::io::Error>>> {
        let (parts, body) = request.into_parts();
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let path = parts.uri.path().to_owned();
        let behaviour = {
            let mut ledger = self.ledger();
            let behaviour = match ledger.scripts.get_mut(&path) {
                Some(script) if script.len() > 1 => script.pop().unwrap_or(Behaviour::OK),
                Some(script) => script.last().copied().unwrap_or(Behaviour::OK),
                None => Behaviour::OK,
            };
            ledger.received.push(Received { at: Timestamp::now(), path, headers, body: body.to_vec(), behaviour });
            behaviour
        };
        let full = |text: &'static str| {
            Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
        };
        let response = Response::builder();
        match behaviour {
            Behaviour::Answer(status, wait) => {
                // The answer time of the script.
                tokio::time::sleep(wait).await;
                response.status(status).body(full("noted")).map_err(std::io::Error::other)
            }
            Behaviour::RetryAfter(status, seconds) => {
                let response = response.status(status).header("retry-after", seconds);
                response.body(full("later")).map_err(std::io::Error::other)
            }
            Behaviour::Action(status, action) => {
                let response = response.status(status).header("webhook-action", action);
                response.body(full("noted")).map_err(std::io::Error::other)
            }
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Reset => Err(std::io::Error::other("reset")),
            Behaviour::EndlessBody => {
                let chunk = Bytes::from_static(&[b'x'; 16 * 1024]);
                let endless = stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
                response.body(StreamBody::new(endless).boxed_unsync()).map_err(std::io::Error::other)
            }
            Behaviour::Drip => {
                let drip = stream::unfold((), async |()| {
                    // The pace of a slow body.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
                });
                response.body(StreamBody::new(drip).boxed_unsync()).map_err(std::io::Error::other)
            }
            Behaviour::Echo => {
                let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
                response.header("content-type", "application/json").body(body).map_err(std::io::Error::other)
            }
            Behaviour::Bomb => {
                let body = Full::new(bomb()).map_err(|never| match never {}).boxed_unsync();
                response.header("content-encoding", "gzip").body(body).map_err(std::io::Error::other)
            }
        }
    }
}
