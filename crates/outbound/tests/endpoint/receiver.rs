//! Scripted endpoints: real sockets on the loopback.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanfare_domain::endpoint::{address::AddressPolicy, url::UrlPolicy};
use fanfare_outbound::{Client, Exchange, Request, Settings};
use http::{HeaderMap, HeaderValue};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// Deadline for requests with a prompt end.
pub(crate) const AMPLE: Duration = Duration::from_secs(20);

/// Deadline for requests that time out.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// A listener that runs a script on each connection.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Receiver {
    pub(crate) async fn start<S, F>(script: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listener");
        let address = listener.local_addr().expect("address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                // A script fails if the client leaves first; some tests expect that.
                tokio::spawn(script(stream));
            }
        });
        Self { address, accepted }
    }

    /// Answers each request on a connection with the given bytes, and keeps the connection open.
    pub(crate) async fn answering(response: impl Into<Bytes>) -> Self {
        let response = response.into();
        Self::start(move |mut stream| {
            let response = response.clone();
            async move {
                while read_request(&mut stream).await.is_ok() {
                    stream.write_all(&response).await?;
                }
                Ok(())
            }
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks?a=1", self.address)
    }

    /// Number of accepted connections.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// A port without a listener. The socket keeps the port reserved.
pub(crate) fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
    let address = socket.local_addr().expect("address");
    (socket, address)
}

/// Reads a request with its body, as text.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push(char::from(stream.read_u8().await?));
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |value| value.parse().expect("length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    text.push_str(&String::from_utf8(body).expect("UTF-8"));
    Ok(text)
}

/// Settings with exceptions for the given networks.
pub(crate) fn allowing(nets: &[&str]) -> Settings {
    let allow = nets.iter().map(|net| net.parse().expect("network")).collect();
    let policy = UrlPolicy { addresses: AddressPolicy::new(allow, Vec::new()), ..UrlPolicy::default() };
    Settings { policy, ..Settings::default() }
}

/// The same settings with https only.
pub(crate) fn https_only(mut settings: Settings) -> Settings {
    settings.policy.https_only = true;
    settings
}

/// A client that may call the loopback.
pub(crate) fn client() -> Client {
    Client::new(&allowing(&["127.0.0.0/8"])).expect("client")
}

pub(crate) fn request(url: &str, deadline: Duration) -> Request {
    Request {
        url: url.parse().expect("URL"),
        headers: HeaderMap::new(),
        certificate: None,
        content_type: HeaderValue::from_static("application/json"),
        body: Bytes::from_static(b"{\"event\":\"X\"}"),
        deadline,
    }
}

pub(crate) async fn post(url: &str, deadline: Duration) -> Exchange {
    client().post(request(url, deadline)).await.expect("our egress works")
}

/// Outcome of a status without `Retry-After`.
pub(crate) fn status(status: u16) -> fanfare_domain::delivery::outcome::Outcome {
    fanfare_domain::delivery::outcome::Outcome::answered(status)
}
