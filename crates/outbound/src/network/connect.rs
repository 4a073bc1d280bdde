//! From a host name to a connection to an address that may be called.
//!
//! The guard is here and not in a resolver, because `hyper-util`'s own connector does not ask the resolver about IP
//! literals; and after DNS, because a name can point anywhere. Only vetted addresses are dialled, so that no second
//! look-up can return another address (DNS rebinding).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use fanfare_domain::endpoint::{address::AddressPolicy, url::UrlPolicy};
use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};
use tower::Service;

use crate::{
    network::{
        connections::{Connections, Counting},
        egress::{Proxy, TunnelError},
        evidence::{Evidence, Suspect},
        names::{NameError, Names},
    },
    timings::Stopwatch,
};

/// Longest time for an address to accept, so that a second address is tried within the usual deadlines. Long enough for
/// two lost SYN packets (1 s and 2 s of waiting).
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);

/// Maximum addresses of a host that are tried. A name can have thousands, and an attempt must not scan all.
const MAX_DIALLED: usize = 8;

/// Longest time for look-up, connecting and TLS together. The deadline of a request is usually shorter. This limit
/// applies to connections that `hyper-util` continues in the background after the request got another connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Longest look-up of a name while a client waits for a URL to be saved.
const VETTING_LIMIT: Duration = Duration::from_secs(3);

type Connecting = Pin<Box<dyn Future<Output = Result<MaybeHttpsStream<TokioIo<Counting>>, BoxError>> + Send>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Guarded TCP, with TLS for `https`. The certificate is checked against the name in the URL.
#[derive(Clone)]
pub(crate) struct Connector {
    https: HttpsConnector<Dialer>,
    stopwatch: Stopwatch,
}

impl Connector {
    /// Creates a connector that reports the phases of every connection to `stopwatch`. Use a stopwatch that measures
    /// nothing, or the connector for a single exchange only.
    pub(crate) fn new(route: Arc<Route>, tls: Arc<ClientConfig>, stopwatch: Stopwatch) -> Self {
        let dialer = Dialer { route, stopwatch: stopwatch.clone() };
        Self { https: HttpsConnector::from((dialer, tls)), stopwatch }
    }
}

/// Names, permissions and proxy for dialling.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) names: Names,
    pub(crate) policy: UrlPolicy,
    proxy: Option<Proxy>,
    pub(crate) connections: Connections,
    /// Notified at each new connection.
    pub(crate) connected: Notify,
    /// Targets that the proxy reached lately.
    tunnels: Arc<Evidence>,
    /// Addresses that were reached lately without a proxy.
    reached: Arc<Evidence>,
}

impl Route {
    pub(crate) fn new(names: Names, policy: UrlPolicy, proxy: Option<Proxy>) -> Self {
        Self {
            names,
            policy,
            proxy,
            connections: Connections::default(),
            connected: Notify::new(),
            tunnels: Arc::default(),
            reached: Arc::default(),
        }
    }

    /// True if the suspected part of ours is at fault that an attempt since `began` failed. May ask for up to 3 s.
    /// Without evidence, the endpoint is at fault.
    pub(crate) async fn is_ours(&self, suspect: Suspect, began: Instant) -> bool {
        match suspect {
            Suspect::Certain => true,
            Suspect::Names => self.names.are_at_fault(began).await,
            Suspect::Proxy(except) => {
                let proxy = self.proxy.as_ref();
                let ask = |authority: String| async move {
                    match proxy {
                        Some(proxy) => proxy.tunnel(&authority).await.is_ok(),
                        None => false,
                    }
                };
                self.tunnels.works(None, except.as_deref(), ask).await == Some(false)
            }
            Suspect::Route(except) => {
                let ask = |address: String| async move { TcpStream::connect(address).await.is_ok() };
                self.reached.works(None, Some(&except), ask).await == Some(false)
            }
        }
    }

    /// The part of ours for whose answer a connection to the host waits now.
    pub(crate) fn awaited(&self, host: &str) -> Option<Suspect> {
        if self.names.is_waiting(host) {
            Some(Suspect::Names)
        } else {
            self.tunnels.is_open(None).then_some(Suspect::Proxy(None))
        }
    }

    async fn tunnel(&self, proxy: &Proxy, authority: &str) -> Result<TcpStream, DialError> {
        let _open = self.tunnels.begin(authority);
        let tunnelled = proxy.tunnel(authority).await;
        let stream = tunnelled.map_err(|error| DialError::NoTunnel { authority: authority.to_owned(), error })?;
        self.tunnels.note(authority);
        self.connected.notify_waiters();
        Ok(stream)
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<Counting>>;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let connecting = self.https.call(uri);
        let stopwatch = self.stopwatch.clone();
        Box::pin(async move {
            let stream = timeout(CONNECT_LIMIT, connecting).await.map_err(|_| DialError::TimedOut)??;
            if let MaybeHttpsStream::Https(_) = stream {
                stopwatch.lap(|timings| &mut timings.tls);
            }
            Ok(stream)
        })
    }
}

/// The reason why no connection was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the host name cannot be resolved: {0}")]
    LookupFailed(#[from] NameError),
    /// Omits the address, as the address could reveal the operator's network.
    #[error("the host has an address that may not be called: it is {0}")]
    Forbidden(&'static str),
    #[error("cannot connect: {0}")]
    ConnectFailed(#[source] io::Error),
    #[error("the connection was not accepted in time")]
    TimedOut,
    #[error("{error}")]
    NoTunnel { authority: String, error: TunnelError },
    /// No route to the address, or no port for the connection.
    #[error("cannot connect: {error}")]
    Unroutable { address: SocketAddr, error: io::Error },
}

/// Makes TCP connections, to permitted addresses only.
#[derive(Debug, Clone)]
struct Dialer {
    route: Arc<Route>,
    stopwatch: Stopwatch,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Counting>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { route, stopwatch } = self.clone();
        Box::pin(async move {
            let stream = match &route.proxy {
                Some(proxy) if proxy.gives_names => {
                    let (host, port) = host_and_port(&uri);
                    route.tunnel(proxy, &format!("{host}:{port}")).await?
                }
                _ => {
                    let addresses = look_up(&route.names, &uri).await?;
                    stopwatch.lap(|timings| &mut timings.dns);
                    permit(&route.policy.addresses, &addresses)?;
                    dial(&route, &addresses).await?
                }
            };
            // A delivery is a small write that waits for the response: nothing to gather.
            stream.set_nodelay(true).map_err(DialError::ConnectFailed)?;
            stopwatch.lap(|timings| &mut timings.connect);
            Ok(TokioIo::new(route.connections.open(stream)))
        })
    }
}

/// Host and port as written in the URL: an IPv6 address keeps the brackets.
fn host_and_port(uri: &Uri) -> (&str, u16) {
    let default_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default_port))
}

/// Every address of the host.
async fn look_up(names: &Names, uri: &Uri) -> Result<Vec<SocketAddr>, NameError> {
    let (host, port) = host_and_port(uri);
    let host = host.strip_prefix('[').and_then(|literal| literal.strip_suffix(']')).unwrap_or(host);
    Ok(names.addresses(host).await?.into_iter().map(|address| (address, port).into()).collect())
}

/// Permits all addresses of a host or none. A name that mixes public and internal addresses is an attack or a mistake,
/// and luck must not choose the dialled address.
fn permit(policy: &AddressPolicy, addresses: &[SocketAddr]) -> Result<(), DialError> {
    let refusal = addresses.iter().find_map(|address| policy.refusal(address.ip()));
    refusal.map_or(Ok(()), |reason| Err(DialError::Forbidden(reason)))
}

/// The reason why the host's present addresses are refused; `None` as well if the addresses are unknown.
pub(crate) async fn refusal(route: &Route, uri: &Uri) -> Option<String> {
    if route.proxy.as_ref().is_some_and(|proxy| proxy.gives_names) {
        return None;
    }
    let addresses = timeout(VETTING_LIMIT, look_up(&route.names, uri)).await.ok()?.ok()?;
    permit(&route.policy.addresses, &addresses).err().map(|error| error.to_string())
}

/// Connects to the first address that accepts.
async fn dial(route: &Route, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut failure = DialError::LookupFailed(NameError::NoAddress);
    for &address in addresses.iter().take(MAX_DIALLED) {
        match timeout(ADDRESS_LIMIT, dial_one(route, address)).await {
            // Of several failures, a failure of the receiver tells more than a missing route of an address family.
            Ok(Err(DialError::Unroutable { .. })) if matches!(failure, DialError::ConnectFailed(_)) => {}
            Ok(Err(
                error @ (DialError::ConnectFailed(_) | DialError::NoTunnel { .. } | DialError::Unroutable { .. }),
            )) => failure = error,
            Ok(dialled) => return dialled,
            Err(_) if route.proxy.is_some() => {
                failure = DialError::NoTunnel { authority: address.to_string(), error: TunnelError::TimedOut };
            }
            Err(_) => failure = DialError::TimedOut,
        }
    }
    Err(failure)
}

async fn dial_one(route: &Route, address: SocketAddr) -> Result<TcpStream, DialError> {
    if let Some(proxy) = &route.proxy {
        return route.tunnel(proxy, &address.to_string()).await;
    }
    let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => DialError::Unroutable { address, error },
        _ => DialError::ConnectFailed(error),
    })?;
    // The kernel may connect elsewhere than asked, as for `0.0.0.0`: the check of the peer decides.
    let peer = stream.peer_addr().map_err(DialError::ConnectFailed)?;
    permit(&route.policy.addresses, &[peer])?;
    route.reached.note(&address.to_string());
    route.connected.notify_waiters();
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::network::name_servers::NameServers;

    fn route(allow: &[&str]) -> Route {
        let allow = allow.iter().map(|net| net.parse().expect("network")).collect();
        let names = Names::new(NameServers::new(&[]).expect("name servers"));
        let policy = UrlPolicy { addresses: AddressPolicy::new(allow, Vec::new()), ..UrlPolicy::default() };
        Route::new(names, policy, None)
    }

    #[tokio::test]
    async fn a_host_is_judged_by_its_address() {
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "localhost", "LOCALHOST."] {
            let uri: Uri = format!("http://{host}:1/").parse().expect("URI");
            let addresses = look_up(&route(&[]).names, &uri).await.expect("addresses");
            let refused = permit(&AddressPolicy::default(), &addresses);
            assert!(matches!(refused, Err(DialError::Forbidden(_))), "{host}: {addresses:?}");
        }
    }

    #[tokio::test]
    async fn tries_the_addresses_in_turn() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listener");
        let open = listener.local_addr().expect("address");
        // Bound without listening: refuses, and no other process can listen there meanwhile.
        let socket = TcpSocket::new_v4().expect("socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
        let closed = socket.local_addr().expect("address");
        let route = route(&["127.0.0.0/8"]);
        let stream = dial(&route, &[closed, open]).await.expect("the second accepts");
        assert_eq!(stream.peer_addr().expect("address"), open);
        assert!(matches!(dial(&route, &[closed]).await, Err(DialError::ConnectFailed(_))));
        assert!(matches!(dial(&route, &[]).await, Err(DialError::LookupFailed(NameError::NoAddress))));
    }

    #[tokio::test]
    async fn a_peer_that_is_forbidden_after_all_is_left() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("listener");
        let address = listener.local_addr().expect("address");
        let connected = dial(&route(&[]), &[address]).await;
        assert!(matches!(connected, Err(DialError::Forbidden(_))), "{connected:?}");
    }
}
